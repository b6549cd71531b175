"""Report the effects of cutting a training file: few rows, repeated rows, missing labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from unitune.data.columns import may_be_labels
from unitune.data.dataset import Row, SpooledRows
from unitune.data.overlap import Search, by_kind
from unitune.data.questions import normal
from unitune.data.split import Parts
from unitune.findings import Finding, error, note, warning
from unitune.job.job import Job
from unitune.workspace.progress import counted

MOST_LABELS, SHOWN_LABELS = 1000, 5


def cut_findings(job: Job, file: str, parts: Parts | Finding | None) -> Iterator[Finding]:
    """Report the number of rows by purpose, or why they cannot be cut."""
    if isinstance(parts, Finding):
        yield parts.at(file=file)
    if not isinstance(parts, Parts):
        return
    left, out, cases = len(parts.train), len(parts.validation), len(parts.test)
    rows = left + out + cases
    if cases:
        yield note(
            "test-cut",
            f"{cases:,} of {rows:,} rows are reserved for the test (data.test: "
            f"{job.data.test:g}), {out:,} are held out to choose prompts and checkpoints, and "
            f"{left:,} are trained on.",
        ).at(file=file)
    if out > left:
        yield warning(
            "small-train",
            f"{out:,} of {rows:,} rows are held out to choose prompts and checkpoints, which "
            f"leaves {left:,} to train on.",
            "Add rows, or set `data.validation` to a file or a smaller fraction.",
        ).at(file=file)


def without_repeated(
    job: Job, file: str, rows: SpooledRows, parts: Parts | Finding | None
) -> tuple[Parts | Finding | None, list[Finding]]:
    """Remove validation rows that are also in the training rows, with a warning, not an error."""
    if not isinstance(parts, Parts) or not len(parts.validation) or job.evaluate.leaks == "allow":
        return parts, []
    held, left = rows.picked(parts.validation.data), rows.picked(parts.train.data)
    search = Search(held)
    search.compare_rows(counted(left, "looking for leaks", len(left)), file)
    shared = search.shared_cases()
    if not shared:
        return parts, []
    lines = {case.line for case in shared}
    kept = [row.line not in lines for row in held]
    finding = (note if any(kept) else error)(
        "overlap",
        f"{len(shared):,} of {len(held):,} rows held out for validation are also in the training "
        f"rows ({by_kind(case.kind for case in shared)}) and are left out.",
        "If rows of one customer or document belong together, name that key in "
        "`evaluate.clusters`. Or name a file under `data.validation`.",
    )
    return parts._replace(validation=parts.validation[kept]), [finding.at(file=file)]


def missing_labels(file: str, answers: Counter[str], cases: Sequence[Row]) -> Iterator[Finding]:
    """Report labels of the training file that no test case has."""
    missing = answers.keys() - {normal(case.example.answer or "") for case in cases}
    is_labels = len(answers) <= MOST_LABELS and may_be_labels([*answers.elements()], len(answers))
    if not is_labels or not missing:
        return
    first = sorted(missing, key=lambda label: (-answers[label], label))[:SHOWN_LABELS]
    named = ", ".join(f"{label!r} ({answers[label]:,} rows)" for label in first)
    yield warning(
        "missing-labels",
        f"the test has no case of {len(missing):,} of {len(answers):,} labels: {named}"
        f"{', …' if len(missing) > SHOWN_LABELS else ''}.",
        "Add rows with these labels, raise `data.test`, or set it to a file of test cases.",
    ).at(file=file)
