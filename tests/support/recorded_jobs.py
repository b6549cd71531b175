"""Jobs whose two contenders have recorded answers, so that no model is requested."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unitune.job.job import Job

RECORDED = [
    {"type": "recorded", "name": "old", "answers": "old.jsonl", "role": "baseline"},
    {"type": "recorded", "name": "new", "answers": "new.jsonl", "role": "candidate"},
]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_answers(folder: Path, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Write the answers of both contenders, by case id."""
    for name, answers in (("old", old), ("new", new)):
        rows = ({"case": case, "answer": text} for case, text in answers.items())
        write_lines(folder / f"{name}.jsonl", rows)


def recorded_job(
    folder: Path,
    cases: list[dict[str, Any]],
    old: Mapping[str, str],
    new: Mapping[str, str],
    train: list[dict[str, Any]] | None = None,
    **evaluate: Any,
) -> Job:
    """Write the files of a job, and return it."""
    write_lines(folder / "test.jsonl", cases)
    write_answers(folder, old, new)
    data = {"test": "test.jsonl"}
    if train:
        write_lines(folder / "train.jsonl", train)
        data["train"] = "train.jsonl"
    return Job.model_validate(
        {
            "name": "demo",
            "model": "x",
            "backend": "local",
            "data": data,
            "evaluate": {"contenders": RECORDED, "gate": {"mode": "improve"}, **evaluate},
            "folder": folder,
        }
    )
