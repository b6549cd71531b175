"""Run the quality checks on a file or, for a large file, on its beginning."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.data.load import Files, Reading
from unitune.data.privacy.redaction import masked
from unitune.data.privacy.screen import Screen
from unitune.data.quality.answers import counted, formats, is_labels, spellings, uneven
from unitune.data.quality.similar_rows import label_errors, repeated
from unitune.data.questions import question
from unitune.data.report import (
    MOST_ISSUES,
    Cause,
    Quality,
    QualityRow,
    RowIssue,
    RowIssues,
    ShownIssue,
    ShownRow,
    clipped,
)
from unitune.findings import Finding
from unitune.job.job import Job

# Most rows and characters examined: some 10 seconds and 300 MB in the worst case
MOST_ROWS, MOST_CHARACTERS = 50_000, 1 << 24
# A fiftieth of the rows with a fifth of the characters has ten times the usual length
BILL_SHARE, ROWS_SHARE = 0.2, 0.02
# Minimum rows for a check of the longest ones
FEWEST_LONG_ROWS = 50


def quality_of(subject: Job | str, cases: Dataset | None = None) -> Quality | None:
    """Return suspicious rows in a job's or a file's training rows; None if there are no rows."""
    reading = Reading()
    if isinstance(subject, str):
        files = Files([subject])
        quality = look_at(files.read(None, "case", reading), files)
    elif subject.data.files("train"):
        files = Files.of(subject, "train")
        rows = files.read(subject.data, subject.rows_for, reading)
        if subject.data.personal_data == "redact":
            rows = Screen(subject.data).rows(rows, files)
        quality = look_at(rows, files, {row.line for row in cases.rows} if cases else ())
    else:
        return None
    return quality if quality.rows else None


def look_at(items: Iterable[Row | Finding], files: Files, cases: Collection[int] = ()) -> Quality:
    """Return suspicious training rows; `cases` are lines reserved for the test."""
    rows = (_quality_row(item) for item in items if isinstance(item, Row))
    seen = list(_beginning(rows))
    labels = is_labels(seen)
    causes = [cause for cause in _causes(seen, labels=labels) if cause.rows]
    return Quality(
        rows=len(seen),
        cases=sum(row.line in cases for row in seen),
        is_whole=next(rows, None) is None,
        causes=tuple(_shown(cause, seen, files, cases) for cause in causes),
        answers={masked(label): rows for label, rows in counted(seen).items()} if labels else {},
    )


def _quality_row(row: Row) -> QualityRow:
    example = row.example
    turns = (*example.messages, *(example.non_preferred_output or ()))
    asked = [turn.text for turn in example.prompt if turn.role == "user"]
    return QualityRow(
        row.line,
        question(example),
        " ".join(asked) or " ".join(turn.text for turn in example.prompt),
        _answer(example),
        sum(len(turn.text) for turn in turns),
        bool(example.images),
    )


def _answer(example: Example) -> str | None:
    if example.non_preferred_output is not None or example.kto_tag is not None:
        return None
    calls = [call.get("function") for call in example.messages[-1].tool_calls or ()]
    return example.answer or (json.dumps(calls, ensure_ascii=False) if calls else "")


def _beginning(rows: Iterator[QualityRow]) -> Iterator[QualityRow]:
    characters = 0
    for count, row in enumerate(rows, 1):
        yield row
        characters += row.characters
        if count == MOST_ROWS or characters >= MOST_CHARACTERS:
            return


def _causes(rows: list[QualityRow], *, labels: bool) -> Iterator[RowIssues]:
    weighed = any(row.answer is None for row in rows)  # repeated questions are normal there
    near, contradictions = (None, None) if weighed else repeated(rows, labels=labels)
    if contradictions:
        yield contradictions
    if labels:
        if not any(row.has_images for row in rows):  # words alone do not decide their labels
            yield label_errors(rows)
        yield spellings(rows)
    yield from formats(rows)
    if near:
        yield near
    if labels:
        yield uneven(rows)
    yield _longest(rows)


def _longest(rows: Sequence[QualityRow]) -> RowIssues:
    total = sum(row.characters for row in rows)
    by_length = sorted(range(len(rows)), key=lambda at: -rows[at].characters)
    reached, taken = 0, 0
    while len(rows) >= FEWEST_LONG_ROWS and reached < BILL_SHARE * total:
        reached += rows[by_length[taken]].characters
        taken += 1
    few = taken if taken <= ROWS_SHARE * len(rows) else 0
    return RowIssues(
        "long-rows",
        f"Few rows with {100 * reached / total:.0f} % of all characters" if few else "Long rows",
        "Shorten or remove them if they are not better than others, because training is billed by "
        "the token.",
        [
            RowIssue(
                at,
                f"{rows[at].characters:,} characters, {100 * rows[at].characters / total:.2g} % "
                "of all.",
            )
            for at in by_length[:few]
        ],
    )


def _shown(cause: RowIssues, rows: list[QualityRow], files: Files, cases: Collection[int]) -> Cause:
    def shown(at: int) -> ShownRow:
        file, line = files.place(rows[at].line)
        return ShownRow(
            file=file,
            line=line,
            question=clipped(rows[at].text),
            answer=clipped(rows[at].answer or ""),
        )

    return Cause(
        code=cause.code,
        title=cause.title,
        fix=cause.fix,
        likely=cause.likely,
        total=len(cause.rows),
        cases=sum(rows[each.at].line in cases for each in cause.rows),
        issues=tuple(
            ShownIssue(
                row=shown(each.at), why=masked(each.why), related=tuple(map(shown, each.related))
            )
            for each in cause.rows[:MOST_ISSUES]
        ),
    )
