"""A row of the ledger that cannot be read is told with its run and field, and hides no other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from decimal import Decimal
from itertools import takewhile
from pathlib import Path

import pytest
from support.command_line import Command
from support.records import a_deployment

from unitune.errors import UnreadableRecord
from unitune.job.job import Data, Evaluate, Job
from unitune.ledger import Ledger
from unitune.run.run import Run, launch, runs
from unitune.workspace.home import home

DEEP = "[" * 100_000
DAMAGE = {
    "state": ("state", ["done", "", "\x1b[31mred", b"\xff"]),
    "model": ("model", ["no json", '{"backend": 5}', '"text"', DEEP, b"\xff\xfe"]),
    "attempt": ("attempt", ["first", 0, 100_000]),
    "created": ("created", ["today", 1e300, -1.0]),
    "version": ("version", ["x"]),
}
RUN_COMMANDS = (
    *("runs show", "runs watch", "runs cancel", "runs resume", "runs delete --yes", "runs pause"),
    *("deployments up", "chat -m x"),
)
Damage = Callable[..., None]


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Run]:
    """Two runs that have succeeded."""
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps({"prompt": f"{at}?", "completion": "x"}) + "\n" for at in range(4))
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    data = Data(train="train.jsonl", validation="train.jsonl")
    made: list[Run] = []
    for name in ("whole", "broken"):
        job = Job(
            name=name,
            model="tiny",
            backend="fake",
            data=data,
            evaluate=Evaluate(leaks="allow"),
            folder=tmp_path,
        )
        job = job.model_copy(update={"options": {"fake": {"steps": 1 + len(made)}}})
        made.append(launch(job).wait(0.001))
    return made


def damage(table: str, column: str, value: object, where: str = "1") -> None:
    with closing(sqlite3.connect(home() / "ledger.db")) as ledger, ledger:
        ledger.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", [value])  # noqa: S608


CASES = [(field, value) for field, values in DAMAGE.values() for value in values]


@pytest.mark.parametrize(("field", "value"), CASES, ids=lambda one: repr(one)[:20])
def test_runs_lists_the_others_and_names_the_run_and_the_field(
    unitune: Command, two: Sequence[Run], field: str, value: object
) -> None:
    whole, broken = two
    damage("runs", field, value, f"id = '{broken.id}'")
    done = unitune("runs")
    assert done.code == 4, done.err
    assert whole.id in done.out
    assert f"run {broken.id} cannot be read: its {field}" in " ".join(done.err.split())
    assert "\x1b[31mred" not in done.err
    listed = json.loads(unitune("runs", "--json").out)
    assert ([whole.id], 2) == ([run["id"] for run in listed["runs"]], listed["total"])
    assert broken.id in listed["unreadable"][0]
    assert [run.id for run in runs()] == [whole.id]


@pytest.mark.parametrize("arguments", RUN_COMMANDS)
def test_a_command_on_a_run_that_cannot_be_read_exits_4(
    unitune: Command, two: Sequence[Run], arguments: str
) -> None:
    whole, broken = two
    damage("runs", "state", "done", f"id = '{broken.id}'")
    words = arguments.split()
    command = [*takewhile(lambda word: not word.startswith("-"), words)]
    done = unitune(*command, broken.id, *words[len(command) :])
    assert done.code == 4, done.err
    assert f"run {broken.id} cannot be read" in done.err
    assert "backup" in done.err
    assert unitune("runs", "show", whole.id).code == 0


def test_all_others_are_watched(
    unitune: Command, two: Sequence[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune.run.watching.sleep", lambda _: None)
    whole, broken = two
    damage("runs", "state", "running", f"id = '{whole.id}'")
    damage("runs", "state", "done", f"id = '{broken.id}'")
    done = unitune("runs", "watch", "--all")
    assert done.code == 4
    assert f"run {broken.id} cannot be read" in " ".join(done.err.split())
    assert Ledger(home()).record(whole.id).state == "succeeded"


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("events", "data", "no json"),
        ("events", "kind", "odd"),
        ("events", "time", "noon"),
        ("transitions", "state", "done"),
        ("runs", "job", "- no job"),
        ("runs", "job", "{"),
        ("runs", "job", "data: 5"),
        ("runs", "job", DEEP),
    ],
)
def test_what_belongs_to_a_run_is_told_with_the_run(
    two: Sequence[Run], table: str, column: str, value: str
) -> None:
    whole, broken = two
    key = "id" if table == "runs" else "run_id"
    damage(table, column, value, f"{key} = '{broken.id}'")
    ledger = Ledger(home())
    with pytest.raises(UnreadableRecord, match=f"run {broken.id} cannot be read") as raised:
        _read_all(ledger, broken.id)
    assert column in raised.value.field
    _read_all(ledger, whole.id)


def _read_all(ledger: Ledger, run_id: str) -> None:
    ledger.transitions(run_id)
    ledger.events(run_id, 1)
    ledger.job(run_id)


@pytest.mark.parametrize("holder", ["", "no json", "[1, 2]", '["a", "b", "c", 1e99, "e"]', DEEP])
def test_a_lease_of_nobody_ends_by_its_time(two: Sequence[Run], holder: str) -> None:
    """Nobody can be seen in it; so it holds until its time, and no longer."""
    run = two[0]
    damage("runs", "lease_holder", holder, f"id = '{run.id}'")
    damage("runs", "lease_until", 0.0, f"id = '{run.id}'")
    with Ledger(home()).acting(run.id) as record:
        assert run.id == record.id


def test_a_lease_until_a_time_that_is_none_is_taken(two: Sequence[Run]) -> None:
    run = two[0]
    damage("runs", "lease_holder", "no json", f"id = '{run.id}'")
    damage("runs", "lease_until", "noon", f"id = '{run.id}'")
    with Ledger(home()).acting(run.id) as record:
        assert run.id == record.id


def test_a_damaged_deployment_is_told(unitune: Command, two: Sequence[Run]) -> None:
    record = a_deployment(run_id=two[0].id, usd_per_hour=Decimal(1), ended=2.0)
    Ledger(home()).add_deployment(record, lambda _: None)
    damage("deployments", "usd_per_hour", "dear")
    done = unitune("deployments")
    assert done.code == 4
    told = f"deployment {record.id} cannot be read: its usd_per_hour in the ledger"
    assert told in " ".join(done.err.split())


@pytest.mark.parametrize("version", ["0001zz", "", "zzzz", b"\xff"])
def test_a_version_that_is_none_is_told(
    unitune: Command, two: Sequence[Run], version: object
) -> None:
    del two
    damage("alembic_version", "version_num", version)
    done = unitune("runs")
    assert done.code in (2, 4), done.err
    assert "ledger.db" in "".join(done.err.split())
