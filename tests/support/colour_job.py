"""A job whose answers are red or blue, with its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vendors.serving import VENDORS

from support.job_files import chat_row, write_rows


def write_colour_job(folder: Path, counts: Mapping[str, int], backend: str, more: str = "") -> Path:
    """Write the files of a job whose answers are red or blue, so many rows each, and the job."""
    for name, count in counts.items():
        answers = ("blue", "red")
        rows = (chat_row(f"{name} {number}?", answers[number % 2]) for number in range(count))
        write_rows(folder / f"{name}.jsonl", rows)
    file = folder / "unitune.yaml"
    file.write_text(
        f"name: colours\nmodel: {VENDORS[backend].model if backend in VENDORS else 'tiny'}\n"
        f"backend: {backend}\n"
        "data: {train: train.jsonl, validation: dev.jsonl, test: test.jsonl}\n" + more,
        encoding="utf-8",
    )
    return file
