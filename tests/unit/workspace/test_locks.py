from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unitune.errors import LockTimeout
from unitune.workspace.own_files import is_locked, locked

HOLD = """
import pathlib, sys
from unitune.workspace.own_files import locked
with locked(pathlib.Path(sys.argv[1]), "the thing"):
    print(flush=True)
    sys.stdin.readline()
"""


def test_a_second_holder_waits_and_is_then_told(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with locked(file, "the thing"):
        assert is_locked(file)
        with (
            pytest.raises(LockTimeout, match="the thing"),
            locked(file, "the thing", wait_seconds=0.05),
        ):
            pass
    assert not is_locked(file)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_locked(file)
        holder.kill()
    with locked(file, "the thing", wait_seconds=5):
        assert is_locked(file)


def test_looking_at_a_lock_makes_no_file(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()
