"""How a ledger comes to its tables, on each of the databases that it can live in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from crash.postgres import new_database
from support.records import a_record

from unitune.errors import UnituneError, UserError
from unitune.ledger import Ledger
from unitune.ledger.database import Database, create, migrate
from unitune.ledger.looks import Look
from unitune.ledger.postgres import PostgreSQL
from unitune.ledger.records import HEAD, METADATA
from unitune.ledger.sqlite import SQLite

LATER_TABLES = {
    "0001": ("model_versions", "alias_moves", "audit_log", "looks", "projects"),
    "0002": ("audit_log", "looks", "projects"),
    "0003": ("looks", "projects"),
    "0005": ("projects",),
}
"""By each earlier version, the tables that it did not have."""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """A database without a table, which is the ledger's in `tmp_path`."""
    monkeypatch.delenv("UNITUNE_LEDGER", raising=False)
    if request.param == "sqlite":
        yield SQLite(tmp_path / "ledger.db")
        return
    with new_database(empty=True) as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        yield PostgreSQL(url)


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", "unitune.ledger:migrations")
    return made


@pytest.mark.parametrize("make", [create, migrate])
def test_an_empty_database_gets_the_tables_that_the_code_uses(
    empty: Database, make: Callable[[sa.Connection], None]
) -> None:
    with empty.upgrading() as connection:
        make(connection)
    with empty.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_the_version_in_the_code_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(config()).get_current_head() == HEAD


@pytest.mark.parametrize("version", LATER_TABLES)
def test_a_ledger_of_each_earlier_version_is_brought_up_to_date(
    empty: Database, tmp_path: Path, version: str
) -> None:
    record = a_record()
    ledger = Ledger(tmp_path)
    ledger.add(record)
    with empty.writing() as connection:
        for table in LATER_TABLES[version]:
            connection.execute(sa.text(f"DROP TABLE {table}"))
        stamp = sa.text("UPDATE alembic_version SET version_num = :version")
        connection.execute(stamp.bindparams(version=version))
    again = Ledger(tmp_path)
    assert again.run_ids() == [record.id]
    assert again.model_names() == []
    with empty.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_verifications_that_a_reason_marked_become_a_kind_of_look(
    empty: Database, tmp_path: Path
) -> None:
    look = Look("t" * 64, "c" * 64, (), "c1", "demo", 20, 0.5, sampled=True, reason=None, time=1.0)
    ledger = Ledger(tmp_path)
    for reason in ("unitune verify", "the server was misconfigured"):
        ledger.add_look(replace(look, reason=reason))
    with empty.writing() as connection:
        connection.execute(sa.text("ALTER TABLE looks DROP COLUMN kind"))
        connection.execute(sa.text("DROP TABLE projects"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0004'"))
    found = [(each.kind, each.reason) for each in Ledger(tmp_path).looks(look.test)]
    assert found == [("verification", None), ("comparison", "the server was misconfigured")]


def test_alembic_is_imported_only_when_the_schema_is_behind(
    empty: Database, tmp_path: Path
) -> None:
    with empty.writing():
        pass
    look = (
        "import sys; from pathlib import Path; from unitune.ledger import Ledger; "
        "assert [] == Ledger(Path(sys.argv[1])).records(); print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_reading_where_nothing_is_makes_no_folder(empty: Database, tmp_path: Path) -> None:
    del empty
    ledger = Ledger(tmp_path / ".unitune")
    assert ledger.records() == []
    assert ledger.deployments() == []
    assert not ledger.folder.exists()


def test_a_failed_migration_leaves_nothing_half_done(empty: Database) -> None:
    with empty.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE uploads (id INTEGER)"))
    with pytest.raises(UnituneError, match="uploads"), empty.writing():
        pass
    with empty.engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["uploads"]


def test_a_ledger_of_a_newer_unitune_is_refused(empty: Database, tmp_path: Path) -> None:
    with empty.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="newer unitune"):
        Ledger(tmp_path).records()


def test_a_file_that_is_no_ledger_is_said_to_be_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNITUNE_LEDGER", raising=False)
    (tmp_path / "ledger.db").write_bytes(b"this is certainly not a database" * 64)
    with pytest.raises(UnituneError, match="damaged, or another file"):
        Ledger(tmp_path).records()


OPEN_AND_ADD = """
import pathlib, sys, time
from unitune.backends.exactly_once import run_id
from unitune.ledger import Ledger, RunRecord
now = time.time()
record = RunRecord(run_id(now), "demo", "fake", "tiny", "sft", run_id(now), now, now)
print(flush=True)
sys.stdin.readline()
Ledger(pathlib.Path(sys.argv[1])).add(record)
"""


def test_processes_that_open_a_new_ledger_at_once_all_write(
    empty: Database, tmp_path: Path
) -> None:
    del empty
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_ADD, str(tmp_path)],
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
    assert [process.returncode for process in crowd] == [0] * 4
    assert len(Ledger(tmp_path).records()) == 4


def test_a_ledger_that_is_up_to_date_is_not_upgraded_again(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = a_record()
    Ledger(tmp_path).add(record)
    monkeypatch.setattr(type(empty), "upgrading", None)
    assert [found.id for found in Ledger(tmp_path).records()] == [record.id]
