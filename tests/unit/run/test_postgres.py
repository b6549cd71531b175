"""What is particular to a ledger on a server: its URL, its password, its driver, its absence."""

from __future__ import annotations

import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from crash.forks import Fork
from crash.postgres import PASSWORD, new_database, the_server
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError, StatementError
from support.records import a_deployment

from unitune.errors import LockTimeout, MissingExtra, UnituneError, Unreachable, UserError
from unitune.ledger import Ledger, postgres
from unitune.ledger.records import DEPLOYMENTS, RUNS
from unitune.workspace.install import install_command

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

SECRET = "planted-secret"  # noqa: S105 - planted to be looked for
ELSEWHERE = f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/ledger"
"""A server that is not there."""


def refusal(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> UnituneError:
    """Return the error of a ledger at a URL, after a look that no trace of it has the password."""
    monkeypatch.setenv("UNITUNE_LEDGER", url)
    with pytest.raises(UnituneError) as raised:
        Ledger(folder).records()
    told = "".join(traceback.format_exception(raised.value))
    for secret in (SECRET, PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in told
    return raised.value


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (f"mysql://me:{SECRET}@host/ledger", "the only database for a shared ledger"),
        (f"sqlite:///{SECRET}.db", "Unset it to keep the ledger in a file"),
        (f"postgresql+asyncpg://me:{SECRET}@host/ledger", "not a URL of PostgreSQL"),
        (f"me:{SECRET}@host", "is not a URL"),
        (f"postgresql://me:{SECRET}@host:port/ledger", "is not a URL"),
        (f"postgresql://me:p@{SECRET}@host/ledger", "%40"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, advice: str
) -> None:
    error = refusal(url, tmp_path, monkeypatch)
    assert isinstance(error, UserError)
    assert "UNITUNE_LEDGER" in str(error)
    with pytest.raises(UserError, match=advice):
        raise error


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_all_names_of_the_scheme_are_taken(scheme: str) -> None:
    made = postgres.PostgreSQL(f"{scheme}://me@host/ledger")
    assert made.engine.url.drivername == "postgresql+psycopg"


def test_a_missing_driver_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = refusal("postgresql://me@host/without-driver", tmp_path, monkeypatch)
    assert isinstance(error, MissingExtra)
    assert install_command("postgres") in str(error)
    assert isinstance(error.__cause__, ImportError)


def test_a_server_that_is_not_there_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refusal(ELSEWHERE, tmp_path, monkeypatch)
    assert isinstance(error, Unreachable)
    assert "ledger at 127.0.0.1 cannot be reached" in str(error)


def test_a_wrong_password_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = the_server().url_over_tcp("postgres", SECRET)
    error = refusal(url, tmp_path, monkeypatch)
    assert isinstance(error, Unreachable)
    assert "password authentication failed" in str(error)


def test_a_password_with_any_character_lets_in_when_it_is_percent_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_database() as url:
        name = url.rpartition("@/")[2].partition("?")[0]
        over_tcp = the_server().url_over_tcp(name, quote(PASSWORD, safe=""))
        monkeypatch.setenv("UNITUNE_LEDGER", over_tcp)
        ledger = Ledger(tmp_path)
        assert ledger.records() == []
        assert PASSWORD not in repr(ledger._database.engine)
        postgres.PostgreSQL(over_tcp).engine.dispose()


def test_a_password_that_the_driver_repeats_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://me:{SECRET}@127.0.0.1:1/ledger?sslmode={SECRET}"
    monkeypatch.setenv("UNITUNE_LEDGER", url)
    with pytest.raises(UnituneError, match=r"sslmode.*\*\*\*") as raised:
        Ledger(tmp_path).records()
    assert SECRET not in str(raised.value)


def cut_connections() -> None:
    the_server().run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'unitune'"
    )


def look_while_the_server_goes_away(ledger: Ledger) -> None:
    with ledger._database.reading() as connection:
        cut_connections()
        connection.execute(sa.select(RUNS))


def test_a_connection_that_is_cut_is_unreachable_and_the_next_one_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_database() as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        ledger = Ledger(tmp_path)
        with pytest.raises(Unreachable, match="cannot be reached"):
            look_while_the_server_goes_away(ledger)
        assert ledger.records() == []
        cut_connections()
        assert ledger.records() == []


def test_a_database_that_others_keep_locked_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "BUSY_SECONDS", 0.01)
    with new_database() as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        ledger = Ledger(tmp_path)
        with ledger._database.writing() as connection:
            connection.execute(sa.text("LOCK TABLE deployments"))
            with pytest.raises(LockTimeout, match="in use by another process"):
                write_in_another_connection(ledger)


def write_in_another_connection(ledger: Ledger) -> None:
    with ledger._database.writing() as connection:
        connection.execute(DEPLOYMENTS.delete())


def test_forks_leave_their_parents_connections_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_database() as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        ledger = Ledger(tmp_path)
        assert ledger.records() == []  # and a connection is kept to be used again
        forks = [Fork(lambda: [ledger.records() for _ in range(20)]) for _ in range(3)]
        assert [ledger.records() for _ in range(20)] == [[]] * 20
        assert [fork.result() for fork in forks] == [str([[]] * 20)] * 3
        assert ledger.records() == []


def test_a_pool_without_a_connection_left_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_database() as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        ledger = Ledger(tmp_path)
        database = ledger._database
        with database.reading():
            pool = database.engine.pool
        monkeypatch.setattr(pool, "_timeout", 0.1)
        with ExitStack() as held:
            for _ in range(15):
                held.enter_context(database.reading())
            with pytest.raises(LockTimeout, match="all connections of this process"):
                ledger.records()
        assert ledger.records() == []


@pytest.mark.parametrize(
    "odd", [StatementError("x", None, None, ValueError("y")), NoSuchTableError("t")]
)
def test_whatever_the_database_library_raises_is_an_error_of_ours(
    tmp_path: Path, store: str, odd: SQLAlchemyError
) -> None:
    del store
    database = Ledger(tmp_path)._database
    with pytest.raises(UnituneError, match="cannot be used"), database.writing():
        raise odd


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_the_books_are_read_once_nobody_else_sets_money_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    """Whatever the server's default is: a view of before the wait would miss what came in it."""
    with new_database() as url:
        name = url.rpartition("@/")[2].partition("?")[0]
        level = f"ALTER DATABASE {name} SET default_transaction_isolation TO '{isolation}'"
        the_server().run(level)
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        ledger = Ledger(tmp_path)
        seen: list[str] = []
        second = Thread(
            target=ledger.add_deployment,
            args=(
                a_deployment(id="d2"),
                lambda books: seen.extend(one.id for one in books.deployments),
            ),
        )

        def begin_the_second(_: object) -> None:
            second.start()
            time.sleep(0.5)
            assert seen == []

        ledger.add_deployment(a_deployment(id="d1"), begin_the_second)
        second.join(30)
        assert seen == ["d1"]
