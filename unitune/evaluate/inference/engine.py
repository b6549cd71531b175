"""Asking a model many questions, with every answer written down as it comes.

A thin asyncio engine. A model that likes batches gets one batch at a time; any other gets as many
requests at once as it bears (`unitune.evaluate.inference.rate_limiter`). A request that failed in a
way that passes is sent again, a few times and with the pauses that the vendor asks for. What the
journal holds already is not asked again, unless it was an error. The hash that decides this covers
the model's fingerprint, the messages and every sampling setting, so another model or prompt never
finds somebody else's answers.

A vendor that is down, or refuses the key, is no finding about a model: after a row of failures the
asking ends with an error, and what was answered is kept.

Not here: questions that a vendor answers together within a day
(`unitune.evaluate.inference.batch_runner`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Literal, NamedTuple

from unitune.backends.output_limit import is_cut_by_thoughts, thinks, widened
from unitune.data.example import digest
from unitune.errors import BackendError, Mismatch
from unitune.evaluate.inference.attempts import Outcome, request_with_retry
from unitune.evaluate.inference.budget import BudgetGuard
from unitune.evaluate.inference.journal import Journal
from unitune.evaluate.inference.rate_limiter import LIMIT, AdaptiveLimiter
from unitune.evaluate.inference.response_cache import ResponseCache
from unitune.evaluate.records import Record
from unitune.models import BatchedChatModel, ChatModel, Reply, Request
from unitune.security.redaction import redacted

DOWN_AFTER = 10
"""Questions in a row without an answer, each asked `ATTEMPTS` times: the vendor is down."""
REFUSED_AFTER = 3
"""Refusals in a row, before any answer, that would meet every question: the key or the model."""
FOR_ALL = (401, 403, 404)
HASH_DIGITS = 16

Phase = Literal["dev", "test", "batch", "probe", "stopping"]


@dataclass(frozen=True)
class Question:
    """A case as it is put to a model.

    Args:
        case: Its id.
        request: Messages, tools and sampling settings.
        repeat: How often it was requested before.
        case_hash: Of the whole case.
        target_hash: Of the expected answer.
    """

    case: str
    request: Request
    repeat: int = 0
    case_hash: str = ""
    target_hash: str = ""

    @cached_property
    def prompt_hash(self) -> str:
        """Hash of the request."""
        return short_hash(self.request.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far one contender has been asked, for progress bars.

    Args:
        contender: Its name.
        phase: dev while prompts are chosen, test for the verdict, batch while test cases are with a
            backend in batches, probe for general questions, stopping after Ctrl-C.
        prompt: The prompt that is being asked, in words.
        done: Cases that have their answer; of a batch as far as the backend says.
        total: Cases that there are; for a batch those that are with the backend.
    """

    contender: str
    phase: Phase
    prompt: str
    done: int
    total: int


def short_hash(value: object) -> str:
    """Return the beginning of a hash of JSON values: 64 bits, for a file of answers enough."""
    return digest([value])[:HASH_DIGITS]


def request_hash(fingerprint: str, question: Question) -> str:
    """Return the hash of everything that determines an answer, the model first."""
    return short_hash([fingerprint, question.prompt_hash])


def wants_more_room(record: Record, question: Question) -> bool:
    """Whether thoughts took the room of a recorded answer, and there is more to be had.

    Args:
        record: Of an answer; one that came in a batch had what was asked for and no more.
        question: What was asked.
    """
    if record.finish_reason != "length" or record.max_tokens is None:
        return False
    reply = Reply(
        text=record.text,
        finish_reason=record.finish_reason,
        tool_calls=record.tool_calls,
        thought=bool(record.reasoning_tokens),
    )
    return is_cut_by_thoughts(reply) and record.max_tokens < widened(question.request).max_tokens


def record_of(
    contender: str, question: Question, fingerprint: str, hashed: str, reply: Reply
) -> Record:
    """Return a reply as it is written down."""
    return Record(
        contender=contender,
        case=question.case,
        repeat=question.repeat,
        model=fingerprint,
        request_hash=hashed,
        prompt_hash=question.prompt_hash,
        case_hash=question.case_hash,
        target_hash=question.target_hash,
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
    """What asking may use.

    Args:
        concurrency: Requests in flight at most.
        guard: What may be spent; None: nothing is counted.
        cache: Answers given before, in other comparisons too.
        thinking: Fingerprints of the models that are known to think before they answer.
    """

    concurrency: int = LIMIT
    guard: BudgetGuard | None = None
    cache: ResponseCache | None = None
    thinking: set[str] = field(default_factory=set[str])


async def collect_answers(  # noqa: PLR0913 - each is a thing of its own
    model: ChatModel,
    questions: Sequence[Question],
    journal: Journal,
    contender: str,
    notify: Callable[[int], None],
    *,
    options: InferenceOptions = InferenceOptions(),
) -> list[Record]:
    """Put all questions to a model, except those whose answer is known.

    Returns:
        One record a question, in their order.

    Raises:
        BackendError: The model is down, or refuses every question; what it answered is kept.
        OverBudget: The guard is empty; likewise.
    """
    lane = _Requests(model, journal, contender, notify, options, questions)
    await lane.request_all()
    return [lane.records[one.case, one.repeat] for one in questions]


def replay(questions: Sequence[Question], journal: Journal, contender: str) -> list[Record]:
    """Return what the contender's own model answered to the questions before; ask nothing.

    Returns:
        One record a question, in their order; errors that were recorded are errors still.

    Raises:
        Mismatch: A question has no record: cases, prompts or the model have changed since; or a
            record does not hold together.
    """
    found = [journal.recorded(contender, one.case, one.prompt_hash) for one in questions]
    missing = [one.case for one, record in zip(questions, found, strict=True) if record is None]
    if missing:
        raise Mismatch(_unanswered(journal, contender, missing, len(questions)))
    records = [record for record in found if record is not None]
    for question, record in zip(questions, records, strict=True):
        if record.request_hash != request_hash(record.model, question):
            raise Mismatch(
                f"{contender}: the recorded answer to {record.case} is said to be of the model "
                f"{record.model!r}, and its request_hash is of another. Take the rows back from "
                "version control, or compare once without --replay."
            )
    return records


def _unanswered(journal: Journal, contender: str, missing: Sequence[str], total: int) -> str:
    told = (
        f"{contender}: {len(missing)} of {total} questions have no recorded answer, "
        f"first {missing[0]}."
    )
    if others := journal.other_origins(contender):
        wanted = journal.origins.get(contender) or "no model"
        named = ", ".join(other or "a model that they do not name" for other in others)
        return (
            f"{told} The job's model is {wanted}, and the rows are of {named}. Compare once "
            "without --replay, or take the change back."
        )
    return f"{told} Cases, prompts or settings have changed since: compare once without --replay."


class _Pending(NamedTuple):
    """A question that is to be asked, with its `request_hash`."""

    question: Question
    hashed: str


@dataclass(slots=True)
class _Requests:
    """One contender's questions on their way."""

    model: ChatModel
    journal: Journal
    contender: str
    notify: Callable[[int], None]
    options: InferenceOptions
    questions: Sequence[Question]
    records: dict[tuple[str, int], Record] = field(default_factory=dict[tuple[str, int], Record])
    failures: int = 0
    answered: bool = False

    async def request_all(self) -> None:
        """Ask what is not known; several tasks share one iterator, so each is asked once."""
        pending = self._pending()
        self.notify(len(self.records))
        if isinstance(self.model, BatchedChatModel):
            for batch in _batches(pending, self.model.batch_size):
                await self._request_together(self.model, batch)
            return
        left, limiter = iter(pending), AdaptiveLimiter(self.options.concurrency)

        async def work() -> None:
            for one in left:
                outcome = await self._answer(one.question, limiter)
                self._keep([one], [outcome])
                self._heed(outcome.reply)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.options.concurrency, len(pending))):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            # The first failure ended every task, and callers know it by its own type.
            raise failures.exceptions[0] from None

    async def _answer(self, question: Question, limiter: AdaptiveLimiter) -> Outcome:
        """Ask once, and once more with more room where thoughts have taken it all."""
        thinking, fingerprint, guard = (
            self.options.thinking,
            self.model.fingerprint,
            self.options.guard,
        )
        request = widened(question.request) if fingerprint in thinking else question.request
        outcome = await request_with_retry(self.model, request, limiter, guard)
        if thinks(outcome.reply):
            thinking.add(fingerprint)
        if is_cut_by_thoughts(outcome.reply) and (wider := widened(request)) != request:
            again = await request_with_retry(self.model, wider, limiter, guard)
            outcome, request = again.after(outcome), wider
        return _allowed(outcome, request)

    async def _request_together(self, model: BatchedChatModel, batch: Sequence[_Pending]) -> None:
        """Ask a batch, and write each part of it down as it is answered."""
        left, requests = dict(enumerate(batch)), [one.question.request for one in batch]
        try:
            async with aclosing(model.stream(requests)) as answers:
                async for some in answers:
                    asked = [left.pop(place) for place, _ in some]
                    given = [_allowed(Outcome(reply), requests[place]) for place, reply in some]
                    self._keep(asked, given)
        except BackendError as error:
            self._keep(list(left.values()), [Outcome(Reply.failed(error)) for _ in left])

    def _pending(self) -> list[_Pending]:
        """Take what is known, and return what is not."""
        fingerprint = self.model.fingerprint
        pending: list[_Pending] = []
        cached: list[Record] = []
        for question in self.questions:
            hashed = request_hash(fingerprint, question)
            record = self.journal.answer(self.contender, question.case, hashed)
            if record is not None and wants_more_room(record, question):
                record = None
            if record is None and (reply := self._cached(hashed)) is not None:
                record = record_of(self.contender, question, fingerprint, hashed, reply)
                record = replace(record, cached=True)
                cached.append(record)
            if record is None:
                pending.append(_Pending(question, hashed))
            else:
                self.records[question.case, question.repeat] = record
        self.journal.append(cached)
        return pending

    def _cached(self, hashed: str) -> Reply | None:
        return self.options.cache.get(hashed) if self.options.cache else None

    def _keep(self, batch: Sequence[_Pending], given: Sequence[Outcome]) -> None:
        new = [self._record(one, outcome) for one, outcome in zip(batch, given, strict=True)]
        self.journal.append(new)
        if self.options.cache:
            for record, outcome in zip(new, given, strict=True):
                self.options.cache.put(record.request_hash, outcome.reply)
        self.records.update(((record.case, record.repeat), record) for record in new)
        self.notify(len(self.records))

    def _record(self, one: _Pending, outcome: Outcome) -> Record:
        record = record_of(
            self.contender, one.question, self.model.fingerprint, one.hashed, outcome.reply
        )
        failed = self.journal.last(self.contender, one.question.case, one.hashed)
        earlier = failed and failed.uncounted  # it was asked before, in vain
        paid = earlier + outcome.uncounted if earlier and outcome.uncounted else None
        return replace(record, uncounted=paid or earlier or outcome.uncounted)

    def _heed(self, reply: Reply) -> None:
        """Stop when the failures are no finding about the model any more."""
        if reply.error is None:
            self.failures, self.answered = 0, True
            return
        for_all = reply.status in FOR_ALL and not self.answered
        if not (reply.retryable or for_all):
            return
        self.failures += 1
        if self.failures >= (REFUSED_AFTER if for_all else DOWN_AFTER):
            raise BackendError(
                f"{self.contender}: {self.failures} questions in a row had no answer. Last reason: "
                f"{reply.error} What was answered is kept: run compare again when it is mended.",
                status=reply.status,
            )


def _allowed(outcome: Outcome, request: Request) -> Outcome:
    """Return what came of a request, with how long the answer might have been."""
    if outcome.reply.max_tokens:  # the model itself knows best
        return outcome
    return outcome._replace(reply=replace(outcome.reply, max_tokens=request.max_tokens))


def _batches(pending: Sequence[_Pending], size: int) -> Iterator[Sequence[_Pending]]:
    left = iter(pending)
    while batch := tuple(islice(left, size)):
        yield batch
