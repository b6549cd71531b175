"""What a comparison would take: requests, tokens and time, of models here and of vendors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.known import known

from unitune.backends import registry
from unitune.backends.local_capabilities import AnswerForecast, AnswerLoad
from unitune.cost.evaluation import VERBOSE_TOKENS
from unitune.cost.tokens import Count
from unitune.data.dataset import Dataset
from unitune.job.job import Job
from unitune.planning.forecasts import EvaluationForecast, forecast_evaluation
from unitune.planning.preflight import preflight

MakeJob = Callable[..., Job]


@pytest.fixture
def make(tmp_path: Path) -> MakeJob:
    """Make a job with 40 training rows, 10 of them held out, and 20 cases."""

    def rows(name: str, count: int) -> None:
        lines = (
            {"prompt": f"Colour of {name} {number}?", "completion": f"red {number}"}
            for number in range(count)
        )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")

    rows("train", 40)
    rows("test", 20)

    def job(backend: str = "openai", model: str = "gpt-4o-mini", **evaluate: Any) -> Job:
        return Job.model_validate(
            {
                "name": "demo",
                "model": model,
                "backend": backend,
                "data": {"train": "train.jsonl", "test": "test.jsonl", "validation": 0.25},
                "evaluate": evaluate,
                "folder": tmp_path,
            }
        )

    return job


def forecast(job: Job) -> EvaluationForecast:
    return known(forecast_evaluation(preflight(job)))


def test_requests_are_the_cases_and_the_choice_on_dev(make: MakeJob) -> None:
    """Zero-shot has at most one prompt to score on dev; few-shot tries three to six.

    Two or three prompts of few-shot answer the test.
    """
    made = forecast(make(contenders=["zero-shot", "few-shot", "tuned"], repeats=2))
    assert {each.name: each.requests for each in made.contenders} == {
        "zero-shot": Count(40, 50, 50),
        "few-shot": Count(110, 160, 180),
        "tuned": Count.of(40),
    }
    assert Count(190, 250, 270) == made.requests


def test_changed_questions_are_requests_too(make: MakeJob) -> None:
    """A question without a list of options has no change of their order."""
    changes = ["case", "whitespace", "option_order"]
    made = forecast(make(contenders=["tuned"], repeats=2, robustness=changes))
    assert made.requests == Count(20 * 4, 20 * 5, 20 * 5)


def test_time_at_a_vendor_is_assumed_and_says_so(make: MakeJob) -> None:
    (tuned,) = forecast(make(contenders=["tuned"], concurrency=4)).contenders
    assert tuned.basis == "assumed: 0.5 to 10 s per request, 4 at a time"
    assert (tuned.seconds.low, tuned.seconds.expected, tuned.seconds.high) == (2.5, 10.0, 50.0)


def test_recorded_answers_take_nothing(make: MakeJob) -> None:
    recorded = {"type": "recorded", "answers": "answers.jsonl"}
    assert [*forecast(make(contenders=[recorded, "tuned"])).contenders][1:] == []


class Here:
    """A backend that answers on this machine, a second a request."""

    def __init__(self) -> None:
        self.loads: list[AnswerLoad] = []

    def forecast_answers(self, model: str, cases: Dataset, load: AnswerLoad) -> AnswerForecast:
        assert (model, len(cases)) == ("any", 40 if cases.name == "questions.jsonl" else 20)
        self.loads.append(load)
        return AnswerForecast(seconds=load.requests, low_share=0.5, high_share=2.0)


def test_time_here_is_what_the_backend_says(make: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shots that are the same for all cases are computed once; the nearest are not."""
    here = Here()
    monkeypatch.setattr(registry, "backend", lambda _: here)
    few = {"type": "few-shot", "shots": 4}
    contenders = [few | {"choose": "random"}, few | {"choose": "nearest", "name": "near"}]
    contenders.append(few | {"choose": "auto", "name": "either"})
    random, nearest, _ = forecast(make("fake", "any", contenders=contenders)).contenders
    assert random.basis == "guessed from this machine's speed"
    requests = random.requests
    assert (requests.low / 2, requests.expected, requests.high * 2) == (
        random.seconds.low,
        random.seconds.expected,
        random.seconds.high,
    )
    same, near, either = here.loads
    assert 0 == same.own_tokens < near.shared_tokens  # instructions are the same for all
    assert same.shared_tokens == near.shared_tokens + near.own_tokens
    assert nearest.tokens == random.tokens
    assert near.own_tokens * 20 // either.requests == either.own_tokens


def test_a_model_here_that_has_seen_no_answer_is_verbose(
    make: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the limit of the job; shots and training show how short answers are."""

    def answers(**evaluate: Any) -> list[float]:
        here = Here()
        monkeypatch.setattr(registry, "backend", lambda _: here)
        contenders = ["zero-shot", "few-shot", "tuned"]
        forecast(make("fake", "any", contenders=contenders, retention=False, **evaluate))
        return [load.answer_tokens for load in here.loads]

    talking, shown, tuned = answers()
    assert (talking, shown == tuned < 10) == (VERBOSE_TOKENS, True)
    assert answers(max_tokens=12) == [12, shown, tuned]


def test_without_cases_there_is_nothing_to_forecast(make: MakeJob) -> None:
    job = make()
    data = job.data.model_copy(update={"test": None})
    assert forecast_evaluation(preflight(job.model_copy(update={"data": data}))) is None


def test_general_questions_here_are_forecast_for_both_models(
    make: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Here()
    monkeypatch.setattr(registry, "backend", lambda _: here)
    made = forecast(make("fake", "any", contenders=["zero-shot", "tuned"], retention=40))
    general = made.contenders[-1]
    assert (general.name, general.requests) == ("tuned: general questions", Count.of(80))
    assert here.loads[-1] == AnswerLoad(80, 0, 0, 14)
    assert general.seconds.expected == 80
