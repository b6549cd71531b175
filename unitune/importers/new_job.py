"""Draft a job from a file of examples, without writing it.

records ──► shape, or guessed columns (`unitune.data.columns`)
        ──► rows, split for the test (`unitune.data.check`)
        ──► scorers that fit the answers (`answers`)
        ──► `Draft`: the job, its commented YAML, and findings
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from unitune.backends import registry
from unitune.data.check import JobRows, read_job
from unitune.data.columns import Guess, guess_columns
from unitune.data.dataset import Row
from unitune.data.example import Example
from unitune.data.load import read, read_records
from unitune.data.records import Record
from unitune.data.rows import RATED_ROW, Use
from unitune.data.shapes import SHAPES, shape_of
from unitune.data.split import Splits
from unitune.errors import DataError, UserError
from unitune.evaluate.readiness import backend_findings, readiness_findings, tools_findings
from unitune.files import yaml_file
from unitune.findings import Finding, shown
from unitune.importers.answers import Suggestion, spellings, suggest_scorers
from unitune.job.job import Columns, Job
from unitune.security.redaction import one_line

BACKEND = "local"
TOOLS_TEMPLATE = "hermes"
TOOLS_CAUTION = (
    "The rows have tools, but the default model's chat template has none, so the job sets "
    "data.chat_template: hermes. A larger model whose template has tools calls them better. Pass "
    "--model, such as Qwen/Qwen2.5-0.5B-Instruct from the Hugging Face Hub."
)
# Rows used to guess columns, and rows used to see whether that is needed
SAMPLE_ROWS, LOOKED_AT = 1000, 50
TEST_SHARE = 0.2
# Most rows for the test and for choosing prompts, unless a share is given: minutes on a CPU, and
# enough to detect a difference of about 5 points
MOST_CASES, MOST_DEV_ROWS = 500, 200
FEW_ROWS = 150  # below this, 30 rows for choosing prompts would be too many
# Shapes whose keys may be columns with another meaning
FLAT = (SHAPES["alpaca"], SHAPES["pair"])


@dataclass(frozen=True, slots=True)
class Wishes:
    """Choices of the user; the rest is guessed.

    Args:
        columns: Columns by role (user, assistant, system).
        test: Share of the rows for the test, or the file with its rows.
        backend: Training backend.
        model: Base model.
        drop: Leave out unusable rows.
        keep_spellings: Keep labels apart that differ only in case or white space.
        clusters: Key of the rows that are one piece of evidence.
        name: Name of the job; by default the file's.
    """

    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    test: float | str | None = None
    backend: str | None = None
    model: str | None = None
    drop: bool = False
    keep_spellings: bool = False
    clusters: str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A job for a file, not yet written.

    Args:
        text: YAML of the job file, with comments.
        read_as: Format that the file was read as.
        guess: Guessed columns; None if the rows need no guess.
        answers: Kind of answers and their scorers.
        rows: Rows by purpose.
        caution: Requirement of the model, or empty.
        findings: Findings for the user; errors if the job cannot run yet.
    """

    job: Job
    text: str
    read_as: str
    guess: Guess | None
    answers: Suggestion
    rows: JobRows
    findings: tuple[Finding, ...]
    caution: str = ""


def draft_job(file: Path, output: Path, wishes: Wishes) -> Draft:
    """Examine a file of examples and draft a job for it.

    Args:
        file: Data file.
        output: Path of the future job file.
        wishes: Choices of the user.

    Raises:
        DataError: The file cannot be read or has unusable rows, such as rated ones.
        UnknownColumns: The question or answer column cannot be guessed.
        NotFoundError: No installed package provides the backend.
    """
    refused: list[Finding] = []
    unread = _records(file, refused)
    records = list(islice(unread, SAMPLE_ROWS))
    count = len(records) + sum(1 for _ in unread)
    seen = list(islice(read(file), LOOKED_AT))
    if rated := [each for each in seen if isinstance(each, Finding) and each.code == RATED_ROW]:
        raise DataError("\n".join(shown(rated)), tuple(rated))
    some = [item for item in seen if isinstance(item, Row)]
    use: Use = "dpo" if any(row.example.non_preferred_output for row in some) else "sft"
    guess = None
    if len(records) > 1 and (wishes.columns or not _has_a_shape(records, some)):
        guess = guess_columns([each.value for each in records], wishes.columns)
    job = _job(file, use, guess, wishes, max(count, 1))
    if refused and not records:
        raise DataError("\n".join(shown(refused, f"`unitune check {file}`")), tuple(refused))
    rows, splits = _read(job, file, wishes)
    folded = None if wishes.keep_spellings else spellings(_all(splits))
    if folded:
        data = job.data.model_copy(update={"labels": tuple(sorted(set(folded.values())))})
        job = job.model_copy(update={"data": data})
        rows, splits = _read(job, file, wishes)
    answers = suggest_scorers(_all(splits), splits.train)
    if folded:
        said = f"{len(folded):,} spellings, {len(set(folded.values())):,} when case and blanks"
        answers = replace(answers, kind=f"{answers.kind}; {said} are ignored")
    content = job.model_dump(mode="json", exclude_defaults=True)
    content["evaluate"] = content["evaluate"] | {"scorers": list(answers.scorers)}
    with_tools = any(row.tools for row in splits.train)
    caution = ""
    if with_tools and wishes.model is None:
        content["data"]["chat_template"], caution = TOOLS_TEMPLATE, TOOLS_CAUTION
    job = Job.model_validate({**content, "folder": job.folder})
    read_as = one_line(rows.report.files[0].read_as)
    ready = (*backend_findings(job), *readiness_findings(job, rows), *tools_findings(job, rows))
    content["data"]["train"] = os.path.relpath(file, output.parent)
    return Draft(
        job=Job.model_validate({**content, "folder": output.parent}),
        text=_text(content, file, read_as, answers, rows),
        read_as=read_as,
        guess=guess,
        answers=answers,
        rows=rows,
        findings=(*rows.report.findings, *ready),
        caution=caution,
    )


def _records(file: Path, refused: list[Finding]) -> Iterator[Record]:
    for each in read_records(file):
        if isinstance(each, Record):
            yield each
        elif each.severity == "error":
            refused.append(each)


def _read(job: Job, file: Path, wishes: Wishes) -> tuple[JobRows, Splits]:
    try:
        return (rows := read_job(job)), rows.splits
    except DataError as refusal:
        if wishes.drop or not any(each.is_about_row for each in refusal.findings):
            raise
        fix = f"To leave such rows out, run: unitune init --data {file} --drop"
        raise DataError(f"{refusal}\n{fix}", refusal.findings) from refusal


def _all(splits: Splits) -> Iterator[Example]:
    return chain(splits.train, splits.validation, splits.test or ())


def _has_a_shape(records: Sequence[Record], some: Sequence[Row]) -> bool:
    """Return whether rows need no mapping: they have a shape, and most flat ones are readable."""
    shape = shape_of(records[0].value)
    return shape is not None and (shape not in FLAT or len(some) > min(len(records), LOOKED_AT) / 2)


def _job(file: Path, use: Use, guess: Guess | None, wishes: Wishes, rows: int) -> Job:
    if wishes.backend is not None and wishes.model is None:
        raise UserError(
            f"--backend is {wishes.backend}, but no model is named. Name one: --model MODEL. "
            f"List its models with: unitune backends {wishes.backend}"
        )
    backend = wishes.backend or BACKEND
    data: dict[str, Any] = {"train": file.name or os.curdir}
    if wishes.drop:
        data["unusable"] = "drop"
    if guess is not None:
        key = "columns" if isinstance(guess.mapping, Columns) else "template"
        data[key] = guess.mapping.model_dump(exclude_none=True)
    content: dict[str, Any] = {
        "name": re.sub("[^a-z0-9]+", "-", (wishes.name or file.stem).lower())
        .strip("-")[:40]
        .strip("-")
        or "job",
        "model": wishes.model or registry.offer(backend).models[0].name,
        "backend": backend,
        "method": use,
        "data": data,
        "tuning": {"seed": 0},
        "evaluate": {"leaks": "drop"} | ({"clusters": wishes.clusters} if wishes.clusters else {}),
        "folder": file.parent,
    }
    data["test"] = wishes.test or min(TEST_SHARE, _rounded(MOST_CASES / rows))
    left = rows if isinstance(data["test"], str) else rows * (1 - data["test"])
    if rows < FEW_ROWS:
        data["validation"] = TEST_SHARE
    elif left > MOST_DEV_ROWS * 10:
        data["validation"] = _rounded(MOST_DEV_ROWS / left)
    return Job.model_validate(content)


def _rounded(share: float) -> float:
    return float(f"{share:.2g}")


def _text(
    content: Mapping[str, Any], file: Path, read_as: str, answers: Suggestion, rows: JobRows
) -> str:
    splits = rows.splits
    train, held, test = map(len, (splits.train, splits.validation, splits.test or ()))
    leaks = len(rows.leaks)
    comments = {
        "name": f"From {one_line(file.name)}, read as {read_as}.",
        "data": f"Of {train + held + test:,} rows, {test:,} are reserved for the test, "
        f"always the same ones. Prompts are chosen on {held:,}; {train:,} are trained on.",
        "tuning": "Epochs, batch size, learning rate and the rest are the backend's defaults "
        "unless they are set here. Run unitune plan to see them.",
        "evaluate": f"The answers are {answers.kind}. The first scorer decides. {answers.caution}"
        f"{' ' * bool(answers.caution)}leaks: drop removes test cases whose question is "
        f"also in the other rows, at least nearly{f' (here {leaks:,})' if leaks else ''}.",
    }
    return "".join(_lines(content, comments)).lstrip()


def _lines(content: Mapping[str, Any], comments: Mapping[str, str]) -> Iterator[str]:
    for key, value in content.items():
        if key in comments:
            yield "\n"
            for line in textwrap.wrap(comments[key], 98, break_long_words=False):
                yield f"# {line}\n"
        yield yaml_file.dump({key: value}, flow=isinstance(value, dict))
