"""What a comparison would take: requests, tokens and time of each contender.

Requests and tokens are those of its estimate (`unitune.cost.evaluation`). How long models on this
machine take, their backend says (`ForecastsAnswers`); for others so many seconds a request are
assumed, and the assumption stands beside the figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from unitune.backends import registry
from unitune.backends.forecasts import AnswerForecast, AnswerLoad, ForecastsAnswers
from unitune.cost.evaluation import ContenderTokens, contender_tokens
from unitune.cost.tokens import Count
from unitune.data.dataset import Dataset
from unitune.errors import UnituneError
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob
from unitune.security.spec import Frozen

# Assumed of one request to a vendor or a server: low, expected, high. Not measured.
REQUEST_SECONDS = (0.5, 2.0, 10.0)
# With so many requests at once the engine begins (`unitune.evaluate.inference.requests`)
USUAL_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time as a range around what is expected."""

    low: float = 0.0
    expected: float = 0.0
    high: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.low + other.low, self.expected + other.expected, self.high + other.high)


class ContenderForecast(Frozen):
    """What the requests of one contender would take."""

    name: str
    requests: Count
    """On dev, to choose its prompt, and for the verdict."""
    tokens: Count
    """Of prompts and answers together."""
    seconds: Seconds
    basis: str
    """What the time rests on."""


class EvaluationForecast(Frozen):
    """What the requests of a comparison would take; recorded answers take none."""

    contenders: tuple[ContenderForecast, ...]

    @property
    def seconds(self) -> Seconds:
        """From the first request to the last: contenders answer one after another."""
        return sum((each.seconds for each in self.contenders), start=Seconds())

    @property
    def requests(self) -> Count:
        """Of all contenders."""
        return sum((each.requests for each in self.contenders), start=Count())

    @property
    def tokens(self) -> Count:
        """Of all contenders."""
        return sum((each.tokens for each in self.contenders), start=Count())

    @property
    def bases(self) -> tuple[str, ...]:
        """What the times rest on, each once."""
        return tuple(dict.fromkeys(each.basis for each in self.contenders))


def forecast_evaluation(resolved: ResolvedJob) -> EvaluationForecast | None:
    """Return what a comparison of a job would take; None where it has no test rows."""
    test = resolved.splits.test
    if test is None or not len(test):
        return None
    job = resolved.job
    specs = [spec for spec in job.evaluate.contenders if not isinstance(spec, Recorded)]
    contenders = [_forecast(spec, resolved, test) for spec in specs]
    return EvaluationForecast(contenders=tuple(contenders))


def _forecast(spec: ContenderSpec, resolved: ResolvedJob, test: Dataset) -> ContenderForecast:
    job = resolved.job
    tokens = contender_tokens(spec, job, resolved.workload)
    requests = tokens.requests
    if (here := _here(spec, job, test, tokens)) is None:
        seconds, basis = _assumed(requests, job.evaluate.concurrency)
    else:
        share = here.seconds / max(requests.expected, 1)
        low, high = here.low_share * requests.low, here.high_share * requests.high
        seconds = Seconds(low * share, here.seconds, high * share)
        day = here.measured_on
        basis = f"measured here on {day}" if day else "guessed from this machine's speed"
    return ContenderForecast(
        name=spec.name,
        requests=requests,
        tokens=tokens.prompt + tokens.answer,
        seconds=seconds,
        basis=basis,
    )


def _here(
    spec: ContenderSpec, job: Job, test: Dataset, tokens: ContenderTokens
) -> AnswerForecast | None:
    """Return the forecast of a model's backend, where it answers on this machine."""
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
    except UnituneError:  # a finding of its own
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
    basis = f"assumed: {low:g} to {high:g} s a request, {at_once} at a time"
    return seconds, basis
