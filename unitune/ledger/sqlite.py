"""A ledger in a file, for the processes of one machine."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from unitune.errors import LockTimeout, UnituneError
from unitune.ledger.database import Database
from unitune.workspace.filesystem import private_file
from unitune.workspace.home import make_home, refuse_network
from unitune.workspace.locks import locked

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BUSY_SECONDS = 30  # how long a statement waits for another process's write


class SQLite(Database):
    """A SQLite file; it and its folder are made on the first write."""

    is_shared = False

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def exists(self) -> bool:
        return self.path.exists()

    @cached_property
    def engine(self) -> sa.Engine:
        """The engine of this file, one a process, so that statements are compiled once."""
        refuse_network(self.path.parent)
        return _engine_at(self.path)

    def clock(self) -> sa.ColumnElement[float]:
        """Return this machine's time, as all processes are here."""
        return sa.literal(time.time(), sa.Double)

    def lease_clock(self) -> sa.ColumnElement[float]:
        """Return the seconds of a monotonic clock, the same in all processes here.

        It begins anew when the machine is started, and stands still while the machine does: then
        the holder of a lease stands still as well.
        """
        return sa.literal(time.monotonic(), sa.Double)

    @contextmanager
    def transaction(self, *, durable: bool) -> Generator[sa.Connection]:
        """Give a connection in a transaction that no other writer can come between.

        Args:
            durable: What is not is lost when the machine loses its power, and so are the processes
                that it was about.
        """
        options = {"write": True, "durable": durable}
        with self.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def lock(self, connection: sa.Connection, key: str) -> None:
        """Do nothing: writers wait for each other in any case."""

    @contextmanager
    def upgrading(self) -> Generator[sa.Connection]:
        """Make the file, private to the user, and give a connection in a transaction."""
        make_home(self.path.parent)
        lock = self.path.parent / "ledger.lock"
        private_file(lock)
        with locked(lock, f"the ledger {self.name}"):
            self._refuse_lost()
            private_file(self.path)  # SQLite gives the files beside it the same mode
            try:
                with closing(self.engine.raw_connection()) as raw:
                    raw.cursor().execute("PRAGMA journal_mode = WAL")  # never within a transaction
            except sqlite3.Error as error:
                raise self.explained(error) from error
            with self.transaction(durable=True) as connection:
                yield connection

    def _refuse_lost(self) -> None:
        """Raise UnituneError where the database is there, with nothing in it, and runs are too.

        It is made under the lock, and before the first run's files: what a process that is at it
        right now has begun is never seen here.
        """
        runs = self.path.parent / "runs"
        if not self.path.exists() or not runs.is_dir() or not any(runs.iterdir()):
            return
        with self.engine.connect() as connection:
            if sa.inspect(connection).get_table_names():
                return
        raise UnituneError(
            f"the ledger {self.name} is empty, while {runs} has files of runs: it was lost, as by "
            "a power cut. Restore it from a backup. Without one, move it away to begin another, "
            "and check your vendors' own pages for jobs and deployments that still cost money."
        )

    def explained(self, error: SQLAlchemyError | sqlite3.Error) -> UnituneError:
        """Return what an error of the driver, or of SQLAlchemy, means to the user."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF in DAMAGED:  # what follows is detail
            return UnituneError(
                f"the ledger {self.name} is damaged or no ledger: {cause}. Restore it from a "
                "backup, or move it away to begin a new ledger."
            )
        if "locked" in str(cause):
            return LockTimeout(f"the ledger {self.name} is in use by another process; try again.")
        return UnituneError(
            f"the ledger {self.name} cannot be used: {cause}. Check that its folder exists "
            "and can be written to, or set UNITUNE_DIR to another folder."
        )


@lru_cache(maxsize=8)
def _engine_at(path: Path) -> sa.Engine:
    """Return an engine whose transactions are real ones.

    Python's driver begins transactions late and by guessing; so that is off, and BEGIN is sent
    here. A writer takes the write lock at once: upgrading a read to a write could fail.
    """
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.NullPool,
        connect_args={"timeout": BUSY_SECONDS},
        json_deserializer=_value,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _value(text: str) -> object:
    """Return a value that is stored as JSON; what is none, as the text that it is (`records`)."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _prepare(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None
    # A text that is damaged is one field's affair (`records`), not that of all rows beside it.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    # An intent must be on the disk before the paid call that it announces.
    level = "FULL" if options.get("durable", True) else "NORMAL"
    connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("write", False) else "BEGIN")
