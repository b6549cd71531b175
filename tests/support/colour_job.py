"""A job whose answers are red or blue, with its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vendors.serving import VENDORS


def write_colour_job(folder: Path, counts: Mapping[str, int], backend: str, more: str = "") -> Path:
    """Write the files of a job whose answers are red or blue, so many rows each, and the job."""
    for name, count in counts.items():
        rows = (
            {
                "messages": [
                    {"role": "user", "content": f"{name} {number}?"},
                    {"role": "assistant", "content": "red" if number % 2 else "blue"},
                ]
            }
            for number in range(count)
        )
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    file = folder / "unitune.yaml"
    file.write_text(
        f"name: colours\nmodel: {VENDORS[backend].model if backend in VENDORS else 'tiny'}\n"
        f"backend: {backend}\n"
        "data: {train: train.jsonl, validation: dev.jsonl, test: test.jsonl}\n" + more,
        encoding="utf-8",
    )
    return file
