from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from unitune.backend import Event, State
from unitune.database import HEAD, METADATA, Database
from unitune.errors import Busy, TwinExists, UnituneError, UserError
from unitune.keys import run_id
from unitune.ledger import Artefact, Ledger, RunRecord
from unitune.models import TunedModel


def a_record(fingerprint: str = "f" * 64) -> RunRecord:
    now = time.time()
    return RunRecord(
        id=run_id(now),
        name="demo",
        backend="fake",
        base_model="tiny",
        method="sft",
        fingerprint=fingerprint,
        created=now,
        updated=now,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / ".unitune")


def test_migrations_from_empty_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    with Database(tmp_path / "ledger.db").writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert [] == compare_metadata(context, METADATA)


def test_the_version_in_the_code_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "unitune:migrations")
    assert HEAD == ScriptDirectory.from_config(config).get_current_head()


def test_alembic_is_imported_only_when_the_schema_is_behind(ledger: Ledger) -> None:
    ledger.add(a_record())
    look = (
        "import sys; from pathlib import Path; from unitune.ledger import Ledger; "
        "assert len(Ledger(Path(sys.argv[1])).records()) == 1; print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, str(ledger.folder)], capture_output=True, text=True, check=True
    )
    assert "False" == done.stdout.strip()


def test_reading_where_nothing_is_makes_nothing(ledger: Ledger) -> None:
    assert [] == ledger.records()
    assert not ledger.folder.exists()


def test_a_failed_migration_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    blocker = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with blocker.begin() as connection:
        connection.execute(sa.text("CREATE TABLE artefacts (id INTEGER)"))
    with pytest.raises(UnituneError, match="artefacts"), Database(path).writing():
        pass
    assert ["artefacts"] == sa.inspect(blocker).get_table_names()


def test_a_ledger_of_a_newer_unitune_is_refused(ledger: Ledger) -> None:
    ledger.add(a_record())
    with Database(ledger.folder / "ledger.db").writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="newer unitune"):
        Ledger(ledger.folder).records()


def test_a_file_that_is_no_ledger_is_said_to_be_none(ledger: Ledger) -> None:
    ledger.folder.mkdir()
    (ledger.folder / "ledger.db").write_bytes(b"this is certainly not a database" * 64)
    with pytest.raises(UnituneError, match="no ledger"):
        ledger.records()


OPEN_AND_ADD = """
import pathlib, sys, time
from unitune.keys import run_id
from unitune.ledger import Ledger, RunRecord
now = time.time()
record = RunRecord(run_id(now), "demo", "fake", "tiny", "sft", run_id(now), now, now)
print(flush=True)
sys.stdin.readline()
Ledger(pathlib.Path(sys.argv[1])).add(record)
"""


def test_processes_that_open_a_new_ledger_at_once_all_write(ledger: Ledger) -> None:
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_ADD, str(ledger.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in crowd:
        assert process.stdout is not None
        process.stdout.readline()  # it stands at the gate
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crowd:
        process.communicate()
    assert [0] * 4 == [process.returncode for process in crowd]
    assert 4 == len(ledger.records())


def test_a_record_comes_back_as_it_was_written(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    model = TunedModel(backend="fake", name="x", base="tiny")
    written = ledger.write(replace(record, state=State.SUCCEEDED, model=model, job_id="j"))
    assert written == ledger.record(record.id)
    assert (2, State.SUCCEEDED, model) == (written.version, written.state, written.model)


def test_of_two_that_read_the_same_record_only_one_can_write(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    ledger.write(replace(record, state=State.CANCELLED))
    with pytest.raises(Busy, match=record.id):
        ledger.write(replace(record, state=State.UPLOADING), [Event("k", "message", 0.0)])
    assert State.CANCELLED is ledger.record(record.id).state
    assert [] == ledger.events(record.id, 1)


def test_the_same_event_is_recorded_once_in_each_attempt(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    one, two = Event("one", "step", 1.0, {"loss": 0.5}), Event("two", "step", 2.0)
    record = ledger.write(record, [one, one])
    record = ledger.write(record, [one, two])
    ledger.write(replace(record, attempt=2), [one])
    assert [one, two] == [seen.event for seen in ledger.events(record.id, 1)]
    assert [one] == [seen.event for seen in ledger.events(record.id, 2)]


def test_events_after_a_place_are_those_not_seen(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    ledger.write(record, [Event(key, "step", 0.0) for key in "abc"])
    first, *others = ledger.events(record.id, 1)
    assert others == ledger.events(record.id, 1, after=first.place)


def test_only_a_change_of_place_leaves_a_transition(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    record = ledger.write(replace(record, state=State.RUNNING, raw="busy"))
    record = ledger.write(replace(record, cursor="7"))
    ledger.write(replace(record, raw="busier"))
    places = [(seen.state, seen.raw) for seen in ledger.transitions(record.id)]
    assert [(State.PLANNED, ""), (State.RUNNING, "busy"), (State.RUNNING, "busier")] == places


@pytest.mark.parametrize("state", list(State))
def test_every_run_but_a_failed_or_cancelled_one_is_a_twin(ledger: Ledger, state: State) -> None:
    first = a_record()
    ledger.add(first)
    ledger.write(replace(first, state=state))
    if state in (State.FAILED, State.CANCELLED):
        ledger.add(a_record())
    else:
        with pytest.raises(TwinExists, match=first.id) as refusal:
            ledger.add(a_record())
        assert first.id == refusal.value.run_id
    ledger.add(a_record(), again=True)


def test_an_artefact_is_replaced_by_a_later_one_of_its_name(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    assert ledger.artefact(record.id, "upload", "train.jsonl") is None
    ledger.add_artefact(record.id, Artefact("upload", "train.jsonl", "old", "0"))
    newer = Artefact("upload", "train.jsonl", "new", "1")
    ledger.add_artefact(record.id, newer)
    assert newer == ledger.artefact(record.id, "upload", "train.jsonl")


def test_an_event_of_no_run_is_refused_by_the_database(ledger: Ledger) -> None:
    ledger.add(a_record())
    with pytest.raises(UnituneError, match="FOREIGN KEY"):
        ledger.add_artefact("nobody", Artefact("upload", "train.jsonl", "r", "0"))
