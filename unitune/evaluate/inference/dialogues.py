"""Ask all questions of dialogues turn by turn, with the results of called tools in between.

Each turn is a request of the engine, after that turn of all other dialogues. Results of tools are
recorded with the turn that called them, so a resumed comparison sends the same conversations.
A simulated user replies to answers without a call; its messages are recorded like answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

from unitune.backends.user_requests import fault_of, user_request
from unitune.data.example import Example, Message
from unitune.data.tools import ToolResult, Tools, opening, results_as_turns, sendable, with_call_ids
from unitune.evaluate.documents.records import (
    Record,
    SimulatedUserResult,
    ToolResults,
    Trajectory,
    Uncounted,
    total,
)
from unitune.evaluate.inference.budget import record_usd
from unitune.evaluate.inference.engine import InferenceOptions, Question, collect_answers
from unitune.evaluate.inference.journal import Journal
from unitune.job.dialogue import GIVEN_UP, REACHED, Dialogue, SimulatedUser
from unitune.job.job import TokenPrice
from unitune.models import ChatModel


@dataclass(frozen=True, slots=True)
class Dialogues:
    """Tools of dialogues, the largest number of their turns, and who replies to answers."""

    tools: Tools
    max_turns: int
    user: SimulatedUser | None = None

    @classmethod
    def of(cls, dialogue: Dialogue | None, folder: Path) -> Self | None:
        """Return the dialogues of a job, or None. Raises JobError like `Tools.of`."""
        return dialogue and cls(Tools.of(dialogue, folder), dialogue.max_turns, dialogue.user)


class UserModel(NamedTuple):
    """Simulated user with its opened model, and how its requests are sent."""

    spec: SimulatedUser
    model: ChatModel
    options: InferenceOptions


@dataclass(slots=True)
class _Case:
    """Progress of one dialogue: its next question, its turns so far, and their records."""

    row: Example
    question: Question
    user_turns: int  # messages that the simulated user may still write
    messages: tuple[Message, ...] = ()
    records: tuple[Record, ...] = ()
    tool_errors: int = 0
    is_open: bool = True

    @property
    def calls(self) -> bool:
        """True if the last turn calls tools."""
        return bool(self.messages[-1].tool_calls)

    def add(self, record: Record) -> None:
        """Add an answer; the dialogue stays open if it calls tools or the user may reply."""
        calls = with_call_ids(record.tool_calls or (), len(self.records))
        answer = Message(
            role="assistant",
            content=record.text or None,
            tool_calls=calls or None,
            reasoning_content=record.reasoning or None,
        )
        self.records += (record,)
        continues = bool(calls) or (self.user_turns > 0 and bool(record.text.strip()))
        self.is_open = record.error is None and not record.cut and continues
        if record.error is None:
            self.messages += (answer,)

    def add_results(self, results: Sequence[ToolResult]) -> None:
        """Add the results of the last answer's calls, and ask for the next answer."""
        answer = self.messages[-1]
        self.tool_errors += sum(result.is_error for result in results)
        self._continue(answer, results_as_turns(answer.tool_calls or (), results))

    def to_user(self, user: SimulatedUser) -> Question:
        """Return the request for the user's next message."""
        case, repeat = self.question.case, self.question.repeat
        request = user_request(user, opening(self.row), self.messages, seed=repeat)
        return Question(case, request, repeat)

    def add_reply(self, user: SimulatedUser, reply: Record) -> None:
        """Add a message of the simulated user, which may end the dialogue or be an error."""
        self.user_turns -= 1
        why = fault_of(user, reply.text, reply.finish_reason, reply.error)
        ends = any(word in reply.text for word in (REACHED, GIVEN_UP))
        self.is_open = why is None and not ends
        if why is None:
            self._continue(self.messages[-1], [Message(role="user", content=reply.text)])
        else:
            self.records = (*self.records[:-1], replace(self.records[-1], error=why))

    def _continue(self, answer: Message, turns: Sequence[Message]) -> None:
        self.messages += tuple(turns)
        request = self.question.request
        messages = (*request.messages, sendable(answer), *turns)
        request = request.model_copy(update={"messages": messages})
        self.question = replace(self.question, request=request)

    @property
    def whole(self) -> Record:
        """The last record with the trajectory, and the tokens and time of all turns."""
        records = self.records
        return replace(
            records[-1],
            prompt_tokens=total([each.prompt_tokens for each in records]),
            completion_tokens=total([each.completion_tokens for each in records]),
            reasoning_tokens=total([each.reasoning_tokens for each in records]),
            seconds=total([each.seconds for each in records]),
            uncounted=Uncounted.total(*(each.uncounted for each in records)),
            cached=True if all(each.cached for each in records) else None,
            tool_results=None,
            trajectory=Trajectory(messages=self.messages, tool_errors=self.tool_errors),
        )


async def collect_dialogues(  # noqa: PLR0913 - as `collect_answers`
    model: ChatModel,
    questions: Sequence[Question],
    journal: Journal,
    contender: str,
    notify: Callable[[int, int], None],  # of the answers so far and of those known to be needed
    *,
    options: InferenceOptions,
    dialogues: Dialogues,
    rows: Iterable[Example],
    user: UserModel | None = None,
) -> list[Record]:
    """Return one record per question about `rows`; raises as `collect_answers`."""
    by_id, user_turns = {row.case_id: row for row in rows}, user.spec.max_turns if user else 0
    all_ = [_Case(by_id[question.case], question, user_turns) for question in questions]
    before = 0

    def show(done: int, more: int) -> None:
        notify(before + done, before + more)

    async def asked(of: UserModel | None, questions: list[Question]) -> list[Record]:
        nonlocal before
        who, how, name = (of.model, of.options, of.spec.name) if of else (model, options, contender)
        step = partial(show, more=len(questions))
        records = await collect_answers(who, questions, journal, name, step, options=how)
        before += len(questions)
        return records

    for turn in range(dialogues.max_turns):
        open_ = [each for each in all_ if each.is_open]
        if not open_:
            break
        records = await asked(None, [each.question for each in open_])
        for each, record in zip(open_, records, strict=True):
            each.add(record)
        open_ = [each for each in open_ if each.is_open and turn + 1 < dialogues.max_turns]
        waiting = [each for each in open_ if not each.calls]
        for each in open_:
            if each.calls:
                each.add_results(_results(dialogues, journal, each, replay=options.replay))
        if user and waiting:
            replies = await asked(user, [each.to_user(user.spec) for each in waiting])
            for each, reply in zip(waiting, replies, strict=True):
                each.add_reply(user.spec, reply)
    return [each.whole for each in all_]


def user_result(
    user: SimulatedUser, journals: Iterable[Journal], origin: str, price: TokenPrice | None
) -> SimulatedUserResult:
    """Return the figures of a simulated user from the journals of a comparison."""
    asked = [
        record
        for record in chain(*journals)
        if (record.contender, record.origin) == (user.name, origin)
    ]
    faults = [fault_of(user, each.text, each.finish_reason, each.error) for each in asked]
    usd = price and sum((record_usd(price, each) for each in asked), Decimal(0))
    return SimulatedUserResult(
        model=asked[-1].model if asked else origin,
        settings=f"temperature {user.temperature:g}, the number of the repeat as seed, at most "
        f"{user.max_tokens:,} tokens a message",
        requests=len(asked),
        failed=len(asked) - faults.count(None),
        usd=usd,
    )


def _results(
    dialogues: Dialogues, journal: Journal, dialogue: _Case, *, replay: bool
) -> tuple[ToolResult, ...]:
    """Return the results of the last answer's calls: recorded with it, or new ones."""
    record, fingerprint = dialogue.records[-1], dialogues.tools.fingerprint
    known = record.tool_results
    if known and (replay or known.tools == fingerprint):
        return known.results
    calls = dialogue.messages[-1].tool_calls or ()
    results = tuple(dialogues.tools.result(dialogue.row, call) for call in calls)
    if not replay:
        kept = ToolResults(tools=fingerprint, results=results)
        journal.append([replace(record, tool_results=kept)])
    return results
