"""`unitune run` in two processes that torchrun or srun starts trains as in two of our own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")

import psutil
from support.served import wait_until
from support.tiny_model import save_tiny_model, write_rows

from unitune_local.job_folder import JobFolder, read_events

PATIENCE_SECONDS = 600
SPEED = {"tokens_per_second", "seconds_left"}
UNITUNE = ("-m", "unitune")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@dataclass(frozen=True)
class Project:
    """A folder with a job, in which commands are started."""

    folder: Path
    environment: dict[str, str]

    def start(self, launcher: str, *command: str) -> list[subprocess.Popen[bytes]]:
        """Start a command by itself, or in two processes of a launcher."""
        environments = [self.environment]
        if launcher == "srun":
            job = _slurm_job()
            environments = [{**self.environment, **job, **_task(rank)} for rank in (0, 1)]
        start = (*TORCHRUN, *UNITUNE) if launcher == "torchrun" else UNITUNE
        with (self.folder / "log").open("ab") as log:
            return [
                subprocess.Popen(
                    [sys.executable, *start, *command],
                    cwd=self.folder,
                    env=each,
                    stdout=log,
                    stderr=log,
                )
                for each in environments
            ]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    @property
    def training(self) -> JobFolder:
        """The folder of the only training."""
        (spec,) = self.folder.glob("ledger/runs/*/*/spec.json")
        return JobFolder(spec.parent)


def project(folder: Path, environment: dict[str, str], processes: int | None = None) -> Project:
    base = save_tiny_model(folder / "tiny")
    write_rows(folder / "train.jsonl", 80)
    options = {"threads": 1, "dtype": "float32", "checkpoint_every_steps": 3}
    job = {
        "name": "colours",
        "model": str(base),
        "backend": "local",
        "data": {"train": "train.jsonl", "validation": 0.1},
        "tuning": {"epochs": 12, "batch_size": 8},
        "options": {"local": options | ({"processes": processes} if processes else {})},
    }
    (folder / "unitune.yaml").write_text(json.dumps(job), encoding="utf-8")
    return Project(folder, {**environment, "UNITUNE_DIR": str(folder / "ledger")})


@pytest.fixture(scope="module")
def own_figures(
    guarded_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, dict[str, object]]]:
    """Figures of a training in two processes that unitune starts itself."""
    own = project(tmp_path_factory.mktemp("own"), guarded_environment, processes=2)
    (run,) = own.start("unitune", "run", "--quiet")
    assert run.wait(PATIENCE_SECONDS) == 0, own.log
    return figures(own.training)


def _slurm_job() -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "MASTER_PORT": str(port),
    }


def _task(rank: int) -> dict[str, str]:
    return {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}


def figures(folder: JobFolder) -> list[tuple[str, dict[str, object]]]:
    return [
        (event.key, {name: event.data[name] for name in event.data.keys() - SPEED})
        for event in read_events(folder.events, "").events
        if event.kind in ("step", "validation")
    ]


def second_rank(started: list[subprocess.Popen[bytes]]) -> int:
    """Return the process of the second rank: a child of torchrun, or the second task of srun."""
    if len(started) == 2:
        return started[1].pid
    children = psutil.Process(started[0].pid).children()
    return next(each.pid for each in children if each.environ()["RANK"] == "1")


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_launched_ranks_train_as_our_own_and_resume_after_one_is_killed(
    own_figures: list[tuple[str, dict[str, object]]],
    guarded_environment: dict[str, str],
    tmp_path: Path,
    launcher: str,
) -> None:
    launched = project(tmp_path, guarded_environment)
    started = launched.start(launcher, "run", "--quiet")
    wait_until(lambda: any(tmp_path.glob("ledger/runs/*/*/checkpoints/step-*")), PATIENCE_SECONDS)
    os.kill(second_rank(started), signal.SIGKILL)
    codes = [each.wait(PATIENCE_SECONDS) for each in started]
    assert any(codes)
    training = launched.training
    wait_until(lambda: training.interrupted_by() is not None, PATIENCE_SECONDS)
    assert "another process of the training" in (training.interrupted_by() or "")

    resumed = launched.start(launcher, "runs", "resume", "--quiet")
    codes = [each.wait(PATIENCE_SECONDS) for each in resumed]
    assert not any(codes), launched.log
    assert figures(training) == own_figures
    assert not list(training.path.glob("rank-*.log")), "no rank of our own was started"


def test_another_number_of_processes_than_the_training_has_is_refused(
    guarded_environment: dict[str, str], tmp_path: Path
) -> None:
    launched = project(tmp_path, guarded_environment, processes=1)
    first, second = launched.start("srun", "run", "--quiet")
    assert first.wait(PATIENCE_SECONDS) == 2
    assert "the training has 1 processes, and torchrun or srun started 2" in launched.log
    second.kill()
    second.wait()
