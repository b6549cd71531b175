"""Putting many questions to a model, with every answer recorded as it comes.

A thin asyncio engine. A model that likes batches gets one batch at a time; any other gets as many
requests at once as it bears (`unitune.evaluate.inference.requests`). What the journal holds is
not requested again, unless it was an error. The hash that decides this covers the model's
fingerprint, the messages and every sampling setting, so another model or prompt never gets
somebody else's answers. A vendor that is down says nothing about a model, so requests end then.

Not here: questions that a vendor answers together within a day
(`unitune.evaluate.inference.batch_runner`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

from unitune.backends.output_limit import is_cut_by_thoughts, thinks, widened
from unitune.data.example import digest
from unitune.errors import BackendError, Mismatch
from unitune.evaluate.inference.budget import BudgetGuard
from unitune.evaluate.inference.journal import Journal, ResponseCache
from unitune.evaluate.inference.requests import LIMIT, AdaptiveLimiter, Outcome, request_with_retry
from unitune.evaluate.records import Record, Uncounted
from unitune.models import BatchedChatModel, ChatModel, Reply, Request
from unitune.security.redaction import redacted

# Questions in a row without an answer, each with all its attempts: the vendor is down
DOWN_AFTER = 10
# Refusals in a row, before any answer, that would meet every question: the key or the model
REFUSED_AFTER = 3
FOR_ALL = (401, 403, 404)
NO_MONEY = 402  # openRouter's, DeepSeek's: no credits are left, for any question
# May be about one question, unless question after question is refused in the same words, as with
# Anthropic's "credit balance is too low" or LiteLLM's "Budget has been exceeded"
INVALID = (400, 422)
HASH_DIGITS = 16

# Dev while prompts are chosen, test for the verdict, batch while test cases are with a backend in
# batches, probe for general questions, stopping after Ctrl-C
Phase = Literal["dev", "test", "batch", "probe", "stopping"]


@dataclass(frozen=True)
class Question:
    """A case, by its id, as it is put to a model."""

    case: str
    request: Request
    repeat: int = 0

    @cached_property
    def prompt_hash(self) -> str:
        """Hash of the request."""
        return short_hash(self.request.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How many of one contender's questions are answered, for progress bars."""

    contender: str
    phase: Phase
    prompt: str  # in words
    done: int  # of a batch as far as the backend says
    total: int


def short_hash(value: object) -> str:
    """Return the beginning of a hash of JSON values: 64 bits, for a file of answers enough."""
    return digest([value])[:HASH_DIGITS]


def request_hash(fingerprint: str, question: Question) -> str:
    """Return the hash of everything that determines an answer, the model first."""
    return short_hash([fingerprint, question.prompt_hash])


def wants_more_room(record: Record, question: Question) -> bool:
    """Whether thoughts took the room of a recorded answer, and a wider limit is allowed."""
    if record.finish_reason != "length" or record.max_tokens is None:
        return False
    reply = Reply(
        text=record.text,
        finish_reason=record.finish_reason,
        tool_calls=record.tool_calls,
        thought=bool(record.reasoning_tokens),
    )
    return is_cut_by_thoughts(reply) and record.max_tokens < widened(question.request).max_tokens


def record_of(contender: str, question: Question, model: str, hashed: str, reply: Reply) -> Record:
    """Return a reply as it is recorded, without keys that an error may quote."""
    return Record(
        contender=contender,
        case=question.case,
        repeat=question.repeat,
        model=model,
        request_hash=hashed,
        text=reply.text,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        reasoning_tokens=reply.reasoning_tokens,
        max_tokens=reply.max_tokens,
        left_out=reply.left_out or None,
        seconds=reply.seconds,
        tool_calls=reply.tool_calls,
        given=reply.given,
        error=reply.error and redacted(reply.error),
    )


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How questions are put to a model."""

    concurrency: int = LIMIT  # requests in flight at most
    guard: BudgetGuard | None = None  # none: no cost is counted
    cache: ResponseCache | None = None
    # Fingerprints of the models that are known to think before they answer
    thinking: set[str] = field(default_factory=set[str])
    # Whether recorded answers and errors are all there is, and no request is sent
    replay: bool = False


class ReplayedModel(ChatModel):
    """Stands for the model whose recorded answers are replayed."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    async def reply(self, request: Request) -> Reply:
        """Never called: a replay sends no request."""
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
    """Put all questions to a model, except those whose answer is recorded.

    Returns:
        One record a question, in their order.

    Raises:
        BackendError: The model is down, or refuses every question; what it answered is kept.
        OverBudget: The guard is empty; likewise.
        Mismatch: A replay has no record of a question, of this model and from this origin.
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
        f"{contender}: {len(missing)} of {total} questions have no recorded answer, "
        f"first {missing[0]}."
    )
    if others := journal.other_origins(contender):
        model = journal.origins.get(contender) or "no model"
        named = ", ".join(other or "a model that they do not name" for other in others)
        return (
            f"{what} The job's model is {model}, and the rows are of {named}. Compare once "
            "without --replay, or take the change back."
        )
    return (
        f"{what} Cases, prompts, settings, model or rows have changed since: take the change back, "
        "or compare once without --replay."
    )


class _Pending(NamedTuple):
    question: Question
    hashed: str


@dataclass(slots=True)
class _Requests:
    """One contender's requests, and the records so far."""

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
        """Take the answers that are recorded or cached, and return the other questions."""
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
        self.notify(len(self.records))
        return pending

    async def send_concurrently(self, pending: Sequence[_Pending]) -> None:
        """Send as many requests at once as the model bears."""
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
            # The first failure ended every task, and callers know it by its own type.
            raise failures.exceptions[0] from None

    async def send_batch(self, model: BatchedChatModel, batch: Sequence[_Pending]) -> None:
        """Send a batch, and record each part of it as it is answered."""
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
        """Request an answer, and once more with more room where thoughts have taken it all."""
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
            earlier = failed and failed.uncounted  # of a request in vain
            record = record_of(name, question, model, hashed, reply)
            new.append(replace(record, uncounted=Uncounted.total(earlier, uncounted)))
        self.journal.append(new)
        for record, outcome in zip(new, outcomes, strict=True):
            if self.options.cache:
                self.options.cache.put(record.request_hash, outcome.reply)
            self.records[record.case, record.repeat] = record
        self.notify(len(self.records))

    def _stop_if_down(self, reply: Reply) -> None:
        """Stop when the failures are no finding about the model any more."""
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
                f"{reply.error} What was answered is kept: once that is fixed, the same command "
                "goes on.",
                status=reply.status,
            )


def _with_limit(outcome: Outcome, request: Request) -> Outcome:
    """Return the outcome with the longest answer that was allowed; the model knows it best."""
    if outcome.reply.max_tokens:
        return outcome
    return outcome._replace(reply=replace(outcome.reply, max_tokens=request.max_tokens))
