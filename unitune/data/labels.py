"""Read and write labels: people's verdicts on the answers to test cases.

A labels file has one line for each case and reviewer. `unitune review` writes JSON Lines; every
format of data files can be read, such as a CSV table with the columns case, reviewer, verdict and
note.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from unitune.data.example import Message, called, digest, explain
from unitune.data.load import SHOWN_FINDINGS, read_records
from unitune.data.records import BadRow, Flat, Record, bad
from unitune.documents import Closed
from unitune.errors import DataError
from unitune.files.filesystem import no_link
from unitune.findings import Finding, error
from unitune.text import clip

# Value of each verdict; "unsure" counts for no side and is left out
VALUES: Mapping[str, float] = {"win": 1.0, "tie": 0.0, "loss": -1.0, "pass": 1.0, "fail": 0.0}
Round = Literal["first", "repeat", "second"]
ClauseVerdict = Literal["pass", "fail", "unsure"]


class HasTurns(Protocol):
    """Anything with the turns of a dialogue."""

    @property
    def messages(self) -> Sequence[Message]:
        """Answers and results of tools."""
        ...


class HasText(Protocol):
    """Anything with the text and the tool calls of an answer."""

    @property
    def text(self) -> str:
        """Text of the answer."""
        ...

    @property
    def tool_calls(self) -> Sequence[dict[str, JsonValue]] | None:
        """Tool calls of the answer, if any."""
        ...

    @property
    def trajectory(self) -> HasTurns | None:
        """All turns, if the answer ends a dialogue."""
        ...


class Label(Closed):
    """Verdict of one reviewer on one case."""

    case: str
    """Id of the test case, or its number in the test, from 1."""
    reviewer: str = ""
    verdict: Literal["win", "loss", "tie", "unsure", "pass", "fail"]
    """win, loss and tie are the candidate's; pass and fail are for one answer."""
    clauses: tuple[ClauseVerdict, ...] = ()
    """Verdict on each clause of the rubric, in its order."""
    note: str = ""
    candidate: str | None = None
    """Contender whose answer was compared."""
    baseline: str | None = None
    answers: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")] | None = None
    """Digest of the answers that were shown (`answers_digest`). The label counts only for them."""
    round: Round = "first"
    """Only first verdicts count. A repeat measures the reviewer's stability, and a second verdict
    was given with knowledge of the judge's."""
    created: datetime | None = None

    @field_validator("verdict", mode="before")
    @classmethod
    def _in_small_letters(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("case", mode="before")
    @classmethod
    def _number_as_text(cls, value: object) -> object:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("clauses", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return re.findall(r"\w+", value.lower()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_its_clauses(self) -> Self:
        if self.clauses and self.verdict != (verdict := verdict_of(self.clauses)):
            raise ValueError(f"verdict is {self.verdict!r}, but its clauses make it {verdict!r}")
        if self._is_of_one and self.candidate is None:
            raise ValueError("it is about one answer, so name the contender as 'candidate'")
        return self

    @property
    def _is_of_one(self) -> bool:
        return bool(self.clauses) or self.verdict in ("pass", "fail")

    def is_about(self, *contenders: str) -> bool:
        """Return whether it is about one contender's answer, or about that of two contenders."""
        if self._is_of_one:
            return contenders == (self.candidate,)
        return contenders == (self.candidate or contenders[0], self.baseline or contenders[-1])

    @property
    def value(self) -> float | None:
        """Value of the verdict: 1, 0 or -1; None if the reviewer was unsure."""
        return VALUES.get(self.verdict)

    @property
    def key(self) -> tuple[str | None, ...]:
        """Parts that make it unique in a file."""
        about = (self.candidate, self.baseline, self.answers)
        return (self.case, self.reviewer, *about, self.round)


def verdict_of(clauses: Sequence[ClauseVerdict]) -> ClauseVerdict:
    """Return the verdict on an answer: it fails if a clause fails, and passes if all pass."""
    return "fail" if "fail" in clauses else "unsure" if "unsure" in clauses else "pass"


def answers_digest(*answers: HasText) -> str:
    """Return a digest of the answers that a label is about: the candidate's, then the baseline's.

    For a rubric, it is that of the one answer.
    """
    paths = [each.trajectory.messages if each.trajectory else () for each in answers]
    turns = [
        [[turn.text, called(turn.tool_calls)] for turn in (answer, *path)]
        for answer, path in zip(answers, paths, strict=True)
    ]
    return digest([[part for turn in some for part in turn] for some in turns])[:12]


def read_labels(path: str | os.PathLike[str]) -> tuple[Label, ...]:
    """Return the labels of a file that count: first verdicts, one of each case and reviewer.

    Raises:
        DataError: The file cannot be read, or a line is not a label, with file, line and value.
    """
    return tuple(label for label in read_all_labels(path) if label.round == "first")


def read_all_labels(path: str | os.PathLike[str]) -> list[Label]:
    """Return all labels of a file, with repeats and second verdicts. Raises DataError.

    Of labels with a time, the last one of a reviewer counts. Without a time, it is a mistake.
    """
    labels: dict[tuple[str | None, ...], Label] = {}
    lines: dict[tuple[str | None, ...], int] = {}
    problems: list[Finding] = []
    for item in read_records(path):
        if isinstance(item, Finding):
            problems += [item] * (item.severity == "error")
            continue
        try:
            label = _label(item)
        except BadRow as bad_row:
            problems += (each.at(file=str(path), line=item.line) for each in bad_row.findings)
            continue
        before = labels.get(label.key)
        if before and not (before.created and label.created):
            what = f"{label.reviewer or 'the reviewer'} has labelled case {clip(label.case)} before"
            problem = error("repeated-label", f"{what}, on line {lines[label.key]}.", "Keep one.")
            problems.append(problem.at(file=str(path), line=item.line))
        labels[label.key], lines[label.key] = label, item.line
    if problems:
        more = f"\n  … and {len(problems) - SHOWN_FINDINGS:,} more"
        shown = "".join(f"\n  {problem}" for problem in problems[:SHOWN_FINDINGS])
        raise DataError(
            f"{path}: the labels cannot be used.{shown}{more * (len(problems) > SHOWN_FINDINGS)}",
            tuple(problems),
        )
    return list(labels.values())


def _label(record: Record) -> Label:
    """Return the label of a row; raises `BadRow`. Other columns of a table are left out."""
    given: Flat = {key: value for key, value in record.value.items() if value is not None}
    if record.from_table:
        given = {key.strip().lower(): value for key, value in given.items() if value != ""}
        given = {key: value for key, value in given.items() if key in Label.model_fields}
    if unknown := [key for key in given if key not in Label.model_fields]:
        fix = f"Allowed keys: {', '.join(Label.model_fields)}."
        raise bad("unknown-key", f"a label has no key {clip(unknown[0])}.", fix)
    try:
        return Label.model_validate(given)
    except ValidationError as failure:
        raise BadRow(*explain(failure, given)) from failure


def append_label(path: Path, label: Label) -> None:
    """Append a label, and wait until it is on the disk.

    The caller holds the file's lock (`unitune.workspace.own_files`). Raises UserError for a link.
    """
    line = f"{label.model_dump_json(exclude_defaults=True)}\n".encode()
    with open(path, "ab", buffering=0, opener=no_link) as file:
        file.write(line)
        os.fsync(file.fileno())


def mend_labels(path: Path) -> None:
    """Remove a last line that a killed process left unfinished; end a finished one.

    The caller holds the file's lock. Raises UserError for a link.
    """
    with open(path, "a+b", buffering=0, opener=no_link) as file:
        file.seek(0)
        content = file.read()
        torn = content.rfind(b"\n") + 1
        try:
            Label.model_validate_json(content[torn:])
        except ValidationError:
            file.truncate(torn)
        else:
            file.write(b"\n")


def labels_of_cases(
    labels: Iterable[Label], answers: Mapping[str, str], file: str
) -> dict[str, list[Label]]:
    """Return the labels of each test case.

    A label with a digest counts only if the case still has these answers. Without one, its case
    must exist: as an id, or as its number if no label of the file has an id.

    Args:
        labels: Labels of `read_labels`.
        answers: Digest of the current answers by case id, in the order of the test rows.
        file: Path of the file, for messages.

    Raises:
        DataError: A label without a digest is about a case that the test lacks.
    """
    labels, ids = list(labels), list(answers)
    plain = {label.case for label in labels if label.answers is None}
    names = {case: case for case in ids}
    if plain.isdisjoint(ids):  # numbers of rows
        names |= {str(number): case for number, case in enumerate(ids, start=1)}
    if unknown := sorted(plain - names.keys()):
        raise DataError(
            f"{file}: {len(unknown):,} of its cases are not in the test: "
            f"{', '.join(map(clip, unknown[:SHOWN_FINDINGS]))}. Use the ids of test cases, or "
            f"their numbers from 1 to {len(ids):,}."
        )
    found: dict[str, list[Label]] = {}
    for label in labels:
        case = names[label.case] if label.answers is None else label.case
        if label.answers in (None, answers.get(case)):
            found.setdefault(case, []).append(label)
    return found


def mean_verdict(labels: Iterable[Label]) -> float | None:
    """Return the mean value of the reviewers' verdicts on a case; None if all were unsure."""
    values = [label.value for label in labels if label.value is not None]
    return fmean(values) if values else None
