"""Files of jobs: rows, and the job itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def distinct_rows(count: int) -> list[dict[str, str]]:
    """Return rows whose questions are no near duplicates; every answer is yes."""
    return [{"prompt": f"row {n * 7919} alpha {n}", "completion": "yes"} for n in range(count)]


def chat_row(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """Return a row with one question and its answer as messages."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def write_job(folder: Path, **fields: Any) -> Path:
    """Write a job for the fake backend, with some fields changed, and return its path."""
    job = {"name": "demo", "model": "any", "backend": "fake", "data": {"train": "train.jsonl"}}
    file = folder / "unitune.yaml"
    file.write_text(json.dumps(job | fields), encoding="utf-8")
    return file
