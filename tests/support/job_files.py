"""Files of jobs: rows, and the job itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from support.command_line import Command
from unitune.testing.contract_base import ROWS


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


def recorded(name: str, role: str, answers: str = "answers.jsonl") -> dict[str, str]:
    """Return a contender whose answers are in a file."""
    return {"type": "recorded", "name": name, "role": role, "answers": answers}


def write_job(folder: Path, **fields: Any) -> Path:
    """Write a job for the fake backend, with some fields changed, and return its path."""
    job = {"name": "demo", "model": "any", "backend": "fake", "data": {"train": "train.jsonl"}}
    file = folder / "unitune.yaml"
    file.write_text(json.dumps(job | fields), encoding="utf-8")
    return file


def change(file: Path, old: str, new: str) -> None:
    """Replace a text of a file, which must be there."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def trained_run(unitune: Command, folder: Path, system: str = "", **fields: Any) -> str:
    """Train the fake model on the contract's rows with a command, and return the run's id.

    Args:
        unitune: Runs a command in the folder.
        folder: Where the job is written.
        system: System prompt of all rows.
        fields: Further fields of the job.
    """
    first = [{"role": "system", "content": system}] if system else []
    rows = [{"messages": [*first, *json.loads(row)["messages"]]} for row in ROWS]
    write_rows(folder / "train.jsonl", rows)
    data = {"train": "train.jsonl", "validation": 0.25}
    write_job(folder, data=data, options={"fake": {"steps": 1}}, **fields)
    assert unitune("run", "--quiet").code == 0
    return str(json.loads(unitune("runs", "--json").out)["runs"][0]["id"])
