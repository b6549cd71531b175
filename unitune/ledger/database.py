"""Open, read, write and upgrade the ledger's database.

It is a SQLite file in the state folder (`sqlite`), or the PostgreSQL database that
``UNITUNE_LEDGER`` names (`postgres`).
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
from unitune.ledger.records import HEAD, METADATA, VERSIONS
from unitune.workspace.install import upgrade_command

# Alembic's table
SCHEMA_VERSION = sa.Table(
    "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True)
)


class Database(ABC):
    """Database that is created and upgraded on first use."""

    is_shared: ClassVar[bool]
    """True if several machines may use it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name for messages, without a secret."""

    @property
    @abstractmethod
    def exists(self) -> bool:
        """True if there is data to read."""

    @cached_property
    @abstractmethod
    def engine(self) -> sa.Engine:
        """SQLAlchemy engine for any version of the schema."""

    @abstractmethod
    def clock(self) -> sa.ColumnElement[float]:
        """Return an SQL expression for the current time, in seconds since 1970."""

    @abstractmethod
    def lease_clock(self) -> sa.ColumnElement[float]:
        """Return an SQL expression for the clock of leases, in seconds."""

    @abstractmethod
    def lock(self, connection: sa.Connection, key: str) -> None:
        """Hold the lock of a key until the transaction ends; wait for other holders."""

    @abstractmethod
    def transaction(self, *, durable: bool) -> AbstractContextManager[sa.Connection]:
        """Yield a connection in a writing transaction, for any version of the schema.

        Args:
            durable: Whether the commit waits for the disk.
        """

    @abstractmethod
    def upgrading(self) -> AbstractContextManager[sa.Connection]:
        """Yield a connection in a transaction that excludes other changes of the schema."""

    @abstractmethod
    def explained(self, error: SQLAlchemyError) -> UnituneError:
        """Return the error for the user for one of the driver or SQLAlchemy."""

    @contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """Yield a connection in a reading transaction; Unreachable without its server."""
        with self._map_errors(), self.current_engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, *, durable: bool = True) -> Generator[sa.Connection]:
        """Yield a connection in a writing transaction.

        Args:
            durable: Pass False for data that is useless after a power cut.

        Raises:
            LockTimeout: Other processes wrote for half a minute.
            Unreachable: Its server does not answer.
        """
        with self._map_errors():
            _ = self.current_engine
            with self.transaction(durable=durable) as connection:
                yield connection

    @cached_property
    def current_engine(self) -> sa.Engine:
        """Engine of the database, which is upgraded to the newest schema first."""
        if not self.exists or self._version() != HEAD:
            with self.upgrading() as connection:
                version = _version(connection)  # another process may have upgraded it
                if version is None:
                    create(connection)
                elif version not in VERSIONS:
                    raise self._unknown(version)
                elif version != HEAD:
                    migrate(connection)
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
            f"the ledger {self.name} is damaged: {version!r} is not a version of its schema. "
            "Restore it from a backup."
        )

    @contextmanager
    def _map_errors(self) -> Generator[None]:
        try:
            yield
        except IntegrityError as error:
            raise LockTimeout(
                f"another process has just written the same entry to the ledger {self.name}. "
                "Nothing was changed. Run the command again."
            ) from error
        except PoolTimeout as error:
            raise LockTimeout(
                f"all connections of this process to the ledger {self.name} are in use. Try again."
            ) from error
        except UnicodeEncodeError as error:
            raise UserError(
                f"the ledger cannot store text with the unpaired surrogate "
                f"{error.object[error.start : error.end]!r}. Write it as UTF-8."
            ) from error
        except SQLAlchemyError as error:
            raise self.explained(error) from error


def create(connection: sa.Connection) -> None:
    """Create the newest schema without alembic, whose import and migrations take longer."""
    METADATA.create_all(connection, checkfirst=False)
    SCHEMA_VERSION.create(connection)
    connection.execute(SCHEMA_VERSION.insert().values(version_num=HEAD))


def migrate(connection: sa.Connection) -> None:
    """Upgrade an older schema."""
    from alembic import command  # noqa: PLC0415 - needed only for an upgrade
    from alembic.config import Config  # noqa: PLC0415 - needed only for an upgrade

    config = Config()
    config.set_main_option("script_location", "unitune.ledger:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _version(connection: sa.Connection) -> object:
    """Return the recorded version of the schema, of any type; None without a schema."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
