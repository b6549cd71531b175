"""`UNITUNE_TODAY` may be any day of the calendar, or empty, as CI systems set variables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import distinct_rows, write_job, write_rows

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
    write_rows(tmp_path / "train.jsonl", distinct_rows(40))
    write_job(tmp_path, options={"fake": {"states": [], "steps": 1}})


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
