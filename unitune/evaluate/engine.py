"""Asking a model many questions, with every answer written down as it comes.

A thin asyncio engine. A model that likes batches gets one batch at a time; any other gets up to
`CONCURRENCY` requests at once. What the journal holds already is not asked again, unless it was an
error. The hash that decides this covers the model's fingerprint, the messages and every sampling
setting, so another model or prompt never finds somebody else's answers.

Not here: rate limits and retries, which belong to the backends of hosted vendors, and questions
that a vendor answers together within a day (`unitune.evaluate.batching`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from unitune.data.example import digest
from unitune.errors import BackendError
from unitune.evaluate.journal import Journal
from unitune.evaluate.results import Record
from unitune.models import BatchedChatModel, ChatModel, Reply, Request

CONCURRENCY = 16
"""Requests in flight at a model that answers one at a time.

Enough to hide half a second of latency at 30 answers a second, few enough for the smallest
vendors' limits of a new account.
"""

Phase = Literal["dev", "test", "batch"]


@dataclass(frozen=True, slots=True)
class Question:
    """A case as it is put to a model."""

    case: str
    request: Request


@dataclass(frozen=True, slots=True)
class Asked:
    """How far one contender has been asked, for progress bars.

    Args:
        contender: Its name.
        phase: dev while prompts are chosen, test for the verdict, batch while test cases are with a
            backend in batches.
        prompt: The prompt that is being asked, in words.
        done: Cases that have their answer; of a batch as far as the backend says.
        total: Cases that there are; for a batch those that are with the backend.
    """

    contender: str
    phase: Phase
    prompt: str
    done: int
    total: int


def request_hash(fingerprint: str, request: Request) -> str:
    """Return the hash of everything that determines an answer, the model first.

    Args:
        fingerprint: `ChatModel.fingerprint`.
        request: Messages, tools and sampling settings.
    """
    return digest([fingerprint, request.model_dump(mode="json")])


def record_of(contender: str, case: str, hashed: str, reply: Reply) -> Record:
    """Return a reply as it is written down.

    Args:
        contender: Who was asked.
        case: What was asked.
        hashed: `request_hash` of the request.
        reply: An answer, or why there is none.
    """
    return Record(
        contender=contender,
        case=case,
        request_hash=hashed,
        text=reply.text,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        seconds=reply.seconds,
        tool_calls=reply.tool_calls,
        given=reply.given,
        error=reply.error,
    )


async def ask(
    model: ChatModel,
    questions: Sequence[Question],
    journal: Journal,
    contender: str,
    notify: Callable[[int], None],
) -> list[Record]:
    """Put all questions to a model, except those whose answer is in the journal.

    Args:
        model: Who is asked.
        questions: With distinct cases.
        journal: Where answers are found and written.
        contender: Name under which they stand there.
        notify: Called with the number of cases done, first with those found.

    Returns:
        One record a question, in their order.
    """
    fingerprint = model.fingerprint
    hashes = {question.case: request_hash(fingerprint, question.request) for question in questions}
    records = {
        case: found
        for case, hashed in hashes.items()
        if (found := journal.answer(contender, case, hashed))
    }
    pending = [question for question in questions if question.case not in records]
    notify(len(records))

    def keep(batch: Sequence[Question], replies: Sequence[Reply]) -> None:
        new = {
            question.case: record_of(contender, question.case, hashes[question.case], reply)
            for question, reply in zip(batch, replies, strict=True)
        }
        journal.append(new.values())
        records.update(new)
        notify(len(records))

    await _ask_pending(model, pending, keep)
    return [records[question.case] for question in questions]


async def _ask_pending(
    model: ChatModel,
    pending: Sequence[Question],
    keep: Callable[[Sequence[Question], Sequence[Reply]], None],
) -> None:
    """Ask in batches; several lanes share one iterator, so each batch is asked once."""
    batched = isinstance(model, BatchedChatModel)
    lanes, size = (1, model.batch_size) if batched else (CONCURRENCY, 1)
    batches = _batches(pending, size)

    async def work() -> None:
        for batch in batches:
            keep(batch, await _replies(model, [question.request for question in batch]))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(lanes, len(pending))):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        # The first failure ended every lane, and callers know it by its own type.
        raise failures.exceptions[0] from None


async def _replies(model: ChatModel, requests: Sequence[Request]) -> list[Reply]:
    try:
        if isinstance(model, BatchedChatModel):
            return await model.replies(requests)
        return [await model.reply(request) for request in requests]
    except BackendError as error:
        return [Reply(finish_reason="error", error=str(error)) for _ in requests]


def _batches(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    left = iter(questions)
    while batch := tuple(islice(left, size)):
        yield batch
