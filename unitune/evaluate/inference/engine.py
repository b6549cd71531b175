"""Send questions to a model and record every answer as it arrives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import JsonValue

from unitune.backends.output_limit import is_cut_by_thoughts, thinks, widened
from unitune.data.example import digest
from unitune.errors import BackendError, Mismatch
from unitune.evaluate.documents.records import Record, Uncounted
from unitune.evaluate.inference.budget import BudgetGuard
from unitune.evaluate.inference.journal import Journal, ResponseCache
from unitune.evaluate.inference.requests import LIMIT, AdaptiveLimiter, Outcome, request_with_retry
from unitune.models import BatchedChatModel, ChatModel, Reply, Request
from unitune.observability.logs import Log
from unitune.security.redaction import redacted

log = Log(__name__)
# Questions in a row without an answer after all attempts, from which on the vendor is down
DOWN_AFTER = 10
# Refusals in a row, before any answer, that would affect every question: the key or the model
REFUSED_AFTER = 3
FOR_ALL = (401, 403, 404)
NO_MONEY = 402  # no credits left (OpenRouter, DeepSeek), for any question
# May be about one question, unless many are refused with the same words, such as Anthropic's
# "credit balance is too low" or LiteLLM's "Budget has been exceeded"
INVALID = (400, 422)
HASH_DIGITS = 16
# Fields of a record that are a reply's
OF_REPLY = {each.name for each in fields(Record)} & {each.name for each in fields(Reply)}

# dev: choosing prompts; test: answering test cases; judge: judging answers; batch: waiting for
# batches; general: answering general questions; stopping: after Ctrl-C
Phase = Literal["dev", "test", "judge", "batch", "general", "stopping"]


@dataclass(frozen=True)
class Question:
    """Request for a case."""

    case: str
    request: Request
    repeat: int = 0

    @cached_property
    def prompt_hash(self) -> str:
        """Hash of the request."""
        return short_hash(self.request.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """Progress of one contender's questions."""

    contender: str
    phase: Phase
    prompt: str  # label of the prompt
    done: int  # for a batch, as far as the backend reports it
    total: int


Notify = Callable[[EvaluationProgress], None]


def ignore(_: object) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """Options for answers; see `unitune.compare`."""

    deploy_seconds: float | None = None
    deploy_options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    batch: bool = False
    replay: bool = False
    use_cache: bool = False
    allow_unpriced: bool = False
    progress: Notify = ignore
    announce: Callable[[str], None] = ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions(AnswerOptions):
    """Options for comparing contenders; see `unitune.compare`."""

    out: str | os.PathLike[str] | None = None
    update_baseline: bool = False
    limit: int | None = None
    new_answers: str | None = None
    # True for a check of a model in use: all answers are new, and nothing is chosen
    verifies: bool = False


def short_hash(value: object) -> str:
    """Return a 64-bit prefix of a hash of JSON values."""
    return digest([value])[:HASH_DIGITS]


def request_hash(fingerprint: str, question: Question) -> str:
    """Return the hash of everything that determines an answer, including the model."""
    return short_hash([fingerprint, question.prompt_hash])


def wants_more_room(record: Record, question: Question) -> bool:
    """Return whether reasoning cut off a recorded answer and a higher limit is allowed."""
    if record.finish_reason != "length" or record.max_tokens is None:
        return False
    reply = Reply(
        text=record.text,
        finish_reason=record.finish_reason,
        tool_calls=record.tool_calls,
        thought=bool(record.reasoning_tokens or record.reasoning),
    )
    return is_cut_by_thoughts(reply) and record.max_tokens < widened(question.request).max_tokens


def record_of(contender: str, question: Question, model: str, hashed: str, reply: Reply) -> Record:
    """Return the record of a reply, redacting keys that an error may quote."""
    same: dict[str, Any] = {name: getattr(reply, name) for name in OF_REPLY}
    same |= {"left_out": reply.left_out or None, "error": reply.error and redacted(reply.error)}
    case, repeat = question.case, question.repeat
    return Record(
        contender=contender, case=case, repeat=repeat, model=model, request_hash=hashed, **same
    )


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """Options for sending questions to a model."""

    concurrency: int = LIMIT  # maximum requests in flight
    guard: BudgetGuard | None = None  # None if costs are not counted
    cache: ResponseCache | None = None
    # Fingerprints of models known to reason before answering
    thinking: set[str] = field(default_factory=set[str])
    # True to use only recorded answers and errors, and send no request
    replay: bool = False


class ReplayedModel(ChatModel):
    """Placeholder for the model whose recorded answers are replayed."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    async def reply(self, request: Request) -> Reply:
        """Raise NotImplementedError, because a replay sends no request."""
        raise NotImplementedError(request)


async def collect_answers(  # noqa: PLR0913 - each is independent
    model: ChatModel,
    questions: Sequence[Question],
    journal: Journal,
    contender: str,
    notify: Callable[[int], None],
    *,
    options: InferenceOptions = InferenceOptions(),
) -> list[Record]:
    """Send all questions without a recorded answer to a model; return all records in order.

    Raises:
        BackendError: The model is down or refuses every question; its answers are kept.
        OverBudget: The guard's budget is exhausted; the answers are kept.
        Mismatch: A replay lacks a record of a question from this model and origin.
    """
    requests = _Requests(model, journal, contender, notify, options)
    pending = requests.pending(questions)
    if options.replay and pending:
        missing = [each.question.case for each in pending]
        raise Mismatch(_unanswered(journal, contender, missing, len(questions)))
    if isinstance(model, BatchedChatModel):
        for start in range(0, len(pending), model.batch_size):
            await requests.send_batch(model, pending[start : start + model.batch_size])
    else:
        await requests.send_concurrently(pending)
    return [requests.records[each.case, each.repeat] for each in questions]


def _unanswered(journal: Journal, contender: str, missing: Sequence[str], total: int) -> str:
    what = (
        f"{contender}: {len(missing)} of {total} questions have no recorded answer; the first is "
        f"{missing[0]}."
    )
    if others := journal.other_origins(contender):
        model = journal.origins.get(contender) or "no known model"
        named = ", ".join(other or "an unnamed model" for other in others)
        return (
            f"{what} The job's model is {model}, but the rows are from {named}. Compare once "
            "without --replay, or undo the change."
        )
    return (
        f"{what} Cases, prompts, settings, model or rows have changed. Undo the change, or "
        "compare once without --replay."
    )


class _Pending(NamedTuple):
    question: Question
    hashed: str


@dataclass(slots=True)
class _Requests:
    model: ChatModel
    journal: Journal
    contender: str
    notify: Callable[[int], None]
    options: InferenceOptions
    records: dict[tuple[str, int], Record] = field(default_factory=dict[tuple[str, int], Record])
    failures: int = 0
    answered: bool = False
    last_error: str = ""

    def pending(self, questions: Sequence[Question]) -> list[_Pending]:
        """Take recorded or cached answers, and return the other questions."""
        fingerprint, cache = self.model.fingerprint, self.options.cache
        pending: list[_Pending] = []
        cached: list[Record] = []
        for question in questions:
            hashed = request_hash(fingerprint, question)
            record = self.journal.answer(self.contender, question.case, hashed)
            if self.options.replay:
                last = self.journal.own(self.contender, question.case, hashed)
                record = last if last and last.model == fingerprint else None
            elif record is not None and wants_more_room(record, question):
                record = None
            if record is None and cache and (reply := cache.get(hashed)):
                record = record_of(self.contender, question, fingerprint, hashed, reply)
                record = replace(record, cached=True)
                cached.append(record)
            if record is None:
                pending.append(_Pending(question, hashed))
            else:
                self.records[question.case, question.repeat] = record
        self.journal.append(cached)
        counts = len(self.records) - len(cached), len(cached), len(pending)
        text = "%s: %d answers are recorded, %d are cached, %d are requested"
        log.info(text, self.contender, *counts)
        self.notify(len(self.records))
        return pending

    async def send_concurrently(self, pending: Sequence[_Pending]) -> None:
        """Send as many requests at once as the model can handle."""
        left, limiter = iter(pending), AdaptiveLimiter(self.options.concurrency)

        async def work() -> None:
            for each in left:  # all tasks share this iterator
                outcome = await self._answer(each.question, limiter)
                self._keep([each], [outcome])
                self._stop_if_down(outcome.reply)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.options.concurrency, len(pending))):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            # The first failure ended every task; callers expect its own type.
            raise failures.exceptions[0] from None

    async def send_batch(self, model: BatchedChatModel, batch: Sequence[_Pending]) -> None:
        """Send a batch, and record each part as it is answered."""
        left, requests = dict(enumerate(batch)), [each.question.request for each in batch]
        try:
            async with aclosing(model.stream(requests)) as answers:
                async for indexed in answers:
                    answered = [left.pop(index) for index, _ in indexed]
                    outcomes = [
                        _with_limit(Outcome(reply), requests[index]) for index, reply in indexed
                    ]
                    self._keep(answered, outcomes)
        except BackendError as error:
            self._keep(list(left.values()), [Outcome(Reply.failed(error)) for _ in left])

    async def _answer(self, question: Question, limiter: AdaptiveLimiter) -> Outcome:
        """Request an answer, and retry once with a higher limit if reasoning used it up."""
        model, guard, thinking = self.model, self.options.guard, self.options.thinking
        request = question.request
        if model.fingerprint in thinking:
            request = widened(request)
        outcome = await request_with_retry(model, request, limiter, guard)
        if thinks(outcome.reply):
            thinking.add(model.fingerprint)
        if is_cut_by_thoughts(outcome.reply) and (wider := widened(request)) != request:
            again = await request_with_retry(model, wider, limiter, guard)
            outcome, request = again.after(outcome), wider
        return _with_limit(outcome, request)

    def _keep(self, batch: Sequence[_Pending], outcomes: Sequence[Outcome]) -> None:
        name, model, new = self.contender, self.model.fingerprint, list[Record]()
        for (question, hashed), (reply, uncounted) in zip(batch, outcomes, strict=True):
            failed = self.journal.last(name, question.case, hashed)
            earlier = failed and failed.uncounted  # from an earlier failed request
            record = record_of(name, question, model, hashed, reply)
            new.append(replace(record, uncounted=Uncounted.total(earlier, uncounted)))
        self.journal.append(new)
        for record, outcome in zip(new, outcomes, strict=True):
            if self.options.cache:
                self.options.cache.put(record.request_hash, outcome.reply)
            self.records[record.case, record.repeat] = record
        self.notify(len(self.records))

    def _stop_if_down(self, reply: Reply) -> None:
        if reply.error is None:
            self.failures, self.answered = 0, True
            return
        for_all = reply.status == NO_MONEY or (reply.status in FOR_ALL and not self.answered)
        invalid = reply.status in INVALID and not self.answered
        if invalid and reply.error != self.last_error:
            self.failures = 0
        self.last_error = reply.error
        if not (reply.retryable or for_all or invalid):
            return
        self.failures += 1
        if self.failures >= (REFUSED_AFTER if for_all else DOWN_AFTER):
            raise BackendError(
                f"{self.contender}: {self.failures} requests in a row failed. Last reason: "
                f"{reply.error} Existing answers are kept. Fix the cause, then run the same "
                "command again to resume.",
                status=reply.status,
            )


def _with_limit(outcome: Outcome, request: Request) -> Outcome:
    """Return the outcome with the output limit used. The model's own value takes precedence."""
    if outcome.reply.max_tokens:
        return outcome
    return outcome._replace(reply=replace(outcome.reply, max_tokens=request.max_tokens))
