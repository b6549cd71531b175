"""What the machine refuses is told with its path and a remedy, and is no bug of ours."""

from __future__ import annotations

import errno
import os
import resource
import sys
from pathlib import Path

import pytest
from support.command_line import Command, ran
from support.job_files import distinct_rows, recorded, write_job, write_rows
from support.warm import warm_run

from unitune.cli.streams import explained, first
from unitune.errors import LockTimeout

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def bug_free(text: str) -> bool:
    return "bug in unitune" not in text and "Traceback" not in text


def test_init_where_a_file_stands_names_it(unitune: Command, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    told = unitune("init", "taken")
    assert told.code == 2
    assert "taken: File exists" in told.err
    assert bug_free(told.err)


@pytest.mark.parametrize("command", [["runs"], ["runs", "show", "r1"], ["deployments"]])
def test_a_file_where_the_folder_of_unitune_should_be(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "taken"))
    told = unitune(*command)
    assert told.code in (2, 4)
    assert "taken" in told.err
    assert bug_free(told.err)


@pytest.mark.parametrize("command", [["runs"], ["init"], ["check", "unitune.yaml"]])
def test_a_folder_that_is_gone(tmp_path: Path, command: list[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; os.rmdir({str(gone)!r}); sys.argv = ['unitune', *{command!r}]; "
    done = ran([sys.executable, "-c", code + "from unitune.main import main; main()"], cwd=gone)
    assert done.returncode in (2, 4), done.stderr
    assert bug_free(done.stderr)


def test_a_full_disk_is_4_and_names_the_place() -> None:
    told = explained(OSError(errno.ENOSPC, "No space left", "/full/report.html"), ["compare"])
    assert told.exit_code == 4
    assert "/full/report.html cannot be written" in str(told)
    assert "a file cannot be written" in str(explained(FULL, []))


def test_a_full_disk_at_the_users_own_path_is_4_too(unitune: Command, tmp_path: Path) -> None:
    row = '{"prompt": "a", "completion": "b"}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    told = unitune("data", "convert", "rows.jsonl", "--to", "openai-chat", "-o", "/dev/full")
    assert told.code == 4
    assert "/dev/full cannot be written: No space left on device" in told.err


def test_a_path_that_the_user_gave_is_2_and_any_other_is_4(tmp_path: Path) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a" / "b"))
    assert explained(refused, ["plan", "-o", str(tmp_path / "a")]).exit_code == 2
    assert explained(refused, ["plan", "unitune.yaml"]).exit_code == 4


def test_of_tasks_that_ended_together_the_machines_error_is_told() -> None:
    assert FULL is first(ExceptionGroup("tasks", [ExceptionGroup("one", [FULL])]))
    assert None is first(ExceptionGroup("tasks", [KeyError("a")]))
    assert isinstance(first(ExceptionGroup("tasks", [LockTimeout("held")])), LockTimeout)


WRITING = [
    ["run", "--quiet"],
    ["plan", "-o", "plan.json"],
    ["compare", "--output", "o"],
    ["init", "new"],
    ["data", "convert", "train.jsonl", "--to", "openai-chat", "-o", "o.jsonl"],
]


@pytest.mark.parametrize("limit", [0, 700])
@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_no_room_anywhere_is_no_verdict_and_no_bug(
    tmp_path: Path, command: list[str], limit: int
) -> None:
    """A limit of the size of files stands for a disk that is full, the temporary folder too."""
    cases = [f"c{number}" for number in range(30)]
    tests = ({"id": case, "prompt": f"{case}?", "completion": "a"} for case in cases)
    write_rows(tmp_path / "train.jsonl", distinct_rows(80))
    write_rows(tmp_path / "test.jsonl", tests)
    write_rows(tmp_path / "answers.jsonl", ({"case": case, "answer": "a"} for case in cases))
    write_job(
        tmp_path,
        data={"train": "train.jsonl", "test": "test.jsonl"},
        options={"fake": {"states": [], "steps": 1}},
        evaluate={"contenders": [recorded("a", "baseline"), recorded("b", "candidate")]},
    )
    words = [sys.executable, "-m", "unitune", *command]
    done = warm_run(words, cwd=tmp_path, limits={resource.RLIMIT_FSIZE: limit})
    assert done.returncode in (2, 4), done.stderr  # 2: it is the user's own folder that is full
    assert bug_free(done.stderr)
