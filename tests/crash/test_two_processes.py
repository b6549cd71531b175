"""Processes that act for the same job or run at once do not harm each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from crash.killing import jobs_at_the_vendor

LAUNCH = """
import pathlib, sys, time
from unitune.errors import DuplicateRunError
from unitune.job.job import Job
from unitune.run.run import launch
job = Job.load("job.yaml")
pathlib.Path(f"ready-{sys.argv[1]}").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.001)
try:
    print("launched", launch(job).id)
except DuplicateRunError as twin:
    print("twin", twin.run_id)
"""
LAUNCH_ALONE = """
from unitune.job.job import Job
from unitune.run.run import launch
launch(Job.load("job.yaml"))
"""
RESUME_AND_WATCH = """
import pathlib, sys, time
from unitune.run.run import runs
(run,) = runs()
pathlib.Path(f"ready-{sys.argv[1]}").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.001)
run.resume()
print(*[event.key for event in run.watch(0) if event.kind != "message"], run.state)
"""
JOB = """
name: demo
model: tiny
backend: fake
data: {train: rows.jsonl, validation: rows.jsonl}
evaluate: {leaks: allow}
options: {fake: {steps: 8, steps_per_poll: 1, submits: [lose request, lose request]}}
"""
ROW = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def environment(folder: Path) -> dict[str, str]:
    place = {"UNITUNE_DIR": str(folder / "ledger"), "UNITUNE_FAKE_DIR": str(folder / "vendor")}
    return {**os.environ, **place}


def all_at_once(code: str, folder: Path, count: int) -> list[str]:
    """Run the same code in several processes that start together; return what each printed."""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    while len(list(folder.glob("ready-*"))) < count:
        assert not any(process.poll() for process in crowd)
        time.sleep(0.01)
    (folder / "go").touch()
    printed = [process.communicate()[0].strip() for process in crowd]
    assert [process.returncode for process in crowd] == [0] * count
    for file in (*folder.glob("ready-*"), folder / "go"):
        file.unlink()
    return printed


def write_job(folder: Path, text: str) -> None:
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    (folder / "job.yaml").write_text(text, encoding="utf-8")


def test_of_processes_that_launch_the_same_job_at_once_one_does(tmp_path: Path) -> None:
    write_job(tmp_path, JOB.replace("lose request", "none"))
    printed = all_at_once(LAUNCH, tmp_path, 3)
    (launched,) = (line.split()[1] for line in printed if line.startswith("launched"))
    assert sorted(printed) == [f"launched {launched}", *[f"twin {launched}"] * 2]
    assert len(jobs_at_the_vendor(tmp_path)) == 1


def test_processes_that_resume_and_watch_one_run_see_the_same_and_make_one_job(
    tmp_path: Path,
) -> None:
    write_job(tmp_path, JOB)
    interrupted = subprocess.run(
        [sys.executable, "-c", LAUNCH_ALONE],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Unreachable" in interrupted.stderr
    printed = all_at_once(RESUME_AND_WATCH, tmp_path, 3)
    keys = [*[f"step-{step}" for step in range(1, 9)], "validation"]
    for line in printed:
        assert line.split() == [*keys, "succeeded"]
    assert len(jobs_at_the_vendor(tmp_path)) == 1
