from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import JsonValue

from unitune.job import Data, Job

MakeJob = Callable[[dict[str, JsonValue]], Job]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data files and no ledger, which is the current one."""
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.chdir(tmp_path)
    for name, count in (("train", 6), ("validation", 2)):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"{name} question {number}"},
                    {"role": "assistant", "content": f"answer {number}"},
                ]
            }
            for number in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.fixture
def make_job(workplace: Path) -> MakeJob:
    """A job for the fake backend with a script."""

    def make(script: dict[str, JsonValue]) -> Job:
        return Job(
            name="demo",
            model="tiny",
            backend="fake",
            data=Data(train="train.jsonl", validation="validation.jsonl"),
            options={"fake": script},
            folder=workplace,
        )

    return make
