"""Resolve which model answers for each contender, and open it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.credentials import check_allowed, key_for
from unitune.backends.protocol import Backend
from unitune.data.example import Example
from unitune.data.privacy.redaction import Redaction
from unitune.errors import UserError
from unitune.evaluate.inference.batches import batching_backend, supports_batches
from unitune.evaluate.inference.budget import answer_prices
from unitune.evaluate.inference.engine import AnswerOptions
from unitune.evaluate.inference.recorded import RecordedModel, recorded_fingerprint
from unitune.job.contenders import NEWEST, ContenderSpec, Model, Recorded, Server, Tuned
from unitune.job.job import Job, TokenPrice
from unitune.models import ChatModel, TunedModel, VersionName
from unitune.planning.preflight import ResolvedJob

if TYPE_CHECKING:
    from unitune.run.run import Run


@dataclass(frozen=True, slots=True)
class Source:
    """Model that answers for a contender."""

    spec: ContenderSpec
    origin: str  # which model it is according to the job: `Record.origin`
    folder: Path  # the job's, for recorded answers
    backend: str | None = None  # None for servers and recorded answers
    # Name at the backend; a tuned model is set when it is ready to answer
    model: str | TunedModel = ""
    price: TokenPrice | None = None
    redaction: Redaction | None = None  # replacements in the cases, if any
    api: Backend | None = None  # None for servers, recorded answers and replays

    @property
    def answers_in_batches(self) -> bool:
        """True if the backend supports batches."""
        return isinstance(self.api, Batches)

    def open(self, cases: Sequence[Example]) -> ChatModel:
        """Open the model. Raises UserError (key), DataError (recorded answers) or MissingExtra."""
        spec = self.spec
        if isinstance(spec, Recorded):
            return RecordedModel(self.folder / spec.answers, cases, self.redaction)
        if isinstance(spec, Server):
            from unitune.backends.kit.chat import open_server  # noqa: PLC0415 - loads aiohttp

            return open_server(spec.url, spec.model, key=key_for(*_key_of(spec)))
        assert self.api is not None, "a replay opens no model"
        return self.api.chat(self.model)


def resolve_sources(
    resolved: ResolvedJob, runs: Mapping[str, Run], options: AnswerOptions
) -> dict[str, Source]:
    """Return the source of each contender with its price, by name, before any request.

    Raises:
        OverBudget: There is a budget, but a price is unknown.
        NotFoundError: The backend does not exist.
        UnituneError: The same errors as `Source.open`.
    """
    job, redaction = resolved.job, resolved.rows.read.redaction
    trained = {name: each.job for name, each in runs.items()}
    unpriced = options.allow_unpriced or options.replay
    prices = answer_prices(job, resolved.book, trained, allow_unpriced=unpriced).contenders
    sources: dict[str, Source] = {}
    for spec in job.evaluate.requested:
        backend, model = job.backend, job.base_model
        match spec:
            case Tuned():
                run = runs.get(spec.name)
                backend = run.backend_name if run else backend
                origin = _origin_of_tuned(spec, run, resolved)
            case Server():
                if not options.replay:
                    key_for(*_key_of(spec))
                backend, origin = None, f"{spec.url.rstrip('/')}:{spec.model}"
            case Recorded():
                backend = None
                origin = recorded_fingerprint(job.folder / spec.answers, redaction)
            case Model():
                known = resolved.book.offer(spec.backend).model(spec.model)
                backend, model = spec.backend, known.name if known else spec.model
                origin = f"{backend}:{model}"
            case _:
                origin = f"{backend}:{model}"
        api = registry.backend(backend) if backend and not options.replay else None
        price = prices.get(spec.name)
        sources[spec.name] = Source(spec, origin, job.folder, backend, model, price, redaction, api)
    return sources


def _origin_of_tuned(spec: Tuned, run: Run | None, resolved: ResolvedJob) -> str:
    if spec.run is None:
        return f"training:{run.fingerprint if run else resolved.fingerprint}"
    if run is not None:
        return f"run:{run.id}:{run.fingerprint}"
    is_moving = spec.run == NEWEST or VersionName.parse(spec.run)
    return "run:" if is_moving else f"run:{spec.run}"  # a replay's rows name it


def check_keys(spec: Server) -> None:
    """Raise UserError if the user has not allowed a server's key to be sent there."""
    check_allowed(*_key_of(spec))


def _key_of(spec: Server) -> tuple[str | None, str, str]:
    return spec.api_key_variable, spec.url, f"the contender {spec.name!r}"


def check_batches(job: Job, *, deploys: bool) -> None:
    """Refuse batches that no backend supports (Unsupported) or with a deployment (UserError)."""
    specs = [s for s in job.evaluate.requested if not isinstance(s, Server | Recorded)]
    backends = {spec.backend if isinstance(spec, Model) else job.backend for spec in specs}
    elsewhere = any(isinstance(spec, Tuned) and spec.run for spec in specs)
    if not elsewhere and not any(supports_batches(name) for name in backends):
        batching_backend(job.backend)
    if deploys:
        raise UserError(
            "--deploy and --batch cannot be combined: a batch takes up to a day, and the "
            "deployment is paid by the hour. Remove one of them."
        )


def without_batches(sources: Mapping[str, Source]) -> Iterator[str]:
    """Yield a sentence for each contender that is not answered in batches."""
    for name, source in sources.items():
        if isinstance(source.spec, Recorded) or source.answers_in_batches:
            continue
        who = source.backend or "a server"
        yield (f"{name} uses single requests at the full price: {who} does not support batches.")
