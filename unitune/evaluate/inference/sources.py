"""Resolve which model answers for each contender, and open it.

Recorded answers can stand for a model, so that a retired one can still be compared. Their file has
one JSON object per line with `case`, `answer` and perhaps another tool's `scores`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue, TypeAdapter, ValidationError

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.credentials import check_allowed, key_for
from unitune.backends.output_limit import is_served
from unitune.backends.protocol import Backend
from unitune.data.dataset import Dataset
from unitune.data.example import Example, Message, digest, digest_all
from unitune.data.privacy.redaction import Redaction
from unitune.errors import DataError, Unsupported, UserError
from unitune.evaluate.inference.batches import batching_backend, supports_batches
from unitune.evaluate.inference.budget import answer_prices
from unitune.evaluate.inference.engine import AnswerOptions
from unitune.files.filesystem import content_of, no_link
from unitune.findings import error
from unitune.job.contenders import NEWEST, ContenderSpec, Model, Recorded, Server, Tuned
from unitune.job.evaluate import model_of
from unitune.job.job import Job, TokenPrice
from unitune.models import (
    BatchedChatModel,
    ChatModel,
    Placed,
    Reply,
    Request,
    TunedModel,
    VersionName,
)
from unitune.planning.preflight import ResolvedJob
from unitune.scorers.functions import RecordedScore

if TYPE_CHECKING:
    from unitune.run.run import Run


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One line of the file, with scores of another tool by its names."""

    case: str
    answer: str
    scores: dict[str, float] | None = None

    @property
    def content(self) -> dict[str, JsonValue]:
        """Line as JSON values."""
        scored: dict[str, JsonValue] = {"scores": {**self.scores}} if self.scores else {}
        return {"case": self.case, "answer": self.answer, **scored}


_LINE = TypeAdapter(RecordedAnswer)


class RecordedModel(BatchedChatModel):
    """Model that returns recorded answers to cases, with the cases' redaction.

    Raises:
        DataError: Like `read_recorded`; or cases with the same question have different answers.
    """

    batch_size = 100  # lookups are fast, but requests take memory

    def __init__(
        self, path: Path, cases: Sequence[Example], redaction: Redaction | None = None
    ) -> None:
        self.recorded = recorded = read_recorded(path, redaction)
        self.fingerprint = _fingerprint(recorded)
        self._answers: dict[str, RecordedAnswer] = {}
        for case in cases:
            if (answer := recorded.get(case.case_id)) is None:
                continue
            # A request does not name its case, so a question can have only one answer.
            first = self._answers.setdefault(_question(case.prompt), answer)
            if (first.answer, first.scores or None) != (answer.answer, answer.scores or None):
                raise DataError(
                    f"{path}: the cases {first.case!r} and {answer.case!r} have the same question "
                    "but different recorded answers. Remove one of them from data.test."
                )

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Placed]:
        """Look up all questions."""
        yield [(at, await self.reply(request)) for at, request in enumerate(requests)]

    async def reply(self, request: Request) -> Reply:
        """Look up the question."""
        answer = self._answers.get(_question(request.messages))
        if answer is None:
            return Reply(error="no answer to this case was recorded", finish_reason="error")
        return Reply(text=answer.answer, given=answer.scores or None)


def check_recorded(job: Job, cases: Sequence[Example]) -> None:
    """Raise DataError for recorded answers that are unreadable, or answer or score no case.

    A missing or empty file is accepted, because the model may still have to answer.
    """
    keys = {
        each.key
        for each in job.evaluate.scorers
        if isinstance(each, RecordedScore) and each.file is None
    }
    for spec in job.evaluate.contenders:
        if not isinstance(spec, Recorded) or not (path := job.folder / spec.answers).exists():
            continue
        recorded = RecordedModel(path, cases).recorded
        answers = [recorded[case.case_id] for case in cases if case.case_id in recorded]
        if not recorded:
            continue
        if not answers:
            raise DataError(
                f"{path} has no answer to any of the {len(cases)} test cases. Its ids look like "
                f"{', '.join(list(recorded)[:3])}; those of the cases look like {cases[0].case_id}."
            )
        for key in sorted(keys):
            if not any(key in (answer.scores or {}) for answer in answers):
                known = sorted({name for answer in answers for name in answer.scores or {}})
                raise DataError(
                    f"{path} lacks the score {key!r}, which the scorer recorded_score reads. "
                    f"Available scores: {', '.join(known) or 'none'}."
                )


def _fingerprint(recorded: Mapping[str, RecordedAnswer]) -> str:
    return f"recorded:{digest_all(recorded[name].content for name in sorted(recorded))}"


def read_answers(path: Path) -> dict[str, str]:
    """Return the texts of recorded answers by case; see `read_recorded`."""
    return {case: recorded.answer for case, recorded in read_recorded(path).items()}


def read_recorded(path: Path, redaction: Redaction | None = None) -> dict[str, RecordedAnswer]:
    """Return recorded answers by case, redacted if a redaction is given.

    Raises:
        DataError: The file is missing, a line is not a recorded answer, or a case has two.
    """
    try:
        lines = content_of(path).decode().split("\n")  # a text may contain other line separators
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path} cannot be read: {why}. It must have a contender's recorded answers in UTF-8; "
            "set its path in evaluate.contenders."
        ) from error
    answers: dict[str, RecordedAnswer] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip("\r"):
            continue
        try:
            answer = _LINE.validate_json(line)
        except ValidationError as error:
            raise DataError(
                f'{path}:{number} is not a recorded answer. Write {{"case": ID, "answer": TEXT}}.'
            ) from error
        if redaction is not None:
            answer = replace(answer, answer=redaction.redact(answer.answer))
        if answers.setdefault(answer.case, answer) != answer:
            raise DataError(
                f"{path}:{number} is a second answer to the case {answer.case!r}. Keep one of them."
            )
    return answers


def mend(path: Path) -> None:
    """Cut off the last line if a process died while writing it."""
    with open(path, "r+b", opener=no_link) as file:
        content = file.read()
        if not content or content.endswith(b"\n"):
            return
        whole, _, last = content.rpartition(b"\n")
        try:
            _LINE.validate_json(last)
        except ValidationError:
            file.truncate(len(whole) + 1 if whole else 0)
        else:
            file.write(b"\n")


def answer_line(case: str, answer: str, scores: Mapping[str, float] | None = None) -> str:
    """Return a line of the file, including its end."""
    line = RecordedAnswer(case, answer, {**scores} if scores else None)
    return json.dumps(line.content, ensure_ascii=False) + "\n"


def _question(messages: Sequence[Message]) -> str:
    return digest([[turn.role, turn.key] for turn in messages])


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
                origin = _fingerprint(read_recorded(job.folder / spec.answers, redaction))
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


def check_images(job: Job, test: Dataset) -> None:
    """Raise DataError for a test row with an image if the user's hardware would have to see it."""
    shown = next((row for row in test.rows if row.example.images), None)
    if shown is None:
        return
    models = {
        each.name: "Leave such rows out, or compare models of vendors and servers."
        for each in job.evaluate.contenders
        if not isinstance(each, Recorded) and not is_served(each, job.backend)
        if not isinstance(each, Tuned) or each.run is None
    }
    models |= {
        each.name: "Set `images: false` for this judge, or use a model of a vendor or server."
        for each in job.evaluate.judges
        if each.images and not is_served(model_of(each), job.backend)
    }
    for name, fix in models.items():
        what = f"the row has an image, but {name!r} runs on your own or rented machines, where "
        found = test.located(error("no-images", f"{what}models see text only.", fix), shown)
        raise DataError(str(found), (found,))


def check_batches(job: Job, *, deploys: bool) -> None:
    """Refuse batches that no backend supports (Unsupported) or with a deployment (UserError)."""
    specs = [s for s in job.evaluate.requested if not isinstance(s, Server | Recorded)]
    backends = {spec.backend if isinstance(spec, Model) else job.backend for spec in specs}
    elsewhere = any(isinstance(spec, Tuned) and spec.run for spec in specs)
    if not elsewhere and not any(supports_batches(name) for name in backends):
        batching_backend(job.backend)
    if job.evaluate.dialogue is not None:
        raise Unsupported(
            "--batch answers single requests within a day, but each turn of evaluate.dialogue "
            "needs the answer before it. Compare without --batch."
        )
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
