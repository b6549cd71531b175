"""Forecast a comparison's requests, tokens and time, and ask a backend for what it knows.

It knows prices, times, token counts, and which tokens of a row are trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from unitune.backends import registry
from unitune.backends.capabilities import (
    CountsTokens,
    MaskedToken,
    Quotes,
    ShowsLossMask,
    ValidatesOptions,
)
from unitune.backends.formats import wire_text
from unitune.backends.local_capabilities import (
    AnswerForecast,
    AnswerLoad,
    Calibrates,
    Forecast,
    Forecasts,
    ForecastsAnswers,
)
from unitune.backends.protocol import Launch, Upload
from unitune.cost.evaluation import ContenderTokens, contender_tokens, general_tokens
from unitune.cost.tokens import Count, VendorCounter, counter_for
from unitune.cost.tokens.by_encoding import tiktoken_encoding
from unitune.cost.tokens.counter import SAMPLE_ROWS, family_of
from unitune.data.dataset import Dataset, spread
from unitune.data.example import Example, Message
from unitune.data.general_questions import general_cases
from unitune.documents import Frozen
from unitune.errors import DataError, JobError, MissingExtra, UnituneError, Unsupported
from unitune.findings import Finding, error, note, of_runs
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server, Tuned
from unitune.job.job import Job
from unitune.planning.feasibility import FOR_TESTS
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.planning.rows import Rows
from unitune.text import listed
from unitune.workspace.install import install_command

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
    contenders: list[ContenderForecast] = []
    for spec in specs:
        tokens = contender_tokens(spec, job, resolved.workload)
        contenders.append(_forecast(spec.name, job, tokens, _here(spec, job, test, tokens)))
    if questions := job.evaluate.general_questions(here=True):
        cases, tokens = general_cases(questions), general_tokens(questions)
        for spec in specs:
            if isinstance(spec, Tuned) and (here := _here(spec, job, cases, tokens)):
                name = f"{spec.name}: general questions"
                contenders.append(_forecast(name, job, tokens, here))
    return EvaluationForecast(contenders=tuple(contenders))


def _forecast(
    name: str, job: Job, tokens: ContenderTokens, here: AnswerForecast | None
) -> ContenderForecast:
    requests = tokens.requests
    seconds, basis = (
        _timed(requests, here) if here else _assumed(requests, job.evaluate.concurrency)
    )
    return ContenderForecast(
        name=name,
        requests=requests,
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


# Code of the finding that unitune can plan for the backend but cannot launch there
NO_BACKEND = "no-backend"
QUOTE_KEY = "unitune-quote"  # replaces the launch key; nothing is created under it


def existence_findings(resolved: ResolvedJob) -> tuple[Finding, ...]:
    """Return an error if no installed package provides the backend."""
    if resolved.offer.name in registry.backend_names():
        return ()
    offers = (registry.offer(name) for name in registry.backend_names() if name != FOR_TESTS)
    names = listed([offer.name for offer in offers if offer.methods])
    return (error(NO_BACKEND, resolved.offer.unavailable, f"Backends that can launch: {names}."),)


def backend_findings(resolved: ResolvedJob) -> tuple[tuple[Finding, ...], tuple[Forecast, ...]]:
    """Return the backend's findings and, if it trains on this machine, a forecast of each run."""
    if no_backend := existence_findings(resolved):
        return no_backend, ()
    name, here = resolved.offer.name, resolved.offer.trains_here
    if not here and (missing := registry.missing_packages(name)):
        what = f"launching on this backend requires {', '.join(missing)}."
        return (note("missing-extra", what, f"Install with: {install_command(name)}"),), ()
    refused = of_runs({run.setting: _refusal(run) for run in resolved.runs})
    if refused or not (here and isinstance(resolved.backend, Forecasts)):
        return refused, ()
    forecasts = _forecasts(resolved, resolved.backend)
    findings = of_runs({name: forecast.findings for name, forecast in forecasts.items()})
    return findings, tuple(forecasts.values())


def _forecasts(resolved: ResolvedJob, backend: Forecasts) -> dict[str, Forecast]:
    """Return a forecast of each run. Runs that differ only in their seeds share one."""
    made: dict[str, Forecast] = {}
    alike: dict[tuple[str, int], Forecast] = {}
    for run in resolved.runs:
        job, splits, seed = run.job, run.splits, run.job.tuning.seed
        seedless = job.tuning.model_copy(update={"seed": "auto"}).model_dump_json()
        key = (seedless, len(splits.train))
        if key not in alike:
            alike[key] = backend.forecast(job, splits.train, splits.validation, run.start)
        settings = alike[key].settings | ({} if seed == "auto" else {"seed": seed})
        made[run.setting] = alike[key].model_copy(update={"settings": settings})
    return made


def _refusal(resolved: ResolvedJob) -> tuple[Finding, ...]:
    try:
        if isinstance(resolved.backend, ValidatesOptions):
            resolved.backend.validate_options(resolved.job)
    except MissingExtra as missing:
        return (error("missing-extra", str(missing)),)
    except JobError as refusal:
        return (error("refused-options", str(refusal)),)
    except Unsupported as refusal:
        return (error("unsupported-options", str(refusal)),)
    return ()


def calibrate(job: Job | ResolvedJob) -> None:
    """Time a few steps of a job's training here, to make later forecasts more precise.

    Raises Unsupported if the backend does not train here, or BackendError if the process died.
    """
    resolved = preflight(job)
    backend = resolved.backend
    if not isinstance(backend, Calibrates):
        raise Unsupported(
            f"backend {resolved.offer.name!r} does not train on this machine, so it cannot be "
            "calibrated. Leave --calibrate out."
        )
    splits = resolved.splits
    backend.calibrate(resolved.job, splits.train, splits.validation, resolved.start)


def counted_by_vendor(resolved: ResolvedJob) -> ResolvedJob:
    """Return the job with token counts scaled to the vendor's count of a sample of its rows.

    Raises Unsupported if the vendor does not count tokens, or BackendError.
    """
    backend, model = resolved.backend, resolved.job.base_model
    if not isinstance(backend, CountsTokens):
        raise Unsupported(f"{resolved.offer.name} does not count tokens before a launch.")
    own = counter_for(model, aliases=resolved.terms.aliases)
    sample = [row.example for row in spread(resolved.splits.train.rows, SAMPLE_ROWS)]
    counters = {model: VendorCounter.sampled(backend, model, own, sample)}
    return replace(resolved, rows=Rows(resolved.rows.read, counters))


def quote(job: Job | ResolvedJob) -> Decimal:
    """Return the vendor's quote for a training, or for all runs of a sweep, in US dollars.

    The files of the launch are uploaded, named by their hash, so that a launch can reuse them.

    Raises:
        Unsupported: The vendor does not quote prices.
        MissingExtra: The backend's packages are not installed.
        BackendError: The vendor refused the files or did not answer.
    """
    resolved = preflight(job)
    if resolved.is_sweep:
        return sum((quote(run) for run in resolved.runs), start=Decimal(0))
    job, backend = resolved.job, resolved.backend
    if not isinstance(backend, Quotes):
        raise Unsupported(f"{job.backend} does not quote a price before a launch.")
    form = resolved.terms.formats.get(job.method)
    with TemporaryDirectory() as temporary:
        folder, uploads = Path(temporary), dict[str, Upload]()
        for name, rows in resolved.uploads.items():
            content = wire_text(rows, form).encode()
            (folder / name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            uploads[name] = backend.upload(folder / name, sha256)
        training, validation = uploads["train.jsonl"], uploads.get("validation.jsonl")
        return backend.quote(Launch(QUOTE_KEY, job, training, validation, folder, resolved.start))


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """One training row with its loss mask."""

    line: int  # in the training file
    pieces: tuple[MaskedToken, ...]  # tokens in order, or whole texts without a tokenizer
    problem: str = ""  # reason why the row cannot be trained on, or empty


@dataclass(frozen=True, slots=True)
class Audit:
    """Loss masks of the first rows of a training file."""

    rows: tuple[MaskedRow, ...]
    basis: str


def audit(job: Job | ResolvedJob, count: int) -> Audit:
    """Return the loss masks of the first training rows. Raises DataError or MissingExtra."""
    resolved = preflight(job)
    job, rows = resolved.job, resolved.splits.train.rows[:count]
    if resolved.offer.trains_here and isinstance(resolved.backend, ShowsLossMask):
        backend, shown = resolved.backend, list[MaskedRow]()
        for row in rows:
            try:
                shown.append(MaskedRow(row.line, backend.loss_mask(job, row.example)))
            except DataError as problem:
                shown.append(MaskedRow(row.line, (), str(problem)))
        return Audit(tuple(shown), "the model's own tokenizer")
    family = family_of(job.base_model)
    encoding = family.encoding if family else None
    cut = encoding or "whole texts: this model's tokenizer is not on this machine"
    masked = (MaskedRow(row.line, tuple(_pieces(row.example, encoding))) for row in rows)
    return Audit(tuple(masked), f"{cut}; the vendor's own template is not shown")


def _pieces(example: Example, encoding: str | None) -> Iterator[MaskedToken]:
    last = len(example.messages) - 1
    for at, turn in enumerate(example.messages):
        learnt = turn.role == "assistant" and turn.weight != 0 and example.weight > 0
        # In a preference row, only the two answers are compared with each other.
        learnt = learnt and (example.non_preferred_output is None or at == last)
        yield from _turn(turn.role, turn, encoding, learnt=learnt)
    for worse in example.non_preferred_output or ():
        yield from _turn("assistant, not preferred", worse, encoding, learnt=True)


def _turn(
    label: str, turn: Message, encoding: str | None, *, learnt: bool
) -> Iterator[MaskedToken]:
    yield MaskedToken(f"{label}: ", trained=False, heading=True)
    calls = (str(call) for call in turn.tool_calls or ())
    text = "".join((turn.reasoning_content or "", turn.text, *calls))
    for piece in _cut(text, encoding):
        yield MaskedToken(piece, trained=learnt)


def _cut(text: str, encoding: str | None) -> Iterable[str]:
    """Return the tokens of a text. Tokens that are not whole characters are joined."""
    if encoding is None or not text:
        return (text,)
    tokens = tiktoken_encoding(encoding)
    whole, starts = tokens.decode_with_offsets(tokens.encode_ordinary(text))
    ends = (*starts[1:], len(whole))
    return [whole[start:end] for start, end in zip(starts, ends, strict=True) if end > start]
