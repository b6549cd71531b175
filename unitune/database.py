"""The database under the ledger: its tables, how it is opened, and how it is brought up to date.

What only SQLite needs is all in `_engine_at` and `_upgrade`; the tables use types that every
database has. The schema has versions (`unitune.migrations`), and alembic is imported only when a
database is behind. What the rows mean is the business of `unitune.ledger`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, OperationalError

from unitune.errors import Busy, UnituneError, UserError
from unitune.home import make_home, refuse_network
from unitune.locks import locked

HEAD = "0001"
"""The newest version of the schema; a test holds it against `unitune.migrations`."""
BUSY_SECONDS = 30
"""How long a statement waits for another process's write."""

METADATA = sa.MetaData()
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.String(20), primary_key=True),
    sa.Column("name", sa.String(40), nullable=False),
    sa.Column("backend", sa.String(64), nullable=False),
    sa.Column("base_model", sa.Text, nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("job_id", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("cursor", sa.Text, nullable=False),
    sa.Column("model", sa.JSON(none_as_null=True)),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
)
TRANSITIONS = sa.Table(
    "transitions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
)
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("key", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.UniqueConstraint("run_id", "attempt", "key", name="events_once"),
)
ARTEFACTS = sa.Table(
    "artefacts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.UniqueConstraint("run_id", "kind", "name", name="artefacts_once"),
)


class Database:
    """A SQLite file, made and upgraded when it is first used.

    Args:
        path: The file; its folder is made on the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether there is anything to read."""
        return self.path.exists()

    @contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """Give a connection in a transaction that only reads; the file must exist."""
        with _explained(self.path), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Generator[sa.Connection]:
        """Give a connection in a transaction that no other writer can come between.

        Raises:
            Busy: Another process kept writing for half a minute.
        """
        if not self.exists:
            make_home(self.path.parent)
        with _explained(self.path), _writer(self._engine) as connection, connection.begin():
            yield connection

    @cached_property
    def _engine(self) -> sa.Engine:
        refuse_network(self.path.parent)
        engine = _engine_at(self.path)
        if _version(engine) != HEAD:
            with locked(self.path.parent / "ledger.lock", f"the ledger {self.path}"):
                _upgrade(engine, self.path)
        return engine


def _engine_at(path: Path) -> sa.Engine:
    """Return an engine whose transactions are real ones.

    Python's driver opens transactions late and by guessing; so it is told not to, and BEGIN is
    sent here. A writer takes the write lock at once: upgrading a read to a write could fail.
    """
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.NullPool,
        connect_args={"timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # An intent must be on the disk before the paid call that it announces.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _writer(engine: sa.Engine) -> sa.Connection:
    return engine.connect().execution_options(write=True)


def _version(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(engine: sa.Engine, path: Path) -> None:
    """Bring a database to the newest schema, all or nothing; called by one process at a time."""
    version = _version(engine)
    if version == HEAD:
        return
    if version is not None and version > HEAD:
        raise UserError(
            f"{path} was written by a newer unitune (schema {version}; this one knows {HEAD}). "
            "Upgrade with: pip install -U unitune"
        )
    from alembic import command  # noqa: PLC0415 - needed once in the life of a ledger
    from alembic.config import Config  # noqa: PLC0415 - likewise

    with closing(engine.raw_connection()) as raw:
        raw.cursor().execute("PRAGMA journal_mode = WAL")  # never within a transaction
    config = Config()
    config.set_main_option("script_location", "unitune:migrations")
    with _writer(engine) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _explained(path: Path) -> Generator[None]:
    """Turn the database's errors into ours, in this one place."""
    try:
        yield
    except OperationalError as error:
        if "locked" in str(error.orig):
            raise Busy(f"the ledger {path} is in use by another process; try again.") from error
        raise UnituneError(
            f"the ledger {path} cannot be used: {error.orig}. Check that its folder exists and can "
            "be written to, or set UNITUNE_DIR to another one."
        ) from error
    except DatabaseError as error:
        raise UnituneError(
            f"the ledger {path} is damaged or no ledger: {error.orig}. Restore it from a backup, "
            "or move it away to begin a new one."
        ) from error
