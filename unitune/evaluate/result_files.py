"""Locate and write the files of a comparison."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from unitune.data.example import digest
from unitune.errors import UserError
from unitune.evaluate.records import CaseResult
from unitune.evaluate.results import Comparison
from unitune.files.filesystem import content_of, replacing
from unitune.job.job import Job
from unitune.security.json_fields import whole_text
from unitune.workspace.home import EVALUATION, artifacts, home, make_folder

VERDICT = "verdict.json"
CASES = "cases.jsonl"  # written with the verdict: a `CaseResult` per line
_CASE = TypeAdapter(CaseResult)
# Subfolder for results of a preview
FIRST_LOOK = "first-look"
# Written next to the verdict by `unitune.report.files`
REPORTS = ("report.html", "summary.md", "junit.xml")


def report_folder(comparison: Comparison, folder: Path) -> Path:
    """Return the folder for verdict and report."""
    return folder / FIRST_LOOK if comparison.omitted_cases else folder


def results_folder(out: str | os.PathLike[str] | None, job: Job, run: str | None) -> Path:
    """Return the folder for the answers of a comparison: `out`, or that of the run or job.

    Raises:
        UserError: The folder has files with the same names that are not from a comparison.
    """
    if not out:
        folder = folder_of_run(run) if run else folder_of_job(job)
        make_folder(folder)
        return folder
    folder = Path(out)
    _refuse_link(folder)
    taken = [name for name in (*REPORTS, VERDICT) if (folder / name).exists()]
    if taken and not (folder / "rows.jsonl").exists():
        raise UserError(
            f"{folder / taken[0]} is not from a comparison and will not be overwritten. Choose "
            "another folder for the results."
        )
    return folder


def folder_of_run(run: str) -> Path:
    """Return the folder for the evaluation of a run: in its own folder if that exists."""
    from unitune.ledger import Ledger  # noqa: PLC0415 - slow to import

    folder = Ledger(home()).run_folder(run)
    return (folder if folder.is_dir() else artifacts() / "runs" / run) / EVALUATION


def folder_of_job(job: Job) -> Path:
    """Return the folder for the answers to a job; it may not be there yet."""
    folder, project = job.folder.resolve(), artifacts().resolve().parent
    if folder.is_relative_to(project):
        return artifacts() / "evaluations" / folder.relative_to(project) / job.name
    return artifacts() / "evaluations" / f"{job.name}-{digest(str(folder))[:8]}"


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a symbolic link to {folder.readlink()}, and results are not written "
            "through links. Name the folder itself."
        )


def write_verdict(comparison: Comparison, folder: Path) -> None:
    """Write ``cases.jsonl`` and then ``verdict.json``, each atomically."""
    _refuse_link(folder)
    make_folder(folder)
    with replacing(folder / CASES) as file:
        for case in comparison.cases:
            # A scorer's reason may quote a model's JSON, which may have unpaired surrogates.
            fields = _CASE.dump_python(case, mode="json", exclude_defaults=True)
            file.write(whole_text(json.dumps(fields, ensure_ascii=False)) + "\n")
    with replacing(folder / VERDICT) as file:
        file.write(comparison.verdict_json())


def read_comparison(folder: Path, *, cases: bool = True) -> Comparison:
    """Return a written comparison, perhaps without cases. Raises OSError or ValidationError."""
    comparison = Comparison.model_validate_json(content_of(folder / VERDICT))
    with suppress(FileNotFoundError):
        lines = content_of(folder / CASES).split(b"\n") if cases else ()
        read = tuple(_CASE.validate_json(line) for line in lines if line)
        comparison = comparison.model_copy(update={"cases": read})
    return comparison
