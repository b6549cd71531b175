"""Ask all questions of dialogues turn by turn, with the results of called tools in between.

Each turn is a request of the engine, after that turn of all other dialogues. Results of tools are
recorded with the turn that called them, so a resumed comparison sends the same conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from unitune.data.example import Example, Message
from unitune.data.tools import ToolResult, Tools, results_as_turns, sendable, with_call_ids
from unitune.evaluate.inference.engine import InferenceOptions, Question, collect_answers
from unitune.evaluate.inference.journal import Journal
from unitune.evaluate.records import Record, ToolResults, Trajectory, Uncounted, total
from unitune.job.dialogue import Dialogue
from unitune.models import ChatModel


@dataclass(frozen=True, slots=True)
class Dialogues:
    """Tools of dialogues, and the largest number of their turns."""

    tools: Tools
    max_turns: int

    @classmethod
    def of(cls, dialogue: Dialogue | None, folder: Path) -> Self | None:
        """Return the dialogues of a job, or None. Raises JobError like `Tools.of`."""
        return dialogue and cls(Tools.of(dialogue, folder), dialogue.max_turns)


@dataclass(slots=True)
class _Case:
    """Progress of one dialogue: its next question, its turns so far, and their records."""

    row: Example
    question: Question
    messages: tuple[Message, ...] = ()
    records: tuple[Record, ...] = ()
    tool_errors: int = 0
    is_open: bool = True

    def add(self, record: Record) -> None:
        """Add an answer; the dialogue stays open if it calls tools."""
        calls = with_call_ids(record.tool_calls or (), len(self.records))
        answer = Message(
            role="assistant",
            content=record.text or None,
            tool_calls=calls or None,
            reasoning_content=record.reasoning or None,
        )
        self.records += (record,)
        self.is_open = record.error is None and not record.cut and bool(calls)
        if record.error is None:
            self.messages += (answer,)

    def add_results(self, results: Sequence[ToolResult]) -> None:
        """Add the results of the last answer's calls, and ask for the next answer."""
        answer = self.messages[-1]
        turns = results_as_turns(answer.tool_calls or (), results)
        self.messages += tuple(turns)
        self.tool_errors += sum(result.is_error for result in results)
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
) -> list[Record]:
    """Return one record per question about `rows`; raises as `collect_answers`."""
    by_id = {row.case_id: row for row in rows}
    all_ = [_Case(by_id[question.case], question) for question in questions]
    before = 0
    for turn in range(dialogues.max_turns):
        open_ = [each for each in all_ if each.is_open]
        if not open_:
            break

        def show(done: int, start: int = before, needed: int = before + len(open_)) -> None:
            notify(start + done, needed)

        asked = [each.question for each in open_]
        records = await collect_answers(model, asked, journal, contender, show, options=options)
        for each, record in zip(open_, records, strict=True):
            each.add(record)
            if each.is_open and turn + 1 < dialogues.max_turns:
                each.add_results(_results(dialogues, journal, each, replay=options.replay))
        before += len(open_)
    return [each.whole for each in all_]


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
