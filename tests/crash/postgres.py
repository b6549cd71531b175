"""A PostgreSQL server for the tests, one a session, and a database of its own for each test.

The server dies with the process that started it. PostgreSQL refuses to run as root, so root starts
it as the user ``postgres``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from unitune.ledger.postgres import PostgreSQL

PASSWORD = "do/not:show@me"  # noqa: S105 - of a server that lives for some seconds
PATIENCE_SECONDS = 30
QUICK = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=16MB")
"""Settings for data that may be lost."""
STORES = ("sqlite", "postgresql")
"""Each of the databases that a ledger can live in."""
_numbers = count(1)
_processes: dict[Server, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Args:
        folder: Of its socket, over which it trusts everybody.
        port: On 127.0.0.1, where it asks for the password.
    """

    folder: Path
    port: int

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}&port={self.port}"

    def url_over_tcp(self, database: str, password: str) -> str:
        return f"postgresql+psycopg://postgres:{password}@127.0.0.1:{self.port}/{database}"

    def restart(self, away_seconds: float) -> None:
        """Stop it, and start it again after a while."""
        _processes[self].send_signal(signal.SIGINT)
        _processes[self].wait()
        time.sleep(away_seconds)
        _processes[self] = _start(self)
        _wait_for(self)

    def run(self, statement: str) -> None:
        import psycopg  # noqa: PLC0415 - needs the extra

        where = f"host={self.folder} port={self.port} user=postgres dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def new_database(*, empty: bool = False) -> Iterator[str]:
    """Yield the URL of a database that is dropped afterwards.

    Its connections stay in their pool until the process exits: a renewal of leases may use one now,
    and it would be lost, still open, if the pool were emptied.

    Args:
        empty: Whether it is to have no tables yet.
    """
    server = the_server()
    name = f"ledger_{next(_numbers)}"
    server.run(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else _template()}")
    yield server.url(name)
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def a_store(kind: str) -> Iterator[str]:
    """Yield the value of ``UNITUNE_LEDGER`` for an empty ledger of a kind.

    Args:
        kind: Of `STORES`.
    """
    if kind == "sqlite":
        yield ""
        return
    with new_database() as url:
        yield url


@cache
def the_server() -> Server:
    """Start the server, or skip the test where there is none to start."""
    pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed here")
    folder = Path(tempfile.mkdtemp(prefix="unitune-postgres-"))
    user = _user(folder)
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    (folder / "password").chmod(0o644)
    initdb = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-N"]
    auth = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={folder}/password"]
    subprocess.run([*user, *initdb, *auth], check=True, capture_output=True, cwd=folder)
    server = Server(folder, _free_port())
    _processes[server] = _start(server)
    atexit.register(_stop, server, os.getpid())
    _wait_for(server)
    return server


def _start(server: Server) -> subprocess.Popen[bytes]:
    binaries = _binaries()
    assert binaries is not None, "they made its data"
    folder = server.folder
    command = [
        *("setpriv", "--pdeathsig=QUIT"),
        *_user(folder)[1:],
        str(binaries / "postgres"),
        *("-D", str(folder / "data"), "-k", str(folder), "-h", "127.0.0.1", "-p"),
        str(server.port),
        *(part for setting in QUICK for part in ("-c", setting)),
    ]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=log)


def _stop(server: Server, pid: int) -> None:
    if os.getpid() == pid:  # and not one of its forks
        _processes[server].send_signal(signal.SIGQUIT)
        _processes[server].wait()
        shutil.rmtree(server.folder)


@cache
def _template() -> str:
    """Make a database with the tables, to copy from: faster than making the tables each time."""
    server = the_server()
    server.run("CREATE DATABASE made TEMPLATE template0")
    with PostgreSQL(server.url("made")).writing():
        pass
    PostgreSQL(server.url("made")).engine.dispose()
    return "made"


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def _user(folder: Path) -> list[str]:
    """Return what a command of the server begins with, and give it the folder."""
    if os.getuid() != 0:
        return ["setpriv"]
    shutil.chown(folder, "postgres", "postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def _wait_for(server: Server) -> None:
    import psycopg  # noqa: PLC0415 - needs the extra

    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError:
            assert time.monotonic() < end, (server.folder / "log").read_text()
            time.sleep(0.05)
        else:
            return
