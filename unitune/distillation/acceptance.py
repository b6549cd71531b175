"""Decide by scorers and by the form of the training rows which answers become rows."""

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

# Finish reasons of complete answers; tool_use is Anthropic's word
WHOLE = ("stop", "tool_calls", "tool_use")


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """Common form of the answers in all training rows."""

    labels: frozenset[str] = frozenset()  # all labels; empty if the answers are not labels
    # Keys of the JSON objects; None if the answers are not such objects
    keys: frozenset[str] | None = None
    is_json: bool = False

    @classmethod
    def of(cls, answers: Sequence[str]) -> AnswerForm:
        """Find the common form of answers."""
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
        """Return why an answer does not have this form, or None."""
        if self.labels:
            return None if answer.strip() in self.labels else "not a label of the training rows"
        if not self.is_json:
            return None
        value = _value(answer)
        if value is None:
            return "not JSON, unlike the answers of all training rows"
        if self.keys is not None and value.keys != self.keys:
            return "JSON without the keys that all training rows have"
        return None


class _Value(NamedTuple):
    keys: frozenset[str] | None


def _value(answer: str) -> _Value | None:
    try:
        value, _ = strict_json(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict | list):  # a bare number or word is not a form
        return None
    return _Value(frozenset(value) if isinstance(value, dict) else None)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Checks of answers without an expected one."""

    scorers: tuple[Scorer, ...]
    form: AnswerForm

    def refusal(self, question: Example, record: Record) -> str | None:
        """Return why an answer is not accepted, or None."""
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
        return "no answer was received"
    if record.cut:
        return "truncated at the maximum answer length"
    if record.finish_reason not in WHOLE:
        return f"ended by {record.finish_reason}"
    if not record.text.strip() and not record.tool_calls:
        return "empty"
    return None
