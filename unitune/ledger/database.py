"""The database under the ledger: how it is opened, read, written, and brought up to date.

It is a SQLite file in the home folder (`sqlite`), or the PostgreSQL database that
``UNITUNE_LEDGER`` names (`postgres`). The schema (`records`) has versions (`migrations`), and
alembic is imported only when a database is behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from unitune.errors import LockTimeout, UnituneError, UserError
from unitune.ledger.records import HEAD, VERSIONS
from unitune.workspace.install import upgrade_command


class Database(ABC):
    """A database, made and upgraded when it is first used."""

    is_shared: ClassVar[bool]
    """Whether processes of several machines may use it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it; nothing in it is secret."""

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether there is anything to read."""

    @cached_property
    @abstractmethod
    def engine(self) -> sa.Engine:
        """SQLAlchemy's engine, whatever the version of the schema."""

    @abstractmethod
    def clock(self) -> sa.ColumnElement[float]:
        """Return the time now, in seconds since 1970, as an expression for a statement."""

    @abstractmethod
    def lease_clock(self) -> sa.ColumnElement[float]:
        """Return the time by which leases go, in seconds, as an expression for a statement."""

    @abstractmethod
    def lock(self, connection: sa.Connection, key: str) -> None:
        """Wait until no other transaction holds a key, and hold it until this transaction ends."""

    @abstractmethod
    def transaction(self, *, durable: bool) -> AbstractContextManager[sa.Connection]:
        """Give a connection in a transaction that writes, whatever the version of the schema.

        Args:
            durable: Whether it must be on the disk when it is done.
        """

    @abstractmethod
    def upgrading(self) -> AbstractContextManager[sa.Connection]:
        """Give the one process that may change the schema a connection in a transaction."""

    @abstractmethod
    def explained(self, error: SQLAlchemyError) -> UnituneError:
        """Return what an error of the driver, or of SQLAlchemy, means to the user."""

    @contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """Give a connection in a transaction that only reads.

        Raises:
            Unreachable: Its server does not answer.
        """
        with self._map_errors(), self.current_engine.connect() as connection, connection.begin():
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
        with self._map_errors():
            _ = self.current_engine
            with self.transaction(durable=durable) as connection:
                yield connection

    @cached_property
    def current_engine(self) -> sa.Engine:
        """The engine of a database with the newest schema; brings it up to date first."""
        if not self.exists or self._version() != HEAD:
            with self.upgrading() as connection:
                version = _version(connection)  # another process may just have done it
                if version not in (None, *VERSIONS):
                    raise self._unknown(version)
                if version != HEAD:
                    _migrate(connection)
        return self.engine

    def _version(self) -> object:
        with self.engine.connect() as connection:
            return _version(connection)

    def _unknown(self, version: object) -> UnituneError:
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
    def _map_errors(self) -> Generator[None]:
        """Map the driver's errors, all in this place."""
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
            raise self.explained(error) from error


def _migrate(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - needed once in the life of a ledger
    from alembic.config import Config  # noqa: PLC0415 - likewise

    config = Config()
    config.set_main_option("script_location", "unitune.ledger:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _version(connection: sa.Connection) -> object:
    """Return the version of the schema, whatever stands there; None where there is no schema."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
