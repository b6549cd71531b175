"""Use a SQLite file for the ledger of the processes of one machine."""

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
from unitune.files.filesystem import private_file
from unitune.ledger.database import Database
from unitune.workspace.home import make_home, refuse_network
from unitune.workspace.own_files import locked

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
CREATED = "ledger.created"  # empty file next to a ledger that had its tables
BUSY_SECONDS = 30  # maximum wait of a statement for another process's write


class SQLite(Database):
    """SQLite file, which is created with its folder on the first write."""

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
        """Engine of this file, shared in the process to compile statements once."""
        refuse_network(self.path.parent)
        return _engine_at(self.path)

    def clock(self) -> sa.ColumnElement[float]:
        """Return this machine's time."""
        return sa.literal(time.time(), sa.Double)

    def lease_clock(self) -> sa.ColumnElement[float]:
        """Return the seconds of a monotonic clock that all processes of this machine share.

        It restarts at boot. It stops while the machine sleeps, as the holder of a lease does.
        """
        return sa.literal(time.monotonic(), sa.Double)

    @contextmanager
    def transaction(self, *, durable: bool) -> Generator[sa.Connection]:
        options = {"write": True, "durable": durable}
        with self.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def lock(self, connection: sa.Connection, key: str) -> None:
        """Do nothing, as only one transaction at a time can write."""

    @contextmanager
    def upgrading(self) -> Generator[sa.Connection]:
        make_home(self.path.parent)
        lock = self.path.parent / "ledger.lock"
        private_file(lock)
        with locked(lock, f"the ledger {self.name}"):
            self._refuse_lost()
            private_file(self.path)  # SQLite gives its other files the same mode
            try:
                with closing(self.engine.raw_connection()) as raw:
                    raw.cursor().execute("PRAGMA journal_mode = WAL")  # not in a transaction
            except sqlite3.Error as error:
                raise self.explained(error) from error
            with self.transaction(durable=True) as connection:
                yield connection
            private_file(self.path.parent / CREATED)

    def _refuse_lost(self) -> None:
        """Raise UnituneError if the file is empty although it had tables before."""
        if not self.path.exists() or not (self.path.parent / CREATED).exists():
            return
        with self.engine.connect() as connection:
            if sa.inspect(connection).get_table_names():
                return
        raise UnituneError(
            f"the ledger {self.name} has lost its content, for example in a power cut. Restore it "
            "from a backup. Without one, move it away to start a new ledger, and check your "
            "vendors' own pages for jobs and deployments that still cost money."
        )

    def explained(self, error: SQLAlchemyError | sqlite3.Error) -> UnituneError:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF in DAMAGED:  # other bits are details
            return UnituneError(
                f"the ledger {self.name} is damaged, or another file: {cause}. Restore it from a "
                "backup, or move it away to start a new ledger."
            )
        if "locked" in str(cause):
            return LockTimeout(f"the ledger {self.name} is in use by another process. Try again.")
        return UnituneError(
            f"the ledger {self.name} cannot be used: {cause}. Check that you can write to its "
            "folder, or set UNITUNE_DIR to another one."
        )


@lru_cache(maxsize=8)
def _engine_at(path: Path) -> sa.Engine:
    """Return an engine that sends BEGIN itself, because Python's driver sends it too late.

    A writer takes the write lock at once: upgrading a read to a write could fail.
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
    """Return a value stored as JSON, or the text itself if it is not JSON (see `records`)."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _prepare(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None
    # Damaged text makes only its own record unreadable (`records`).
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    # An intent must be on disk before its paid call.
    level = "FULL" if options.get("durable", True) else "NORMAL"
    connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("write", False) else "BEGIN")
