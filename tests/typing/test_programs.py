"""The programs beside this file run; pyright checks in strict mode that their types are right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.command_line import ran

PROGRAMS = Path(__file__).parent


@pytest.mark.parametrize(
    "name", ["workflow_types", "client", "notebook", "job_parts", "errors", "deployment"]
)
def test_a_program_runs(name: str, tmp_path: Path, guarded_environment: dict[str, str]) -> None:
    environment = guarded_environment | {"XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-W", "error", PROGRAMS / f"{name}.py"]
    done = ran(command, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
