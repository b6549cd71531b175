"""Which answers of a teacher become training rows: whole ones, in the form of the rows there are.

An answer has no expected one beside it, so what can be held against it is what the job's scorers
say without one, and the form that all training rows have in common: one of their labels, or JSON
with their keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unitune.data.columns import ROWS_A_LABEL, may_be_labels
from unitune.data.example import Example
from unitune.data.records import strict_json
from unitune.evaluate.records import Record
from unitune.evaluate.scoring import attempt_of
from unitune.scorers.interface import Scorer

# How an answer finishes that was neither cut nor refused; tool_use is Anthropic's word
WHOLE = ("stop", "tool_calls", "tool_use")


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What the answers of all training rows have in common."""

    labels: frozenset[str] = frozenset()  # each is one of these few; empty: they are no labels
    # Each is a JSON object with these keys; None: they are no such objects
    keys: frozenset[str] | None = None
    is_json: bool = False

    @classmethod
    def of(cls, answers: Sequence[str]) -> AnswerForm:
        """Find what answers have in common."""
        if not answers:
            return cls()
        counts = Counter(answer.strip() for answer in answers)
        repeats = len(counts) <= len(answers) // ROWS_A_LABEL
        if repeats and may_be_labels(answers, len(counts)):
            return cls(labels=frozenset(counts))
        values = [_value(answer) for answer in answers]
        if None in values:
            return cls()
        keys = {value.keys for value in values if value}
        return cls(keys=keys.pop() if len(keys) == 1 else None, is_json=True)

    def refusal(self, answer: str) -> str | None:
        """Return why an answer is not of this form; None: it is."""
        if self.labels:
            return None if answer.strip() in self.labels else "no label of the training rows"
        if not self.is_json:
            return None
        value = _value(answer)
        if value is None:
            return "no JSON, as the answers of all training rows are"
        if self.keys is not None and value.keys != self.keys:
            return "JSON without the keys that all training rows have"
        return None


class _Value(NamedTuple):
    """An object or list in JSON; `keys` is None for a list."""

    keys: frozenset[str] | None


def _value(answer: str) -> _Value | None:
    try:
        value, _ = strict_json(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict | list):  # a bare number or word is no form of its own
        return None
    return _Value(frozenset(value) if isinstance(value, dict) else None)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Holds answers against what is known without an expected one."""

    scorers: tuple[Scorer, ...]
    form: AnswerForm

    def refusal(self, question: Example, record: Record) -> str | None:
        """Return why an answer is no training row; None: it becomes one."""
        if incomplete := _incomplete(record):
            return incomplete
        if not record.tool_calls and (of_form := self.form.refusal(record.text)):
            return of_form
        attempt = attempt_of(question, record)
        for scorer in self.scorers:
            if not scorer.needs_expected and scorer.score(attempt).value < 1:
                return f"wrong by the scorer {scorer.name}"
        return None


def _incomplete(record: Record) -> str | None:
    if record.error is not None:
        return "no answer came"
    if record.cut:
        return "cut off at the longest answer that is allowed"
    if record.finish_reason not in WHOLE:
        return f"ended by {record.finish_reason}"
    if not record.text.strip() and not record.tool_calls:
        return "empty"
    return None
