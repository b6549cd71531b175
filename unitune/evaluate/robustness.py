"""Change test questions without changing their answers.

A change leaves out everything but the last user message. A question that a change does not affect,
such as one without a list of options, has no changed question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from unitune.data.example import Example, TextPart
from unitune.data.images import ImagePart
from unitune.scorers.measures import Change

# A line of a list of options: ``A) yes``, ``(b) no``, ``1. maybe``, ``- other``
_OPTION = re.compile(r"\s*(?:\(?(?:[A-Za-z]|\d{1,2})[.):]|[-*\u2022])\s+\S")
_SPACE = re.compile(r"(?<=\S) (?=\S)")


class ChangedCase(NamedTuple):
    """Changed question of a test case."""

    position: int  # of the case
    change: Change
    example: Example


def changed_cases(cases: Sequence[Example], changes: Sequence[Change]) -> tuple[ChangedCase, ...]:
    """Return every question that the changes affect, case by case."""
    return tuple(
        ChangedCase(position, change, changed)
        for position, case in enumerate(cases)
        for change in dict.fromkeys(changes)
        if (changed := _changed(case, change)) is not None
    )


def notes(
    cases: Sequence[Example], changed: Sequence[ChangedCase], changes: Sequence[Change]
) -> Iterator[str]:
    """Yield a sentence for each change that affects only some of the cases."""
    for change in dict.fromkeys(changes):
        count = sum(each.change == change for each in changed)
        if count < len(cases):
            yield (
                f"evaluate.robustness: {change} changes {count:,} of {len(cases):,} test "
                f"questions; stable_{change} is about these."
            )


def _changed(case: Example, change: Change) -> Example | None:
    for at in range(len(case.prompt) - 1, -1, -1):
        if (turn := case.messages[at]).role == "user":
            text = _CHANGES[change](turn.text)
            if text == turn.text:
                return None
            parts = (*(part for part in turn.content or () if isinstance(part, ImagePart)),)
            content = (*parts, TextPart(type="text", text=text)) if parts else text
            changed = replace(turn, content=content)
            messages = (*case.messages[:at], changed, *case.messages[at + 1 :])
            return case.model_copy(update={"messages": messages})
    return None


def _other_case(text: str) -> str:
    lower = text.lower()
    return lower if lower != text else text[:1].upper() + text[1:]


def _more_whitespace(text: str) -> str:
    return _SPACE.sub("  ", text) + "\n"


def _options_reversed(text: str) -> str:
    lines: list[str] = []
    for is_option, group in groupby(text.split("\n"), lambda line: bool(_OPTION.match(line))):
        listed = [*group]
        lines += reversed(listed) if is_option else listed
    return "\n".join(lines)


_CHANGES: dict[Change, Callable[[str], str]] = {
    "case": _other_case,
    "whitespace": _more_whitespace,
    "option_order": _options_reversed,
}
