"""A ledger that several machines share, in a PostgreSQL database.

The password, from the URL or from libpq's own places, reaches no message: what is shown is the host
and the database.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import OperationalError as NotOperating

from unitune.errors import LockTimeout, MissingExtra, UnituneError, Unreachable, UserError
from unitune.ledger.database import Database
from unitune.security.redaction import redacted
from unitune.workspace.install import install_command

VARIABLE = "UNITUNE_LEDGER"
EXAMPLE = f"{VARIABLE}=postgresql+psycopg://user@host/database"
DRIVER = "postgresql+psycopg"
KINDS = ("postgresql", "postgres", DRIVER)
BUSY_SECONDS = 30  # how long a statement waits for another process's write
CONNECTION: dict[str, Any] = {
    "application_name": "unitune",
    "connect_timeout": 10,
    # A server that vanished is noticed within half a minute, not after TCP's quarter of an hour.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    # Prepared statements do not survive a pooler such as PgBouncer between us and the server.
    "prepare_threshold": None,
}
# Number of the advisory lock for changes of the schema: "unitune" in ASCII
UPGRADE_LOCK = 0x756E6974756E65
# Lock_not_available, serialization_failure, deadlock_detected. Source: PostgreSQL 15, appendix A,
# https://www.postgresql.org/docs/15/errcodes-appendix.html (2026-11-25).
BUSY_STATES = ("55P03", "40001", "40P01")


class PostgreSQL(Database):
    """A database on a server, by a URL as in ``UNITUNE_LEDGER``.

    Raises:
        UserError: It is no URL of a PostgreSQL database.
    """

    is_shared = True

    def __init__(self, url: str) -> None:
        self._url = _parsed(url)

    @property
    def exists(self) -> bool:
        return True

    @property
    def name(self) -> str:
        host = self._url.host or self._url.query.get("host") or "this machine"
        return f"{self._url.database or '(default database)'} at {host}"

    @cached_property
    def engine(self) -> sa.Engine:
        """The engine of this URL, one a process, so that connections are used again."""
        return _engine_at(self._url)

    def clock(self) -> sa.ColumnElement[float]:
        """Return the server's time, which all machines share."""
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

    def lease_clock(self) -> sa.ColumnElement[float]:
        return self.clock()

    @contextmanager
    def transaction(self, *, durable: bool) -> Generator[sa.Connection]:
        """Give a connection in a transaction that waits for others' rows, but not for ever.

        Args:
            durable: Makes no difference: a lease that a server forgot when it crashed could be
                given twice.
        """
        del durable
        with self.engine.connect() as connection, connection.begin():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
            yield connection

    def lock(self, connection: sa.Connection, key: str) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(key))))

    @contextmanager
    def upgrading(self) -> Generator[sa.Connection]:
        with self.transaction(durable=True) as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
            yield connection

    def explained(self, error: SQLAlchemyError) -> UnituneError:
        """Return what an error of the driver, or of SQLAlchemy, means to the user."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        secrets = (self._url.password, self._url.query.get("password"))
        known = [secret for secret in secrets if isinstance(secret, str)]
        words = redacted(" ".join(str(cause).split()), known)
        if getattr(cause, "sqlstate", None) in BUSY_STATES:
            return LockTimeout(f"the ledger {self.name} is in use by another process; try again.")
        if isinstance(error, NotOperating | InterfaceError):
            return Unreachable(
                f"the ledger {self.name} cannot be reached: {words}. Check {VARIABLE}, and that "
                "the server runs and lets this machine in."
            )
        return UnituneError(
            f"the ledger {self.name} cannot be used: {words}. Check that the database is one of "
            "unitune's own and that the user may create and change tables in it."
        )


def _parsed(text: str) -> sa.URL:
    """Read a URL; errors never repeat it, because it may hold a password."""
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise UserError(f"{VARIABLE} is not a URL of a database. Write {EXAMPLE}") from None
    if url.drivername not in KINDS:
        raise UserError(
            f"{VARIABLE} names a database that the ledger cannot live in; only PostgreSQL can be "
            f"shared. Write {EXAMPLE}, or unset it to keep the ledger in a file."
        )
    if set("@/:?#[]") & set(url.host or ""):
        raise UserError(
            f"{VARIABLE} has a host that cannot be one. If the password holds any of @ / : ? # %, "
            "write them percent-encoded: @ is %40."
        )
    return url.set(drivername=DRIVER)


@cache
def _engine_at(url: sa.URL) -> sa.Engine:
    """Make the engine of a URL; a fork of this process leaves the open connections to it.

    Source: SQLAlchemy 2.0, "Using Connection Pools with Multiprocessing or os.fork()",
    https://docs.sqlalchemy.org/en/20/core/pooling.html (2026-11-25).
    """
    try:
        engine = sa.create_engine(
            url,
            connect_args={
                name: value for name, value in CONNECTION.items() if name not in url.query
            },
            pool_pre_ping=True,
            hide_parameters=True,
            # What is read after a wait for others is what they have written, whatever the server's
            # own default.
            isolation_level="READ COMMITTED",
        )
    except ImportError as error:
        raise MissingExtra(
            f"{VARIABLE} names a PostgreSQL database, which needs the package 'psycopg'. "
            f"Install it with: {install_command('postgres')}"
        ) from error
    atexit.register(_close, engine, os.getpid())
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
    return engine


def _close(engine: sa.Engine, pid: int) -> None:
    """Take leave of the server; a forked child leaves its parent's connections alone."""
    if os.getpid() == pid:
        engine.dispose()
