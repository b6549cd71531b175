"""The worker without a ledger of the how-to about Slurm, with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("fsspec", reason="needs the extra `hf-jobs`")

from support.command_line import ran
from support.tiny_model import write_rows

pytestmark = pytest.mark.heavy
PAGE = Path(__file__).parents[2] / "docs/how-to/tune-with-slurm.md"


def test_a_worker_under_slurm_trains_once(
    tmp_path: Path, tiny_default: Path, guarded_environment: dict[str, str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (script,) = re.findall(r'title="worker.sbatch"\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, command in (("srun", 'exec "$@"'), ("python", f'exec {sys.executable} "$@"')):
        (commands / name).write_text(f"#!/bin/bash\n{command}\n", encoding="utf-8")
        (commands / name).chmod(0o700)
    write_rows(tmp_path / "train.jsonl", 24)
    (tmp_path / "worker.sbatch").write_text(script, encoding="utf-8")
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    environment = {**guarded_environment, "UNITUNE_CACHE": str(tiny_default), "PATH": path}

    def run(*command: str, **variables: str) -> str:
        done = ran(command, cwd=tmp_path, env={**environment, **variables})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-c", program)
    run("bash", "worker.sbatch", SLURM_JOB_ID="1")
    job = tmp_path / "shared" / "jobs" / "triage-1"
    assert (job / "adapter" / "adapter_model.safetensors").exists()
    events = [each.read_text("utf-8") for each in (job / "events").iterdir()]
    run("bash", "worker.sbatch", SLURM_JOB_ID="1")  # requeued after its end
    assert "job 1 trains by the launch triage-1" in run("bash", "worker.sbatch", SLURM_JOB_ID="2")
    assert [each.read_text("utf-8") for each in (job / "events").iterdir()] == events
