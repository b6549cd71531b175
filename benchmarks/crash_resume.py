"""Kill the worker at random steps, resume it, and compare losses with an undisturbed run.

    python benchmarks/crash_resume.py TRAIN [--model NAME] [--rows 96] [--kills 5] [--seed 0]
                                            [--tuning JSON] [--method sft]

TRAIN is a file of canonical JSON Lines. Its first rows are trained on twice, once undisturbed and
once with kill -9 and a resume at random steps. Losses, gradient norms, adapters, the kept step and
the reason for the end must be equal; the exit code is then 0. An early end at the best step:

    --tuning '{"epochs": 20, "evaluate_every": 3, "learning_rate": 0.003,
               "early_stopping": {"patience": 2}}'
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from unitune.backends.protocol import Launch, State, Status
from unitune.job.job import Data, Job, Tuning
from unitune_local.backend import LocalBackend
from unitune_local.job_folder import JobFolder
from unitune_local.models.adapter import WEIGHTS
from unitune_local.models.model_folder import sha256

BACKEND = LocalBackend()


def launch_in(folder: Path, rows: list[str], given: argparse.Namespace) -> Launch:
    """Write rows into a run's folder, and return the launch."""
    held_out = max(8, len(rows) // 10)
    files = {"train.jsonl": rows[held_out:], "validation.jsonl": rows[:held_out]}
    uploads = []
    for name, lines in files.items():
        file = folder / name
        file.write_text("".join(lines), encoding="utf-8")
        uploads.append(BACKEND.upload(file, hashlib.sha256(file.read_bytes()).hexdigest()))
    job = Job(
        name="crash",
        model=given.model,
        backend="local",
        method=given.method,
        data=Data(train="train.jsonl"),
        tuning=Tuning.model_validate({"epochs": 2, "batch_size": 8} | json.loads(given.tuning)),
        options={"local": {"checkpoint_every_steps": 2}},
    )
    return Launch("run-1", job, *uploads, folder)


def follow(job_id: str, reached: Callable[[Status], bool]) -> Status:
    """Poll until a status is reached."""
    while not reached(status := BACKEND.poll(job_id, "")):
        time.sleep(0.2)
    return status


def steps_of(status: Status) -> int:
    """Return the number of steps reported."""
    return sum(event.kind == "step" for event in status.events)


def kill_worker(job_id: str) -> None:
    """Kill the worker of a job, and wait until it is gone."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "unitune_local.training.worker" in command and job_id in command:
            os.kill(process.pid, signal.SIGKILL)
    follow(job_id, lambda status: status.state is State.PAUSED)


def figures(status: Status) -> dict[str, object]:
    """Return loss and gradient norm by event, and how the training ended."""
    losses: dict[str, object] = {
        event.key: (event.data["loss"], event.data.get("grad_norm"))
        for event in status.events
        if "loss" in event.data
    }
    ends = [event.data["text"] for event in status.events if "kept_step" in event.data]
    return losses | {f"end {number}": text for number, text in enumerate(ends)}


def main() -> int:
    """Train twice, compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tuning", default="{}", help="as in a job file, as JSON")
    parser.add_argument("--method", default="sft")
    given = parser.parse_args()
    rows = given.train.read_text(encoding="utf-8").splitlines(keepends=True)[: given.rows]

    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as killed:
        first = BACKEND.submit(launch_in(Path(whole), rows, given))
        expected = follow(first, lambda status: status.state.ended)
        steps = steps_of(expected)
        draw = random.Random(given.seed)
        stops = sorted(draw.sample(range(1, steps), given.kills))
        second = BACKEND.submit(launch_in(Path(killed), rows, given))
        for stop in stops:
            follow(second, lambda status, stop=stop: steps_of(status) >= stop)
            kill_worker(second)
            BACKEND.resume(second)
        actual = follow(second, lambda status: status.state.ended)

        settings = JobFolder(Path(second)).spec.read_text(encoding="utf-8")
        warnings = [event.data for event in actual.events if event.kind == "warning"]
        adapters = [sha256(JobFolder(Path(job)).adapter / WEIGHTS) for job in (first, second)]
        same = figures(expected) == figures(actual) and len(set(adapters)) == 1 and not warnings
        states = f"{expected.state}, {actual.state}"
        print(f"{steps} steps, killed -9 at {stops}; states {states}")
        print(f"dtype {'bfloat16' if 'bfloat16' in settings else 'float32'}; warnings: {warnings}")
        differing = [
            key for key, value in figures(expected).items() if figures(actual).get(key) != value
        ]
        print(
            f"adapters equal: {len(set(adapters)) == 1}; figures that differ: {differing or 'none'}"
        )
        print(f"{len(figures(expected))} figures and the adapter, equal value for value: {same}")
        print(*(text for text in figures(expected).values() if isinstance(text, str)), sep="\n")
    return 0 if same and actual.state is State.SUCCEEDED else 1


if __name__ == "__main__":
    raise SystemExit(main())
