"""The database under the ledger: which it is, how it is opened, and how it is brought up to date.

It is a SQLite file in the home folder, or the PostgreSQL database that ``UNITUNE_LEDGER`` names.
What only one of them needs is all in the siblings `sqlite` and `postgres`; the schema (`tables`)
has versions (`migrations`), and alembic is imported only when a database is behind.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from unitune.errors import LockTimeout, UnituneError, UserError
from unitune.ledger.postgres import PostgreSQL
from unitune.ledger.sqlite import SQLite
from unitune.ledger.tables import HEAD, VERSIONS
from unitune.workspace.install import upgrade_command

Store = SQLite | PostgreSQL


class Database:
    """A database, made and upgraded when it is first used.

    Args:
        store: Where it is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def of(cls, folder: Path, url: str | None) -> Database:
        """Return the database at a URL, or else the file in a folder.

        Raises:
            UserError: The URL names no PostgreSQL database.
        """
        return cls(PostgreSQL(url) if url else SQLite(folder / "ledger.db"))

    @property
    def name(self) -> str:
        """How messages call it."""
        return self._store.name

    @property
    def exists(self) -> bool:
        """Whether there is anything to read."""
        return self._store.exists

    @property
    def is_shared(self) -> bool:
        """Whether processes of several machines may use it."""
        return self._store.shared

    def clock(self) -> sa.ColumnElement[float]:
        """Return the time now, in seconds since 1970, as an expression for a statement."""
        return self._store.clock()

    def lease_clock(self) -> sa.ColumnElement[float]:
        """Return the time by which leases go, in seconds, as an expression for a statement."""
        return self._store.lease_clock()

    @contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """Give a connection in a transaction that only reads; the database must exist.

        Raises:
            Unreachable: Its server does not answer.
        """
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, *, durable: bool = True) -> Generator[sa.Connection]:
        """Give a connection in a transaction that writes, all or nothing.

        Args:
            durable: False for what is of no use once this machine has lost its power.

        Raises:
            LockTimeout: Another process kept writing for half a minute.
            Unreachable: Its server does not answer.
        """
        with self._explained(), self._up_to_date.writing(durable=durable) as connection:
            yield connection

    def one_at_a_time(self, connection: sa.Connection, key: str) -> None:
        """Let no other transaction that asks for the same key come between this one's steps."""
        self._store.one_at_a_time(connection, key)

    @property
    def _engine(self) -> sa.Engine:
        return self._up_to_date.engine

    @cached_property
    def _up_to_date(self) -> Store:
        if not self._store.exists or _version_at(self._store.engine) != HEAD:
            self._upgrade()
        return self._store

    def _upgrade(self) -> None:
        """Bring the database to the newest schema, all or nothing."""
        with self._store.upgrading() as connection:
            version = _version(connection)  # another process may just have done it
            if version == HEAD:
                return
            if version not in (None, *VERSIONS):
                raise self._unknown(version)
            _migrate(connection)

    def _unknown(self, version: object) -> UnituneError:
        """Return what a version of the schema that is none of ours means."""
        if isinstance(version, str) and version.isdecimal() and version > HEAD:
            return UserError(
                f"{self.name} was written by a newer unitune (schema {version}; this one knows "
                f"{HEAD}). Upgrade with: {upgrade_command()}"
            )
        return UnituneError(
            f"the ledger {self.name} is damaged: {version!r} is no version of its schema. Restore "
            "it from a backup."
        )

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Turn the driver's errors into ours, in this one place."""
        try:
            yield
        except IntegrityError as error:
            raise LockTimeout(
                f"another process has just written to the ledger {self.name} what this one was "
                "about to write. Nothing was changed; look again."
            ) from error
        except PoolTimeout as error:
            raise LockTimeout(
                f"all connections of this process to the ledger {self.name} were in use for too "
                "long; try again."
            ) from error
        except UnicodeEncodeError as error:
            raise UserError(
                f"a text with {error.object[error.start : error.end]!r} in it, an unpaired "
                "surrogate, cannot be written into a ledger. Write it as UTF-8."
            ) from error
        except SQLAlchemyError as error:
            raise self._store.explained(error) from error


def _migrate(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - needed once in the life of a ledger
    from alembic.config import Config  # noqa: PLC0415 - likewise

    config = Config()
    config.set_main_option("script_location", "unitune.ledger:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _version_at(engine: sa.Engine) -> object:
    with engine.connect() as connection:
        return _version(connection)


def _version(connection: sa.Connection) -> object:
    """Return the version of the schema, whatever stands there; None where there is no schema."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
