"""Runs on the fake backend whose models know some of the test answers, in the current folder.

The fake stands for a vendor: its models answer by an id, behind which `change_answers` changes
them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.job_files import write_rows
from unitune.job.job import Job
from unitune.run.run import Run, launch

CASES = 60
IMPROVE = {"mode": "improve"}


def triage_job(
    right: int,
    gate: dict[str, Any] | None = None,
    name: str = "triage",
    folder: Path | None = None,
) -> Job:
    """Return a job whose model is right in so many of 60 cases, and its base in 20 of them."""
    folder = folder or Path.cwd()
    for file, count in (("train", 40), ("dev", 20), ("test", CASES)):
        rows = ({"prompt": f"{file} {at}", "completion": "yes"} for at in range(count))
        write_rows(folder / f"{file}.jsonl", rows)
    vendor = folder / "vendor"
    vendor.mkdir(exist_ok=True)
    (vendor / "untuned.json").write_text(json.dumps({"replies": _answers(20)}), encoding="utf-8")
    return Job.model_validate(
        {
            "name": name,
            "model": "base",
            "backend": "fake",
            "data": {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"},
            "evaluate": {"contenders": ["zero-shot", "tuned"], "gate": gate},
            "options": {"fake": {"tuned": {"replies": _answers(right)}}},
            "folder": folder,
        }
    )


def trained(job: Job) -> Run:
    """Launch a job and follow it to its end."""
    return launch(job, allow_duplicate=True).wait(0)


def change_answers(run: Run, right: int) -> None:
    """Let the vendor serve another model under the id of a run's own."""
    assert run.tuned_model is not None
    change_answers_of(Path(run.tuned_model.name), right)


def change_answers_of(model: Path, right: int) -> None:
    """Do so by the folder of the model at the fake vendor."""
    file = model / "job.json"
    job = json.loads(file.read_text(encoding="utf-8"))
    job["script"]["tuned"]["replies"] = _answers(right)
    file.write_text(json.dumps(job), encoding="utf-8")


def _answers(right: int) -> dict[str, str]:
    return {f"test {at}": "yes" for at in range(right)}
