"""Define exports, forecasts and calibration, and the capabilities of backends that offer them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

from pydantic import JsonValue

from unitune._version import __version__
from unitune.data.dataset import Dataset
from unitune.documents import Frozen
from unitune.findings import Finding
from unitune.job.job import Job
from unitune.models import Request, Start, TunedModel

ExportForm: TypeAlias = Literal["adapter", "merged", "gguf", "gguf-lora", "ollama", "mlx", "vllm"]


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """Request for an export of a tuned model."""

    form: ExportForm  # form of the export
    folder: Path  # folder to create
    name: str  # name of the model in it, valid as a file name
    # Requests that it must answer, greedily, as the run's own model does
    requests: Sequence[Request]
    # Rounding of the weights, by GGUF's name; None for the form's default
    quantization: str | None = None
    temperature: float = 0.0  # temperature of the evaluation's requests
    system: str | None = None  # system message shared by all training rows, if any


ABOUT = "unitune.json"  # describes what an adapter or an export was made from


def describe_export(
    folder: Path, model: TunedModel, form: ExportForm, quantization: str | None = None
) -> None:
    """Record the origin and the files of an export; a local adapter already has its origin."""
    about: dict[str, Any]
    if (folder / ABOUT).exists():
        about = json.loads((folder / ABOUT).read_bytes())
    else:
        about = {
            "unitune": __version__,
            "form": form,
            "quantization": quantization,
            "base": model.base,
            "base_fingerprint": model.base_fingerprint,
            "data_fingerprint": model.data_fingerprint,
        }
    about["files"] = [
        file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()
    ]
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


class Exported(Frozen):
    """A finished export."""

    form: ExportForm
    folder: Path
    files: dict[str, int]  # size in bytes by path in the folder
    seconds: float  # time of writing it, without its verification
    program: str  # program that loaded it and answered, with its version
    rows: int = 0  # number of rows that it answered; 0 if it was not verified
    equal: int = 0  # number of rows with exactly the run's own answer
    use: str = ""  # command that uses it
    notes: tuple[str, ...] = ()


@runtime_checkable
class Exports(Protocol):
    """A backend that exports tuned models for other programs."""

    def export(self, model: TunedModel, spec: ExportSpec) -> Exported:
        """Export a tuned model into a folder that is complete and verified, or not created.

        Raise `Unsupported` if the model cannot be exported in this form, and `Mismatch` if the
        export answers differently.
        """
        ...


class Forecast(Frozen):
    """Time and memory that a training on this machine would take."""

    findings: tuple[Finding, ...] = ()
    rows: int
    tokens: int  # tokens of the training rows in one epoch
    trained_tokens: int  # tokens that are trained on in one epoch
    epochs: int
    steps: int  # optimiser steps in all epochs
    steps_low: int | None = None  # minimum number of steps with early stopping
    seconds_low: float
    seconds_expected: float
    seconds_high: float
    memory_low_bytes: int
    # Expected peak memory of the worker; a launch with less free memory is refused
    memory_bytes: int
    memory_high_bytes: int
    memory_available_bytes: int
    # Day of the calibration behind time and memory; None if based on the model's shape only
    measured_on: date | None = None
    # Resolved values of `auto` settings: dtype, threads, batch_size, learning_rate, …
    settings: dict[str, JsonValue]

    @classmethod
    def of_sweep(cls, runs: Sequence[Self]) -> Self:
        """Return the forecast of a sweep's runs, one after another, with their common settings."""
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
    """A local backend that can forecast the time and memory of a training."""

    def forecast(
        self, job: Job, train: Dataset, validation: Dataset, start: Start | None = None
    ) -> Forecast:
        """Inspect rows, model, machine and start without training."""
        ...


class AnswerLoad(NamedTuple):
    """Number and length of an evaluation's requests to a model."""

    requests: float
    own_tokens: float  # tokens added to a case's messages that differ between cases
    shared_tokens: float  # tokens added to a case's messages that are the same in all cases
    answer_tokens: float  # tokens of one answer


class AnswerForecast(Frozen):
    """Time that requests to a model on this machine would take."""

    seconds: float  # expected time, including loading the model
    low_share: float  # lower end of the range, as a share of `seconds`
    high_share: float
    # Day on which answers were timed on this machine; None if guessed from the model's size
    measured_on: date | None = None


@runtime_checkable
class ForecastsAnswers(Protocol):
    """A local backend that can forecast the time of answers."""

    def forecast_answers(self, model: str, cases: Dataset, load: AnswerLoad) -> AnswerForecast:
        """Inspect cases, model and machine without answering."""
        ...


@runtime_checkable
class Calibrates(Protocol):
    """A local backend that can time a training to narrow its forecasts."""

    def calibrate(
        self, job: Job, train: Dataset, validation: Dataset, start: Start | None = None
    ) -> None:
        """Train a few steps in a separate process and store their time for later forecasts."""
