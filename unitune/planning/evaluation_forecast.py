"""Forecast the requests, tokens and time of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from unitune.backends import registry
from unitune.backends.forecasts import AnswerForecast, AnswerLoad, ForecastsAnswers
from unitune.cost.evaluation import ContenderTokens, contender_tokens, general_tokens
from unitune.cost.tokens import Count
from unitune.data.dataset import Dataset
from unitune.data.general.questions import general_cases
from unitune.documents import Frozen
from unitune.errors import UnituneError
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server, Tuned
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob

# Assumed seconds per request to a vendor or server: low, expected, high. Not measured.
REQUEST_SECONDS = (0.5, 2.0, 10.0)
# Requests in flight when the engine starts (`unitune.evaluate.inference.requests`)
USUAL_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Seconds:
    """Expected time with its range, in seconds."""

    low: float = 0.0
    expected: float = 0.0
    high: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.low + other.low, self.expected + other.expected, self.high + other.high)


class ContenderForecast(Frozen):
    """Requests, tokens and time of one contender."""

    name: str
    requests: Count
    """Requests on the dev set, to choose a prompt, and on the test set."""
    tokens: Count
    """Prompt and answer tokens together."""
    seconds: Seconds
    basis: str
    """Source of the time: measured, guessed or assumed."""


class EvaluationForecast(Frozen):
    """Requests, tokens and time of a comparison. Recorded answers need no requests."""

    contenders: tuple[ContenderForecast, ...]

    @property
    def seconds(self) -> Seconds:
        """Total time. Contenders answer one after another."""
        return sum((each.seconds for each in self.contenders), start=Seconds())

    @property
    def requests(self) -> Count:
        """Requests of all contenders."""
        return sum((each.requests for each in self.contenders), start=Count())

    @property
    def tokens(self) -> Count:
        """Tokens of all contenders."""
        return sum((each.tokens for each in self.contenders), start=Count())

    @property
    def bases(self) -> tuple[str, ...]:
        """Distinct sources of the times."""
        return tuple(dict.fromkeys(each.basis for each in self.contenders))


def forecast_evaluation(resolved: ResolvedJob) -> EvaluationForecast | None:
    """Return the forecast of a job's comparison, or None if the job has no test rows."""
    test = resolved.splits.test
    if test is None or not len(test):
        return None
    job = resolved.job
    specs = [spec for spec in job.evaluate.requested if not isinstance(spec, Recorded)]
    contenders = [_forecast(spec, resolved, test) for spec in specs]
    contenders += chain.from_iterable(_general(spec, job) for spec in specs)
    return EvaluationForecast(contenders=tuple(contenders))


def _forecast(spec: ContenderSpec, resolved: ResolvedJob, test: Dataset) -> ContenderForecast:
    job = resolved.job
    tokens = contender_tokens(spec, job, resolved.workload)
    requests = tokens.requests
    if (here := _here(spec, job, test, tokens)) is None:
        seconds, basis = _assumed(requests, job.evaluate.concurrency)
    else:
        seconds, basis = _timed(requests, here)
    return ContenderForecast(
        name=spec.name,
        requests=requests,
        tokens=tokens.prompt + tokens.answer,
        seconds=seconds,
        basis=basis,
    )


def _general(spec: ContenderSpec, job: Job) -> Iterator[ContenderForecast]:
    """Yield the forecast of general questions to a tuned model here and to its untuned base."""
    questions = job.evaluate.general_questions(here=True)
    if not questions or not isinstance(spec, Tuned):
        return
    tokens = general_tokens(questions)
    if (here := _here(spec, job, general_cases(questions), tokens)) is not None:
        seconds, basis = _timed(tokens.requests, here)
        yield ContenderForecast(
            name=f"{spec.name}: general questions",
            requests=tokens.requests,
            tokens=tokens.prompt + tokens.answer,
            seconds=seconds,
            basis=basis,
        )


def _timed(requests: Count, here: AnswerForecast) -> tuple[Seconds, str]:
    share = here.seconds / max(requests.expected, 1)
    low, high = here.low_share * requests.low, here.high_share * requests.high
    day = here.measured_on
    basis = f"measured here on {day}" if day else "guessed from this machine's speed"
    return Seconds(low * share, here.seconds, high * share), basis


def _here(
    spec: ContenderSpec, job: Job, test: Dataset, tokens: ContenderTokens
) -> AnswerForecast | None:
    if isinstance(spec, Server):
        return None
    name = spec.backend if isinstance(spec, Model) else job.backend
    model = spec.model if isinstance(spec, Model) else job.base_model
    requests, answers = tokens.requests.expected, tokens.answer.expected
    answer = answers / max(requests, 1)
    load = AnswerLoad(requests, tokens.own.expected, tokens.shared.expected, answer)
    try:
        backend = registry.backend(name) if registry.offer(name).is_own else None
        if isinstance(backend, ForecastsAnswers):
            return backend.forecast_answers(model, test, load)
    except UnituneError:  # reported as a finding elsewhere
        pass
    return None


def _assumed(requests: Count, most: int) -> tuple[Seconds, str]:
    usual = min(USUAL_CONCURRENCY, most)
    low, expected, high = REQUEST_SECONDS
    seconds = Seconds(
        requests.low * low / most,
        requests.expected * expected / usual,
        requests.high * high / usual,
    )
    at_once = f"{usual}" if usual == most else f"{usual} to {most}"
    basis = f"assumed: {low:g} to {high:g} s per request, {at_once} at a time"
    return seconds, basis
