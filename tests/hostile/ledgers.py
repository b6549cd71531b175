"""What stands in the ledger and beside it: rows with odd values, files of runs that are damaged."""

from __future__ import annotations

import sqlite3
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hostile import examples
from hostile.attempts import Attempt
from hostile.command_lines import run_ids
from hostile.values import as_json, damaged, json_values, scalars
from hypothesis import strategies as st

DEPLOYMENT = """insert into deployments (id, run_id, backend, name, model, state, ref, usd_per_hour,
created, until, ended, version) values (?, ?, ?, 'm', ?, ?, 'ref-1', '1.5', ?, ?, null, 1)"""


def commands(run: str) -> tuple[tuple[str, ...], ...]:
    """Return the commands that read the ledger."""
    return (
        ("runs",),
        ("runs", "--json"),
        ("runs", "show", run),
        ("runs", "show", run, "--json"),
        ("runs", "watch", run, "--quiet"),
        ("runs", "watch", run),
        ("runs", "watch", run, "--json"),
        ("runs", "watch", "--all"),
        ("runs", "pause", run),
        ("runs", "resume", run),
        ("runs", "cancel", run),
        ("chat", run, "-m", "train 0?"),
        ("runs", "delete", run, "--yes"),
        ("runs", "delete", run, "--yes", "--force", "--reports"),
        ("deployments", "up", run, "--budget", "3"),
        ("deployments", "down", run),
        ("deployments", "down", f"{run}-d1"),
        ("deployments",),
        ("deployments", "--all", "--json"),
        ("models", "checkpoints", run),
        ("models", "download", run, "-o", "weights"),
        ("doctor",),
        ("models", "register", run),
        ("models", "promote", run, "--as", "production"),
        ("models", "promote", run, "--as", "production", "--without-gate", "a test"),
        ("models", "rollback", "demo@production"),
        ("models", "unalias", "demo@production"),
        ("models",),
        ("models", "demo"),
        ("models", "demo", "--json"),
        ("models", "verify", "demo@production", "job.yaml", "--quiet"),
        ("run", "job.yaml", "--quiet"),
        ("run", "job.yaml", "--allow-duplicate", "--detach"),
        ("compare", "job.yaml", "--quiet"),
        ("plan", "job.yaml"),
        ("cost", "job.yaml"),
    )


@cache
def with_deployments() -> dict[str, bytes]:
    """Return runs, and a ledger that says that something stands for one of them."""
    files = dict(examples.trained())
    run = run_ids()[0]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ledger.db"
        place.write_bytes(files["home/ledger.db"])
        ledger = sqlite3.connect(place)
        model = as_json(
            {"backend": "fake", "name": "x", "base": "b", "data_fingerprint": "f"}
        ).decode()
        for number, backend in enumerate(("fake", "together", "bedrock"), 1):
            values = (
                f"{run}-d{number}",
                run,
                backend,
                model,
                "ready",
                1_764_000_000.0,
                4e9 if number > 1 else 1.0,
            )
            ledger.execute(DEPLOYMENT, values)
        ledger.commit()
        ledger.close()
        files["home/ledger.db"] = place.read_bytes()
    return files


@cache
def columns() -> list[tuple[str, str]]:
    """Return the tables that have rows, each with its columns."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ledger.db"
        place.write_bytes(with_deployments()["home/ledger.db"])
        ledger = sqlite3.connect(place)
        tables = [
            name
            for (name,) in ledger.execute(
                "select name from sqlite_master where type = 'table' and name not like 'sqlite%'"
            )
        ]
        found = [
            (table, str(column[1]))
            for table in tables
            for column in ledger.execute(f"pragma table_info({table})")
        ]
        ledger.close()
    return found


def cells() -> st.SearchStrategy[Any]:
    """Return values that SQLite takes in any column."""
    plain = scalars().filter(lambda one: not isinstance(one, int) or -(2**63) <= one < 2**63)
    plain = plain.map(
        lambda one: (
            one.encode("utf-8", "surrogatepass")
            if isinstance(one, str) and not one.isprintable() and not _encodes(one)
            else one
        )
    )
    documents = json_values().map(as_json).map(lambda one: one.decode("utf-8", "replace"))
    words = st.sampled_from(
        (
            "running",
            "succeeded",
            "failed",
            "unknown",
            "uncertain",
            "submitting",
            "paused",
            "gone",
            "ready",
            "starting",
        )
    )
    return plain | documents | words | st.binary(max_size=8)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@st.composite
def rows_of_the_ledger(draw: st.DrawFn) -> Attempt:
    """Return a ledger with odd values in some of its rows."""
    files = dict(with_deployments())
    changes = draw(st.lists(st.tuples(st.sampled_from(columns()), cells()), min_size=1, max_size=3))
    files["home/ledger.db"] = _changed(files["home/ledger.db"], changes)
    chosen = draw(
        st.lists(
            st.sampled_from(commands(draw(st.sampled_from(run_ids())))), min_size=1, max_size=2
        )
    )
    return Attempt(tuple(chosen), files)


def _changed(database: bytes, changes: list[tuple[tuple[str, str], Any]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ledger.db"
        place.write_bytes(database)
        ledger = sqlite3.connect(place)
        ledger.execute("pragma ignore_check_constraints = on")
        for (table, column), value in changes:
            try:
                ledger.execute(f"update {table} set {column} = ? where rowid % 2 = 1", (value,))  # noqa: S608 - names of our own tables
            except (sqlite3.IntegrityError, UnicodeEncodeError):
                continue  # SQLite itself keeps such a value out
        ledger.commit()
        ledger.close()
        return place.read_bytes()


@st.composite
def files_of_runs(draw: st.DrawFn) -> Attempt:
    """Return a file of a run, or the ledger itself, that is damaged."""
    files = dict(with_deployments())
    names = [name for name in files if name.startswith("home/")]
    name = draw(st.sampled_from(names))
    files[name] = draw(damaged(files[name]))
    chosen = draw(
        st.lists(
            st.sampled_from(commands(draw(st.sampled_from(run_ids())))), min_size=1, max_size=2
        )
    )
    return Attempt(tuple(chosen), files)
