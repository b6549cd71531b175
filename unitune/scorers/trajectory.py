"""Score the trajectory of a dialogue: its tool calls and its last answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import Field, JsonValue, model_validator

from unitune.scorers.functions import FunctionScorer, HttpGrader, RecordedScore
from unitune.scorers.graders import OpenAIGrader
from unitune.scorers.interface import Attempt, Case, Entry, Score, Scorer, Setting, Turn
from unitune.scorers.interface import ToolCalls as Calls
from unitune.scorers.json_text import ToolCalls, read_call, shown_calls, unreadable_call
from unitune.scorers.judge import Judge
from unitune.scorers.row_scorers import RowScorers

if TYPE_CHECKING:
    ScorerSpec = Entry  # `unitune.scorers` defines it once all types exist

T = TypeVar("T", bound=Turn)


def turns_after_question(messages: Sequence[T]) -> Sequence[T]:
    """Return the turns after the last user message: a row's expected trajectory."""
    users = [at for at, turn in enumerate(messages) if turn.role == "user"]
    return messages[users[-1] + 1 :] if users else messages[-1:]


class Trajectory(Scorer):
    """The dialogue makes the expected tool calls and ends with a right answer.

    Why: a right answer may rest on the right calls or on a guess, and calls have effects. The
    expected calls are those of the row after its last user message; arguments are compared as in
    `tool_calls`. It leaves out results, how calls are spread over turns, and other ways to the same
    answer. A dialogue that reaches `max_turns` has no answer.

    Source: the match types of Google's Agent Development Kit (IN_ORDER, ANY_ORDER) and of
    LangChain's agentevals (superset; argument modes exact, superset, ignore).
    """

    needs_expected = False
    type: Literal["trajectory"] = "trajectory"
    name: str = "trajectory"
    match: Literal["in_order", "any_order", "superset"] = "in_order"
    """in_order: exactly the expected calls, in their order. any_order: exactly these, in any order.
    superset: these and perhaps others, in any order."""
    arguments: Literal["exact", "subset", "ignore"] = "exact"
    """exact: equal arguments. subset: the expected arguments and perhaps others. ignore: only the
    names of tools."""
    answer: ScorerSpec | None = None
    """Scorer of the last answer's text, such as contains; by default any answer is right."""
    answer_at_least: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Lowest score of a right answer."""

    @model_validator(mode="after")
    def _answer_is_a_text(self) -> Self:
        unfit = FunctionScorer, RecordedScore, OpenAIGrader, Judge, HttpGrader, RowScorers
        inner = self._of_answer
        if self.answer and (inner is None or isinstance(inner, (*unfit, ToolCalls, Trajectory))):
            why = f"answer cannot be {self.answer.type_name()}; use a scorer of texts, such as"
            raise ValueError(f"{why} exact, and list other scorers under evaluate.scorers")
        return self

    @property
    def _of_answer(self) -> Scorer | None:
        return self.answer if isinstance(self.answer, Scorer) else None

    def ready(self, setting: Setting, fingerprint: str) -> Self:
        made, inner = super().ready(setting, fingerprint), self._of_answer
        return made.model_copy(update={"answer": inner.ready(setting, "")}) if inner else made

    def material(self, setting: Setting) -> JsonValue:
        inner = self._of_answer
        return [inner.version, inner.material(setting)] if inner else None

    def refusal(self, case: Case) -> str | None:
        calls = _calls(turns_after_question(case.messages))
        if self.arguments != "ignore" and (why := unreadable_call(calls)):
            return why
        if (inner := self._of_answer) is None:
            return None
        missing = inner.needs_expected and case.answer is None
        return "the row has no expected answer" if missing else inner.refusal(case)

    def asserted(self, case: Case) -> str:
        return f"calls ({self.match}): {shown_calls(_calls(turns_after_question(case.messages)))}"

    def judge(self, attempt: Attempt) -> Score:
        made = _calls(attempt.trajectory)
        if not self._called(made, _calls(turns_after_question(attempt.case.messages))):
            return Score(0.0, f"called {shown_calls(made)}")
        if (inner := self._of_answer) is None:
            return Score(1.0)
        if attempt.trajectory and attempt.trajectory[-1].tool_calls:
            return Score(0.0, "the dialogue ended without an answer")
        score = inner.score(attempt)
        right = score.value >= self.answer_at_least
        return Score(float(right), "" if right else score.reason, failed=score.failed)

    def _called(self, made: Calls, wanted: Calls) -> bool:
        if self.match != "superset" and len(made) != len(wanted):
            return False
        fitting = [[self._fits(each, call) for call in made] for each in wanted]
        if self.match == "in_order":
            return all(row[at] for at, row in enumerate(fitting))
        return _all_matched(fitting)

    def _fits(self, wanted: Mapping[str, JsonValue], made: Mapping[str, JsonValue]) -> bool:
        compared = self.arguments != "ignore"
        try:
            expected, given = (read_call(each, arguments=compared) for each in (wanted, made))
        except ValueError:
            return False
        if self.arguments != "subset" or not isinstance(expected.arguments, dict):
            return expected == given
        if expected.name != given.name or not isinstance(given.arguments, dict):
            return False
        kept = {key: given.arguments[key] for key in expected.arguments if key in given.arguments}
        return kept == expected.arguments


def _calls(turns: Sequence[Turn]) -> Calls:
    return tuple(call for turn in turns for call in turn.tool_calls or ())


def _all_matched(fitting: Sequence[Sequence[bool]]) -> bool:
    """Return whether each row can get a fitting column of its own (Kuhn's algorithm)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fits in enumerate(fitting[row]):
            if fits and column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fitting)))
