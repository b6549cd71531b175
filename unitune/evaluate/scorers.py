"""What counts as a right answer: one plain function for each scorer of the job.

`score` finds the function by the specification's type. A scorer sees an answer and the expected
one, never the model or the prompt, and says right or wrong. What a scorer leaves out stands in
its docstring. A case without an answer is no business of a scorer: it scores 0 and is counted.

Not here: graded scores, judges, and scorers that look at more than one case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Never, TypeAlias

from unitune.data import findings
from unitune.data.dataset import Dataset
from unitune.data.findings import Finding, clip
from unitune.errors import DataError
from unitune.job import Contains, Exact, JsonEqual, JsonValid, Regex, ScorerSpec


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number by its value: 1, 1.0 and 10e-1 are equal, and none of them equals true."""

    value: Decimal


Json: TypeAlias = "bool | Number | str | list[Json] | dict[str, Json] | None"


def score(spec: ScorerSpec, answer: str, expected: str) -> float:
    """Score one answer.

    Args:
        spec: Which scorer, with its options.
        answer: What the model said.
        expected: What it should have said.

    Returns:
        1.0 when the answer is right, else 0.0.

    Raises:
        DataError: The expected answer is of no use to this scorer.
    """
    match spec:
        case Exact():
            right = exact(answer, expected, ignore_case=spec.ignore_case)
        case Contains():
            right = contains(answer, expected, ignore_case=spec.ignore_case)
        case Regex():
            right = matches(answer, spec.pattern)
        case JsonValid():
            right = json_valid(answer)
        case JsonEqual():
            right = json_equal(answer, expected)
    return float(right)


def exact(answer: str, expected: str, *, ignore_case: bool = False) -> bool:
    """Whether the answer is the expected one, outer whitespace aside.

    Why: for labels and short fixed texts nothing else is as plain. It leaves out spacing inside
    the answer, punctuation and Unicode forms: ``é`` as one or two code points are two answers.
    """
    return _plain(answer, ignore_case) == _plain(expected, ignore_case)


def contains(answer: str, expected: str, *, ignore_case: bool = False) -> bool:
    """Whether the expected text stands somewhere in the answer.

    Why: to credit a model that wraps the right label in a sentence. It leaves out what else the
    answer says: naming every label is right too, and so is ``not refund`` for ``refund``. An empty
    expected text is found nowhere, so that it never counts as right.
    """
    wanted = _plain(expected, ignore_case)
    return wanted != "" and wanted in _plain(answer, ignore_case)


def matches(answer: str, pattern: str) -> bool:
    """Whether the pattern is found anywhere in the answer.

    Why: for a form, such as a ticket number, rather than one text. It leaves out the expected
    answer altogether. Anchors and flags are the pattern's own: ``(?i)^yes``.
    """
    return re.search(pattern, answer) is not None


def json_valid(answer: str) -> bool:
    """Whether the whole answer is one JSON value.

    Why: what a program reads must parse before it can be right. Strict (RFC 8259): no NaN, no key
    twice in one object, no text or code fence around. It leaves out whether the content is right.
    """
    try:
        read_json(answer)
    except ValueError:
        return False
    return True


def json_equal(answer: str, expected: str) -> bool:
    """Whether the answer is JSON equal to the expected JSON.

    Why: spacing and the order of keys carry no meaning. Numbers are compared by value, texts
    exactly, lists in order. It leaves out partial credit: one wrong field makes a wrong answer.

    Raises:
        DataError: The expected answer is not JSON.
    """
    try:
        wanted = read_json(expected)
    except ValueError as error:
        raise DataError(_not_json(expected, error)) from error
    try:
        return read_json(answer) == wanted
    except ValueError:
        return False


def check_expected(specs: Sequence[ScorerSpec], cases: Dataset) -> None:
    """Refuse cases that a scorer could never find right, before any model is asked.

    Args:
        specs: The job's scorers.
        cases: The test or dev rows.

    Raises:
        DataError: json_equal is among the scorers, and an expected answer is not JSON.
    """
    if not any(isinstance(spec, JsonEqual) for spec in specs):
        return
    broken = [
        finding
        for row in cases.rows
        if (finding := _json_finding(row.example.answer or "", cases.name, row.line))
    ]
    if broken:
        raise DataError(
            f"{cases.name}: {len(broken)} expected answers are not JSON, "
            f"and the scorer json_equal compares JSON. First: {broken[0]}",
            tuple(broken),
        )


def read_json(text: str) -> Json:
    """Read one strict JSON value.

    Args:
        text: The whole of it; JSON's own whitespace may stand around.

    Returns:
        The value, with numbers as `Number`.

    Raises:
        ValueError: It is not JSON, or a key stands twice in one object.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_number,
            parse_int=_number,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _plain(text: str, ignore_case: bool) -> str:  # noqa: FBT001 - private, two callers
    return text.strip().casefold() if ignore_case else text.strip()


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> Number:
    try:
        return Number(Decimal(text))
    except InvalidOperation:
        raise ValueError(f"the number {text[:40]} is out of range") from None


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"a key stands twice: {next(key for key in keys if keys.count(key) > 1)}")
    return value


def _json_finding(expected: str, file: str, line: int) -> Finding | None:
    try:
        read_json(expected)
    except ValueError as error:
        return findings.error(
            "expected-not-json",
            _not_json(expected, error),
            "Mend the row, or use another scorer in evaluate.scorers.",
        ).at(file=file, line=line)
    return None


def _not_json(expected: str, error: ValueError) -> str:
    return f"the expected answer {clip(expected)} is not JSON: {error}."
