"""What unitune keeps is for its user alone; a launch that comes to nothing leaves nothing."""

from __future__ import annotations

import errno
import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from support.rows import write_rows
from support.warm import WARM_SUBPROCESS, warm_run

from unitune.errors import Unreachable
from unitune.files.filesystem import private_folder, replacing
from unitune.job.job import Job
from unitune.ledger import Ledger
from unitune.run import run
from unitune.workspace import home as workspace
from unitune_local.job_folder import JobFolder
from unitune_local.training import worker
from unitune_local.training.worker import start_worker

OTHERS = 0o077
ALLOW = {"evaluate": {"leaks": "allow"}}
"""Validation rows may be those that are trained on."""
UNREACHABLE = "postgresql+psycopg://u@127.0.0.1:9/x"


def command(
    *arguments: str, cwd: Path, limits: dict[int, int] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    return warm_run(
        [sys.executable, "-m", "unitune", *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "1000"} | variables,
        umask=0,
        limits=limits,
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job to train and one to compare."""
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    monkeypatch.delenv("UNITUNE_LEDGER", raising=False)
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("train", "test"):
        rows = (
            {"prompt": f"{name} {at * 7919}?", "completion": "Paris ", "id": f"c{at}"}
            for at in range(4)
        )
        write_rows(folder / f"{name}.jsonl", rows)
    answers = ({"case": f"c{at}", "answer": "Paris "} for at in range(4))
    write_rows(folder / "answers.jsonl", answers)
    train = {"train": "train.jsonl", "validation": "train.jsonl"}
    job = {"name": "demo", "model": "tiny", "backend": "fake", "data": train} | ALLOW
    (folder / "train.yaml").write_text(json.dumps(job), encoding="utf-8")
    contenders = [
        {"type": "recorded", "name": name, "answers": "answers.jsonl", "role": role}
        for name, role in (("a", "baseline"), ("b", "candidate"))
    ]
    job = {"name": "demo", "model": "x", "backend": "local", "data": {"test": "test.jsonl"}}
    compared = job | {"evaluate": {"contenders": contenders}}
    (folder / "compare.yaml").write_text(json.dumps(compared), encoding="utf-8")
    return folder


def open_to_others(folder: Path) -> Iterator[str]:
    """Yield what others of the machine may look into, in a folder."""
    for path in folder.rglob("*"):
        if path.stat().st_mode & OTHERS:
            yield f"{path.relative_to(folder)}: {path.stat().st_mode & 0o777:o}"


@pytest.mark.parametrize("named", [False, True])
def test_nobody_else_can_read_the_ledger_the_rows_or_the_answers(
    project: Path, tmp_path: Path, *, named: bool
) -> None:
    """Whatever the umask; also in a folder that others may enter, which is as the user made it."""
    home = tmp_path / "named" if named else project / ".unitune"
    if named:
        home.mkdir(mode=0o755)
    state = home if named else workspace.home()
    for arguments in (("run", "train.yaml", "--quiet"), ("compare", "compare.yaml")):
        done = command(*arguments, cwd=project, UNITUNE_DIR=str(home) if named else "")
        assert done.returncode == 0, done.stderr
    made = {path.name for folder in (home, state) for path in folder.rglob("*")}
    assert {"ledger.db", "train.jsonl", "job.yaml", "rows.jsonl", "answers.sqlite"} <= made
    assert [*open_to_others(home), *open_to_others(state)] == []
    assert (0o755 if named else 0o700) == home.stat().st_mode & 0o777


def test_so_are_the_files_that_sqlite_puts_beside_the_ledger(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ledger = Ledger(tmp_path / ".unitune")
        with ledger._database.writing():  # pyright: ignore[reportPrivateUsage]
            names = {path.name for path in (tmp_path / ".unitune").iterdir()}
            assert {"ledger.db-wal", "ledger.db-shm"} <= names
            assert list(open_to_others(tmp_path / ".unitune")) == []
    finally:
        os.umask(before)


def test_so_is_what_a_training_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker makes checkpoints and adapters under a umask of its own."""
    monkeypatch.setattr(worker, "subprocess", WARM_SUBPROCESS)
    folder = JobFolder(tmp_path / "job")
    private_folder(folder.path)
    folder.spec.write_text(
        json.dumps({"settings": {"threads": 1, "processes": 1, "shard": False}}), encoding="utf-8"
    )
    folder.spec.chmod(0o600)
    before = os.umask(0)
    try:
        start_worker(folder)
        while folder.result() is None:
            time.sleep(0.05)
    finally:
        os.umask(before)
    assert {"events.jsonl", "result.json"} <= {path.name for path in folder.path.iterdir()}
    assert list(open_to_others(folder.path)) == []


def test_a_report_that_is_asked_for_elsewhere_has_the_usual_mode(project: Path) -> None:
    done = command("compare", "compare.yaml", "--output", "out", cwd=project)
    assert done.returncode == 0, done.stderr
    for name in ("report.html", "rows.jsonl"):
        assert (project / "out" / name).stat().st_mode & 0o777 == 0o666


def launched(project: Path, **how: object) -> subprocess.CompletedProcess[str]:
    return command("run", "train.yaml", "--quiet", cwd=project, **how)  # pyright: ignore[reportArgumentType]


def left_behind(project: Path) -> list[str]:
    return [str(path) for path in project.rglob(".unitune/runs/*")]


def test_a_shared_ledger_that_does_not_answer_leaves_no_rows_behind(project: Path) -> None:
    pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    for _ in range(2):
        done = launched(project, UNITUNE_LEDGER=UNREACHABLE)
        assert done.returncode == 4, done.stderr
    assert left_behind(project) == []
    assert launched(project).returncode == 0


@pytest.mark.parametrize("most_bytes", [4096, 50_000])
def test_a_full_disk_below_the_ledger_leaves_no_rows_behind(project: Path, most_bytes: int) -> None:
    """No file of the process can grow beyond so many bytes."""
    done = launched(project, limits={resource.RLIMIT_FSIZE: most_bytes})
    assert done.returncode == 4, done.stderr
    assert left_behind(project) == []
    assert launched(project).returncode == 0


def test_a_full_disk_below_the_rows_leaves_none_behind(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file is written, the second has no room."""

    @contextmanager
    def replacing_until_full(path: Path) -> Generator[TextIO]:
        if path.name == "validation.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        with replacing(path) as file:
            yield file

    monkeypatch.chdir(project)
    monkeypatch.setattr(run, "replacing", replacing_until_full)
    with pytest.raises(OSError, match="No space"):
        run.launch(Job.load("train.yaml"))
    assert (project / ".unitune" / "runs").is_dir()
    assert left_behind(project) == []


@pytest.mark.parametrize("known", [True, False])
def test_rows_stay_where_the_ledger_may_know_the_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """The answer to a commit can be lost: then the run goes on with its files."""
    monkeypatch.chdir(project)
    add = Ledger.add

    def add_and_lose_the_answer(ledger: Ledger, *given: object, **named: object) -> None:
        if known:
            add(ledger, *given, **named)  # pyright: ignore[reportArgumentType]
        raise Unreachable("gone")

    monkeypatch.setattr(Ledger, "add", add_and_lose_the_answer)
    with pytest.raises(Unreachable):
        run.launch(Job.load("train.yaml"))
    assert (1 if known else 0) == len(left_behind(project))


def empty_database(path: Path) -> bytes:
    """Return a database without a table, as it is before the first one is made."""
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = WAL")
    return path.read_bytes()


@pytest.mark.parametrize("size", [0, 4096])
def test_a_ledger_that_was_lost_is_not_begun_anew_in_silence(project: Path, size: int) -> None:
    """A power cut can leave an empty file, or one with a header alone."""
    assert launched(project).returncode == 0
    home = workspace.home()
    content = empty_database(project / "other.db")[:size]
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (home / name).unlink(missing_ok=True)
    (home / "ledger.db").write_bytes(content)
    before = (home / "ledger.db").read_bytes()
    for arguments in (("runs",), ("run", "train.yaml"), ("deployments",)):
        done = command(*arguments, cwd=project)
        assert done.returncode == 4, done.stderr
        assert str(home / "ledger.db") in done.stderr
        assert "backup" in done.stderr
    assert before == (home / "ledger.db").read_bytes()
    (home / "ledger.db").rename(project / "lost.db")
    assert launched(project).returncode == 0


def test_an_empty_ledger_of_a_first_process_that_died_is_begun_anew(project: Path) -> None:
    state = workspace.home()
    state.mkdir(mode=0o700, parents=True)
    (state / "ledger.db").touch(0o600)
    assert launched(project).returncode == 0
