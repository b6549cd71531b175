"""Check what a gate requires of the cases, and read and write the baseline file.

The file is reviewed like code, so its lines are sorted and its numbers rounded:

    {"schema_version": 1, "metric": "exact", "scorers": {"exact": "0f3a5c…"}}
    {"id": "0a1b…", "content": "9c1e…", "scores": {"exact": 1, "json_valid": 1}}
    {"id": "77d0…", "content": "e2c4…", "scores": {"exact": 0, "json_valid": 1}, "anchor": 1}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, JsonValue, PlainSerializer, ValidationError

from unitune.data.example import Example
from unitune.documents import Closed
from unitune.errors import BackendError, DataError, JobError, Mismatch, NotFoundError
from unitune.evaluate.documents.records import Answer
from unitune.evaluate.documents.results import Comparison, Regression
from unitune.evaluate.scoring.grading import Graded
from unitune.evaluate.statistics.paired import compare_paired
from unitune.evaluate.task import Task
from unitune.files.filesystem import content_of, replacing
from unitune.files.validation import first_problem
from unitune.job.job import Gate, Job
from unitune.scorers.interface import Kind, Scorer
from unitune.scorers.judge import Judge

LEAST_OVERLAP = 0.9  # minimum fraction of the file's and of today's cases that must be in both
# Decimal places of a score in the file: a tenth of the smallest step in reports, in points
DECIMALS = 4
# 64 bits of a hash: enough to detect a changed case, and short in a diff
HASH_DIGITS = 16
MOST_NAMED = 5  # maximum number of cases listed in a message

Model = TypeVar("Model", bound=Closed)


class Header(Closed):
    """First line: the deciding scorer, and the fingerprint of every scorer by name."""

    schema_version: Literal[1] = 1
    metric: str
    scorers: dict[str, str]


def _without_point(score: float) -> JsonValue:
    return int(score) if score == int(score) else score


# Whole numbers, as most scores are, are written without a decimal point
Share = Annotated[float, Field(ge=0, le=1), PlainSerializer(_without_point)]


class Line(Closed):
    """One case: its id, the hash of its content, and its scores by scorer."""

    id: str
    content: str
    scores: dict[str, Share] = Field(min_length=1)
    anchor: Share | None = None
    """First accepted score; None if it equals the current one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Baseline file that can be compared with today's cases."""

    file: str  # path as given in the job
    metric: str
    lines: Mapping[str, Line]  # by case id

    def scores(self, *, first: bool = False) -> dict[str, float]:
        """Return the last accepted scores or, for each case, the first; by case id."""
        return {
            name: line.anchor if first and line.anchor is not None else line.scores[self.metric]
            for name, line in self.lines.items()
        }


@dataclass(frozen=True, slots=True)
class Requirements:
    """Requirements of a job's gate for its cases."""

    cases: frozenset[str] = frozenset()  # ids of cases that the candidate must answer correctly
    standing: Standing | None = None
    accepting: bool = False  # True if the candidate's scores will become the baseline file


def requirements(job: Job, task: Task, *, accepting: bool = False) -> Requirements:
    """Check what the job's gate requires, before any request is made.

    Raises:
        JobError: The baseline file does not exist, the job names none to write, or the primary
            metric does not score single cases.
        NotFoundError: The gate requires a case that does not exist.
        DataError: A line of the baseline file cannot be read.
        Mismatch: The file cannot be compared with these cases.
    """
    gate, primary = job.evaluate.gate, task.scoring.primary
    if accepting and (gate is None or gate.baseline is None):
        raise JobError(
            f"job {job.name!r} has no baseline file to update. "
            "Set evaluate.gate to {mode: no-regress, baseline: baseline.jsonl}."
        )
    if gate and gate.baseline:
        check_kept(primary)
        if accepting:
            check_replaceable(job.path(gate.baseline))
    judged = isinstance(primary, Judge)  # no gate rests on single judgements
    return Requirements(
        cases=frozenset() if judged else required_cases(gate, task.cases, task.copies),
        standing=None if accepting else standing(job, primary, task.cases),
        accepting=accepting,
    )


def required_cases(
    gate: Gate | None, cases: Iterable[Example], copies: Mapping[str, str]
) -> frozenset[str]:
    """Return the ids of the cases that the candidate must answer correctly.

    Raises:
        NotFoundError: The gate names a case that does not exist.
    """
    by_id = {case.case_id: case for case in cases}
    named = [copies.get(name, name) for name in (gate.required_cases if gate else ())]
    for name in named:
        if name not in by_id:
            hint = (
                "evaluate.gate.required_cases lists ids of test cases: a row's own `id`, or the "
                "one shown in the report."
            )
            raise NotFoundError("case", name, by_id, hint)
    return frozenset(named) | {name for name, case in by_id.items() if case.required}


def standing(job: Job, primary: Scorer, cases: Sequence[Example]) -> Standing | None:
    """Return the job's baseline, or None if its gate names none. Raises like `requirements`."""
    gate = job.evaluate.gate
    if gate is None or gate.baseline is None:
        return None
    path, today = job.path(gate.baseline), {case.case_id: case for case in cases}
    header, lines = read(path)
    if why := _mismatch(header, lines, primary, today):
        raise Mismatch(
            f"{path}: {why}. The scores cannot be compared. If the change is intended, rewrite "
            "the baseline with `unitune compare FILE --update-baseline`."
        )
    return Standing(gate.baseline, header.metric, lines)


def _mismatch(
    header: Header, lines: Mapping[str, Line], primary: Scorer, today: Mapping[str, Example]
) -> str | None:
    name = primary.name
    if header.metric != name:
        return f"its scores are by {header.metric}, but the job's are by {name}"
    if header.scorers.get(name) != primary.fingerprint:
        return f"the scorer {name} has changed"
    both = lines.keys() & today.keys()
    changed = sorted(case for case in both if _content(today[case]) != lines[case].content)
    if changed:
        more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
        return (
            "these cases have changed since it was written: "
            f"{', '.join(changed[:MOST_NAMED])}{more}"
        )
    if len(both) < LEAST_OVERLAP * max(len(lines), len(today)):
        return (
            f"only {len(both)} cases are both among its {len(lines)} and among today's "
            f"{len(today)}; a comparison requires {100 * LEAST_OVERLAP:.0f} % of each"
        )
    return None


def check_kept(primary: Scorer) -> None:
    """Raise JobError if a metric is not a mean of scores per case."""
    if primary.kind is Kind.CORPUS:
        raise JobError(
            f"evaluate.gate.baseline stores a score per case, but {primary.name} is computed over "
            "all cases together. Choose another primary scorer, or remove the baseline file."
        )


def regressions(then: Standing | None, candidate: Graded, margin: float) -> tuple[Regression, ...]:
    """Compare a candidate with its baseline file: the last and, if different, first scores.

    A removed case counts as wrong now, so deleting a failing case does not fix it.
    """
    if then is None:
        return ()
    cases, labels = candidate.task.cases, candidate.task.clusters
    places = {case.case_id: at for at, case in enumerate(cases)}
    removed = tuple(name for name in then.lines if name not in places)
    names = [*(name for name in then.lines if name in places), *removed]
    at = [places.get(name) for name in names]
    now = [0.0 if p is None else rounded(candidate.answers[p].scores[then.metric]) for p in at]
    clusters = labels and [
        f"removed {name}" if p is None else labels[p] for name, p in zip(names, at, strict=True)
    ]
    has_first = any(line.anchor is not None for line in then.lines.values())
    made: list[Regression] = []
    for first in (False, True) if has_first else (False,):
        scores = then.scores(first=first)
        old = [scores[name] for name in names]
        paired = compare_paired(old, now, clusters=clusters, margin=margin)
        made.append(
            Regression(
                **Regression.figures(paired),
                file=then.file,
                first=first,
                added=tuple(sorted(places.keys() - then.lines.keys())),
                removed=removed,
            )
        )
    return tuple(made)


def read(path: Path) -> tuple[Header, dict[str, Line]]:
    """Return a baseline file's header, and its cases by id.

    Raises:
        JobError: The file does not exist or cannot be read.
        DataError: A line has another format, or a case occurs twice.
    """
    try:
        text = content_of(path).decode()
    except FileNotFoundError as error:
        raise JobError(
            f"evaluate.gate.baseline: {path}: file not found. Write it with `unitune compare FILE "
            "--update-baseline`, and commit it."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise JobError(f"evaluate.gate.baseline: {path} cannot be read: {why}.") from error
    first, *rest = text.removesuffix("\n").split("\n")
    header = _parsed(Header, first, path, 1)
    lines: dict[str, Line] = {}
    for number, text in enumerate(rest, start=2):
        line = _parsed(Line, text, path, number)
        if line.id in lines:
            raise DataError(f"{path}:{number}: the case {line.id!r} occurs twice.")
        if header.metric not in line.scores:
            raise DataError(f"{path}:{number}: the score by {header.metric!r} is missing.")
        lines[line.id] = line
    return header, lines


def _parsed(model: type[Model], text: str, path: Path, number: int) -> Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise DataError(
            f"{path}:{number} is not a line of a baseline file: {text[:80]!r} "
            f"({first_problem(error)}). Restore the file from version control, or rewrite it with "
            "`unitune compare FILE --update-baseline`."
        ) from error


def check_replaceable(path: Path) -> None:
    """Raise JobError if a path has a file that is not a baseline."""
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with path.open(encoding="utf-8") as file:
            Header.model_validate_json(file.readline())
    except (ValueError, OSError) as error:
        raise JobError(
            f"evaluate.gate.baseline: {path} is not a baseline file and will not be overwritten. "
            "Use another file name."
        ) from error


def accept(job: Job, task: Task, comparison: Comparison) -> None:
    """Write the candidate's scores as the baseline file, without incomplete answers."""
    gate = job.evaluate.gate
    assert gate is not None
    assert gate.baseline is not None, "`requirements` checks it"
    answers = {case.id: case.answers[comparison.candidate] for case in comparison.cases}
    answers = {case: answer for case, answer in answers.items() if answer.known}
    cases = [case for case in task.cases if case.case_id in answers]
    scoring = task.scoring
    write(job.path(gate.baseline), scoring.primary.name, scoring.scorers, cases, answers)


def write(
    path: Path,
    metric: str,
    scorers: Sequence[Scorer],
    cases: Sequence[Example],
    answers: Mapping[str, Answer],
) -> None:
    """Write the candidate's scores atomically. Raises BackendError if a case has no score.

    The first accepted scores are kept as anchors while metric, scorer and case stay the same.
    Without them, a loss within the margin could be accepted again and again.
    """
    header = Header(metric=metric, scorers={scorer.name: scorer.fingerprint for scorer in scorers})
    before: dict[str, Line] = {}
    if path.exists() and path.stat().st_size:
        known, lines = read(path)
        if (known.metric, known.scorers.get(metric)) == (metric, header.scorers[metric]):
            before = lines
    lines = [
        _line(name, case, _scores(name, metric, answers[name]), metric, before.get(name))
        for name, case in sorted((case.case_id, case) for case in cases)
    ]
    written = (line.model_dump(mode="json", exclude_none=True) for line in (header, *lines))
    with replacing(path) as file:
        file.writelines(f"{json.dumps(line, ensure_ascii=False)}\n" for line in written)


def _line(
    name: str, case: Example, scores: dict[str, float], metric: str, before: Line | None
) -> Line:
    line = Line(id=name, content=_content(case), scores=scores)
    if before is None or before.content != line.content:
        return line
    anchor = before.scores[metric] if before.anchor is None else before.anchor
    return line.model_copy(update={"anchor": None if anchor == scores[metric] else anchor})


def rounded(score: float) -> float:
    """Return a score as written in the file, so that scores are compared with the same digits."""
    return round(score, DECIMALS) + 0.0  # adding zero turns -0.0 into 0.0


def _content(case: Example) -> str:
    return case.case_hash[:HASH_DIGITS]


def _scores(case: str, metric: str, answer: Answer) -> dict[str, float]:
    scores = sorted(answer.scores.items())
    known = {name: rounded(score) for name, score in scores if math.isfinite(score)}
    if metric not in known:
        raise BackendError(
            f"the case {case!r} has no score by {metric}, so no baseline was written. Fix the "
            "cause and run compare again."
        )
    return known
