"""`unitune run` is killed while it trains; the training goes on, and `watch` takes it up."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")

from support.tiny_model import save_tiny_model, write_rows
from support.warm import WarmPopen, warm_run

from unitune.job.job import Data, Job, Tuning

PATIENCE_SECONDS = 120
COMMAND = [sys.executable, "-m", "unitune"]


def test_watch_follows_the_training_of_a_killed_command(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", 80)
    Job(
        name="killed",
        model=str(save_tiny_model(tmp_path / "model")),
        backend="local",
        data=Data(train="train.jsonl", validation=0.2),
        tuning=Tuning(epochs=10, batch_size=4),
        options={"local": {"threads": 1, "dtype": "float32"}},
        folder=tmp_path,
    ).save(tmp_path / "unitune.yaml")
    environment = {**os.environ, "UNITUNE_DIR": str(tmp_path / "home")}

    command = WarmPopen(
        [*COMMAND, "run", "unitune.yaml", "--quiet"],
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    )
    steps_before = until_it_trains(tmp_path / "home" / "runs", command)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    (run,) = [folder.name for folder in (tmp_path / "home" / "runs").iterdir()]

    watched = warm_run([*COMMAND, "runs", "watch", run, "--json"], cwd=tmp_path, env=environment)
    assert watched.returncode == 0, watched.stderr
    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    steps = [line["data"]["step"] for line in lines if line["kind"] == "step"]
    assert list(range(1, 161)) == steps, "every step once, those before the kill too"
    assert steps_before < len(steps), "killed too late to show anything"
    shown = warm_run([*COMMAND, "runs", "show", run, "--json"], cwd=tmp_path, env=environment)
    assert json.loads(shown.stdout)["state"] == "succeeded"


def until_it_trains(runs: Path, command: WarmPopen) -> int:
    """Wait for the first steps of the only run, and return how many there are."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        assert command.poll() is None, "the command ended before it could be killed"
        for log in runs.glob("*/*/events.jsonl"):
            if steps := log.read_text(encoding="utf-8").count('"kind": "step"'):
                return steps
        time.sleep(0.02)
    raise AssertionError("the training does not start")
