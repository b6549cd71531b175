"""`unitune runs` shows the newest page of a ledger, whatever its size."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from support.command_line import Command

from unitune.backends.exactly_once import run_id
from unitune.backends.protocol import State
from unitune.ledger import Ledger, RunRecord
from unitune.ledger.ledger import SHOWN_RUNS
from unitune.workspace.home import home
from unitune.workspace.own_files import locked

NEW_YEAR = 1_767_225_600.0

AddRuns = Callable[[int], list[str]]


@pytest.fixture
def add_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddRuns:
    """Write down so many runs, a minute apart, and return their ids, the newest first."""
    monkeypatch.chdir(tmp_path)

    def add(count: int) -> list[str]:
        ledger = Ledger(home())
        begun = ledger.run_count()
        for number in range(begun, begun + count):
            at = NEW_YEAR + 60 * number
            ledger.add(
                RunRecord(
                    id=run_id(at),
                    name="demo",
                    backend="fake",
                    base_model="tiny",
                    method="sft",
                    fingerprint=f"{number:064}",
                    created=at,
                    updated=at,
                )
            )
        return ledger.run_ids()

    return add


@pytest.mark.parametrize(
    ("options", "shown"),
    [((), SHOWN_RUNS), (("--limit", "3"), 3), (("--all",), 60), (("--limit", "99"), 60)],
)
def test_the_newest_are_listed_and_what_is_left_out_is_told(
    unitune: Command, add_runs: AddRuns, options: tuple[str, ...], shown: int
) -> None:
    newest = add_runs(60)

    told = json.loads(unitune("runs", *options, "--json").out)
    assert newest[:shown] == [run["id"] for run in told["runs"]]
    assert (60, 60 - shown) == (told["total"], told["left_out"])

    table = unitune("runs", *options).out
    assert newest[:shown] == [
        line.split()[0] for line in table.splitlines() if line.startswith("r26")
    ]
    assert (shown < 60) == (f"newest {shown} of 60 runs." in table)


def test_a_page_asks_the_ledger_no_more_for_more_runs(unitune: Command, add_runs: AddRuns) -> None:
    asked: list[str] = []

    def note(*given: Any) -> None:
        asked.append(given[2])

    def statements() -> int:
        asked.clear()
        assert len(json.loads(unitune("runs", "--limit", "5", "--json").out)["runs"]) == 5
        return len(asked)

    add_runs(10)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        few = statements()
        add_runs(40)
        assert few == statements()
        found = add_runs(1)[0]
        asked.clear()
        assert found in unitune("runs", "show", found[:-2]).out
        assert not [one for one in asked if "job_id" in one and "WHERE" not in one]
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_runs_on_this_machine_stand_as_their_workers_say_and_no_vendor_is_called(
    unitune: Command, tmp_path: Path, add_runs: AddRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker has done stands in its folder; until now it was launched and left alone."""
    pytest.importorskip("unitune_local.backend", reason="needs the extra `local`")
    from unitune_local.job_folder import JobFolder, Result  # noqa: PLC0415 - needs the extra
    from unitune_local.ray.backend import RayBackend  # noqa: PLC0415 - likewise

    monkeypatch.setattr(RayBackend, "poll", lambda *_: pytest.fail("a cluster is called"))
    names = ("gone", "training", "failed", "openai", "ray")
    folders = {name: JobFolder(tmp_path / name) for name in names}
    ids, ledger = add_runs(5), Ledger(home())
    for run, (name, folder) in zip(ids, folders.items(), strict=True):
        folder.path.mkdir()
        if name != "gone":
            folder.spec.write_text("{}")
        backend = name if name in ("openai", "ray") else "local"
        with ledger.acting(run) as record:
            job = replace(record, backend=backend, job_id=str(folder.path), state=State.QUEUED)
            ledger.write(job)
    folders["failed"].finish(Result(state="failed", error="no memory"))
    with locked(folders["training"].lock, "training", wait_seconds=0):
        told = json.loads(unitune("runs", "--json").out)["runs"]
    assert dict(zip(ids, ("queued", "running", "failed", "queued", "queued"), strict=True)) == {
        run["id"]: run["state"] for run in told
    }


def test_limit_and_all_exclude_each_other(unitune: Command) -> None:
    outcome = unitune("runs", "--limit", "5", "--all")
    assert outcome.code == 2
    assert "not both" in outcome.err
    assert unitune("runs", "--limit", "0").code == 2


def test_a_beginning_of_many_runs_names_some_of_them(unitune: Command, add_runs: AddRuns) -> None:
    newest = add_runs(SHOWN_RUNS + 5)
    outcome = unitune("runs", "show", "r26")
    assert outcome.code == 2
    assert newest[0] in outcome.err
    assert newest[-1] not in outcome.err
    assert "and 5 more" in outcome.err
    assert "There is no run 'R26'" in unitune("runs", "show", "R26").err


@pytest.mark.parametrize("columns", ["10", "20", "40", "80", "200"])
def test_ids_of_runs_are_whole_at_any_width(
    unitune: Command, add_runs: AddRuns, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    newest = add_runs(3)
    monkeypatch.setenv("COLUMNS", columns)
    told = unitune("runs").out
    words = told.replace(",", " ").split()
    assert newest == [word for word in words if word in newest]
    for value in ("demo", "fake", "tiny"):
        assert words.count(value) == 3


@pytest.mark.parametrize(
    "command", [["runs", "show"], ["runs", "cancel"], ["chat", "-m", "hello"], ["runs", "delete"]]
)
def test_a_run_of_bytes_that_are_no_text_is_told_as_such(
    unitune: Command, add_runs: AddRuns, command: list[str]
) -> None:
    add_runs(1)
    told = unitune(*command, "a\udcff")  # as Python reads the byte FF of a command line
    assert (told.code, "unpaired surrogate" in told.err) == (2, True)


def test_columns_without_end_take_no_memory(
    unitune: Command, add_runs: AddRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_runs(1)
    monkeypatch.setenv("COLUMNS", "9" * 20)
    told = unitune("runs")
    assert told.code == 0
    assert len(told.out) < 100_000
