"""`UNITUNE_TODAY` may be any day of the calendar, or empty, as CI systems set variables."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.command_line import Command

from unitune.workspace.user_settings import today

COMMANDS = [
    ["plan", "unitune.yaml"],
    ["plan", "unitune.yaml", "--all"],
    ["cost", "unitune.yaml"],
    ["check", "unitune.yaml"],
    ["run", "unitune.yaml"],
    ["runs"],
    ["deployments"],
    ["prices"],
    ["prices", "openai"],
    ["backends", "openai"],
]


@pytest.fixture(autouse=True)
def job(tmp_path: Path) -> None:
    rows = [{"prompt": f"row {n * 7919} alpha {n}", "completion": "yes"} for n in range(40)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fake = {"states": [], "steps": 1}
    content = {"name": "d", "model": "x", "backend": "fake", "data": {"train": "train.jsonl"}}
    (tmp_path / "unitune.yaml").write_text(json.dumps({**content, "options": {"fake": fake}}))


@pytest.mark.parametrize("day", ["9999-12-31", "9999-11-15", "0001-01-01", "1969-12-31", "", "  "])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_day_is_a_bug(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, command: list[str], day: str
) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", day)
    told = unitune(*command)
    assert told.code in (0, 2), told.err


@pytest.mark.parametrize("command", [["plan", "unitune.yaml"], ["prices"]], ids=" ".join)
@pytest.mark.parametrize("day", ["tomorrow", "2026-02-30", "10000-01-01", "-1"])
def test_what_is_no_day_is_told(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, command: list[str], day: str
) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", day)
    told = unitune(*command)
    assert told.code == 2
    assert f"UNITUNE_TODAY is '{day}'. Write it as YYYY-MM-DD." in told.err


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", given)
    before = datetime.now(UTC).date()
    assert before <= today() <= datetime.now(UTC).date()
