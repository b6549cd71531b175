"""What a training or answers will take, by a backend that can tell before either begins.

Capabilities as those of `unitune.backends.capabilities`: a caller checks ``isinstance``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple, Protocol, Self, runtime_checkable

from pydantic import JsonValue

from unitune.data.dataset import Dataset
from unitune.findings import Finding
from unitune.job.job import Job
from unitune.models import Start
from unitune.security.spec import Frozen


class Forecast(Frozen):
    """What a training on this machine would take."""

    findings: tuple[Finding, ...] = ()
    """What is wrong with the rows for this model: too long, nothing to learn from, …"""
    rows: int
    tokens: int
    """All tokens of the training rows, one epoch."""
    trained_tokens: int
    """Tokens that carry loss, one epoch."""
    epochs: int
    steps: int
    """Optimiser steps, all epochs."""
    steps_low: int | None = None
    """After how many it may end, where it ends early if nothing is gained."""
    seconds_low: float
    seconds_expected: float
    seconds_high: float
    memory_low_bytes: int
    memory_bytes: int
    """Peak memory of the worker, as expected; a launch that finds less free is refused."""
    memory_high_bytes: int
    memory_available_bytes: int
    measured_on: date | None = None
    """The day of the calibration that time and memory rest on; None: on the model's shape alone."""
    settings: dict[str, JsonValue]
    """Every `auto` as it would be resolved: dtype, threads, batch_size, learning_rate, …"""

    @classmethod
    def of_sweep(cls, runs: Sequence[Self]) -> Self:
        """Return what the runs of a sweep take, one after another, with the settings of all."""
        first, days = runs[0], [run.measured_on for run in runs if run.measured_on is not None]
        ends_early = any(run.steps_low is not None for run in runs)
        return first.model_copy(
            update={
                "tokens": max(run.tokens for run in runs),
                "trained_tokens": max(run.trained_tokens for run in runs),
                "epochs": sum(run.epochs for run in runs),
                "steps": sum(run.steps for run in runs),
                "steps_low": sum(run.steps_low or run.steps for run in runs)
                if ends_early
                else None,
                "seconds_low": sum(run.seconds_low for run in runs),
                "seconds_expected": sum(run.seconds_expected for run in runs),
                "seconds_high": sum(run.seconds_high for run in runs),
                "memory_low_bytes": max(run.memory_low_bytes for run in runs),
                "memory_bytes": max(run.memory_bytes for run in runs),
                "memory_high_bytes": max(run.memory_high_bytes for run in runs),
                "measured_on": min(days) if len(days) == len(runs) else None,
                "settings": {
                    name: value
                    for name, value in first.settings.items()
                    if all(run.settings.get(name) == value for run in runs)
                },
            }
        )


@runtime_checkable
class Forecasts(Protocol):
    """A backend that trains here, and can say what it would take."""

    def forecast(
        self, job: Job, train: Dataset, validation: Dataset, start: Start | None = None
    ) -> Forecast:
        """Inspect rows, model and machine, and the start if there is one, and train nothing."""
        ...


class AnswerLoad(NamedTuple):
    """Number and length of requests to a model, each for the answer of a case."""

    requests: float
    own_tokens: float  # tokens added to the messages of a case that differ from case to case
    shared_tokens: float  # tokens added to the messages of a case that are the same for all cases
    answer_tokens: float  # tokens of one answer


class AnswerForecast(Frozen):
    """What requests to a model on this machine would take."""

    seconds: float
    """Expected seconds, including the loading of the model."""
    low_share: float
    """Lower end of the range, as a share of `seconds`."""
    high_share: float
    measured_on: date | None = None
    """Day on which answers were timed on this machine; None: guessed from the model's size."""


@runtime_checkable
class ForecastsAnswers(Protocol):
    """A backend that answers here, and can say how long that would take."""

    def forecast_answers(self, model: str, cases: Dataset, load: AnswerLoad) -> AnswerForecast:
        """Inspect cases, model and machine, and answer nothing."""
        ...


@runtime_checkable
class Calibrates(Protocol):
    """A backend that can time a training here, so that its forecasts become narrow."""

    def calibrate(
        self, job: Job, train: Dataset, validation: Dataset, start: Start | None = None
    ) -> None:
        """Train a few steps in a process of its own, and keep what they took for later forecasts.

        A `BackendError` says that the process died.
        """
