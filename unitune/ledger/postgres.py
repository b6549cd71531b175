"""Use a PostgreSQL database, which several machines can share, for the ledger.

Messages show host and database, never the password.
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
from unitune.files.system import after_fork
from unitune.ledger.database import Database
from unitune.security.redaction import redacted
from unitune.workspace.install import install_command

VARIABLE = "UNITUNE_LEDGER"
EXAMPLE = f"{VARIABLE}=postgresql+psycopg://user@host/database"
DRIVER = "postgresql+psycopg"
KINDS = ("postgresql", "postgres", DRIVER)
BUSY_SECONDS = 30  # maximum wait of a statement for another process's write
CONNECTION: dict[str, Any] = {
    "application_name": "unitune",
    "connect_timeout": 10,
    # A lost server is noticed within half a minute, not after TCP's quarter of an hour.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    # Prepared statements do not work through a pooler such as PgBouncer.
    "prepare_threshold": None,
}
# Key of the advisory lock for schema changes: "unitune" in ASCII
UPGRADE_LOCK = 0x756E6974756E65
# Lock_not_available, serialization_failure, deadlock_detected. Source: PostgreSQL 15, appendix A,
# https://www.postgresql.org/docs/15/errcodes-appendix.html (2026-11-25).
BUSY_STATES = ("55P03", "40001", "40P01")


class PostgreSQL(Database):
    """Database on a server.

    Args:
        url: URL as in ``UNITUNE_LEDGER``.

    Raises:
        UserError: It is not a URL of a PostgreSQL database.
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
        """Engine of this URL, shared in the process to reuse connections."""
        return _engine_at(self._url)

    def clock(self) -> sa.ColumnElement[float]:
        """Return the server's time."""
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

    def lease_clock(self) -> sa.ColumnElement[float]:
        return self.clock()

    @contextmanager
    def transaction(self, *, durable: bool) -> Generator[sa.Connection]:
        """Yield a connection in a transaction whose waits for locks are limited.

        Args:
            durable: Ignored: a lease that a crashed server forgot could be granted twice.
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
        cause = error.orig if isinstance(error, DBAPIError) else error
        secrets = (self._url.password, self._url.query.get("password"))
        known = [secret for secret in secrets if isinstance(secret, str)]
        words = redacted(" ".join(str(cause).split()), known)
        if getattr(cause, "sqlstate", None) in BUSY_STATES:
            return LockTimeout(f"the ledger {self.name} is in use by another process. Try again.")
        if isinstance(error, NotOperating | InterfaceError):
            return Unreachable(
                f"the ledger {self.name} cannot be reached: {words}. Check {VARIABLE}, and that "
                "the server is running and accepts connections from this machine."
            )
        return UnituneError(
            f"the ledger {self.name} cannot be used: {words}. Check that unitune created the "
            "tables of this database, and that its user may create and change tables."
        )


def _parsed(text: str) -> sa.URL:
    """Parse a URL; errors never repeat it, because it may contain a password."""
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise UserError(f"{VARIABLE} is not a URL of a database. Example: {EXAMPLE}") from None
    if url.drivername not in KINDS:
        raise UserError(
            f"{VARIABLE} is not a URL of PostgreSQL, the only database for a shared ledger. "
            f"Example: {EXAMPLE}. Unset it to keep the ledger in a file."
        )
    if set("@/:?#[]") & set(url.host or ""):
        raise UserError(
            f"{VARIABLE} has an invalid host. If the password contains any of @ / : ? # %, "
            "percent-encode them: @ is %40."
        )
    return url.set(drivername=DRIVER)


@cache
def _engine_at(url: sa.URL) -> sa.Engine:
    """Return the engine of a URL; a forked child does not use its parent's connections.

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
            # After a wait for others, a statement reads what they wrote.
            isolation_level="READ COMMITTED",
        )
    except ImportError as error:
        raise MissingExtra(
            f"{VARIABLE} names a PostgreSQL database, which needs the package 'psycopg'. "
            f"Install it with: {install_command('postgres')}"
        ) from error
    atexit.register(_close, engine, os.getpid())
    after_fork(partial(engine.dispose, close=False))
    return engine


def _close(engine: sa.Engine, pid: int) -> None:
    """Close the connections, unless this is a forked child."""
    if os.getpid() == pid:
        engine.dispose()
