"""A process killed anywhere in a launch, a cancel or a resume leaves a run that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.warm import warm_run

from unitune.backends.protocol import Guarantee

KILLING = Path(__file__).parent / "killing.py"
STRIDE = {"launch": 59, "settle": 2, "cancel": 47, "resume": 47, "sweep": 211}
"""Lines between two kills, so that the tests take seconds; 1 kills before every line."""

LAUNCH_AND_DIE = """
import sys
from unitune.job.job import Job
from unitune.run.run import launch
launch(Job.load(sys.argv[1]))
"""
RESUME = """
import sys
from unitune.run.run import runs
(run,) = runs()
before = str(run.state)
run.resume().wait(0)
print(before, run.state, run.attempt)
"""
JOB = """
name: demo
model: tiny
backend: fake
data: {{train: rows.jsonl, validation: rows.jsonl}}
evaluate: {{leaks: allow}}
options: {{fake: {{submits: [{fault}]}}}}
"""
ROW = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def kill_at_many_lines(guarantee: str, verb: str, folder: Path) -> list[dict[str, Any]]:
    done = warm_run([sys.executable, str(KILLING), guarantee, verb, str(STRIDE[verb]), str(folder)])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "guarantee",
    [Guarantee.FINDABLE]
    + [
        pytest.param(each, marks=pytest.mark.slow)  # of vendors: test_hosted_killed.py, contracts
        for each in Guarantee
        if each is not Guarantee.FINDABLE
    ],
)
def test_a_launch_killed_at_any_line_ends_with_exactly_one_job(
    guarantee: Guarantee, tmp_path: Path
) -> None:
    kills = kill_at_many_lines(guarantee, "launch", tmp_path)
    assert len(kills) >= 8
    left = {state for kill in kills for state in (kill["left"] or ["nothing"])}
    assert {"nothing", "uploading", "submitting"} <= left
    assert [kill for kill in kills if (kill["jobs"], kill["end"]) != (1, "succeeded")] == []


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", [Guarantee.FINDABLE, Guarantee.SUFFIX_ONLY])
def test_a_launch_killed_while_it_searches_for_the_job_of_an_unanswered_call_ends_with_that_job(
    guarantee: Guarantee, tmp_path: Path
) -> None:
    kills = kill_at_many_lines(guarantee, "settle", tmp_path)
    assert len(kills) >= 10
    left = [(kill["left"] or ["nothing"])[0] for kill in kills]
    assert left.count("submitting") >= 8
    assert {"nothing", "uploading", "submitting"} >= {*left[:8]}
    assert [kill for kill in kills if (kill["jobs"], kill["end"]) != (1, "succeeded")] == []


@pytest.mark.parametrize(("verb", "end"), [("cancel", "cancelled"), ("resume", "succeeded")])
def test_a_cancel_or_resume_killed_at_any_line_can_be_repeated(
    verb: str, end: str, tmp_path: Path
) -> None:
    kills = kill_at_many_lines(Guarantee.OWN_ID, verb, tmp_path)
    assert len(kills) >= 3
    assert [kill for kill in kills if (kill["jobs"], kill["end"]) != (1, end)] == []


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", [Guarantee.FINDABLE, Guarantee.OWN_ID])
def test_a_sweep_killed_at_any_line_launches_each_of_its_runs_once(
    guarantee: Guarantee, tmp_path: Path
) -> None:
    kills = kill_at_many_lines(guarantee, "sweep", tmp_path)
    assert len(kills) >= 8
    between = [kill for kill in kills if len(kill["left"]) >= 1]
    assert {len(kill["left"]) for kill in between} == {1, 2}
    assert [kill for kill in kills if (kill["jobs"], kill["end"]) != (2, "succeeded")] == []


@pytest.mark.parametrize("fault", ["die before", "die after"])
def test_a_process_killed_within_the_create_call_is_continued_by_another(
    fault: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    (tmp_path / "job.yaml").write_text(JOB.format(fault=fault), encoding="utf-8")
    place = {"UNITUNE_DIR": str(tmp_path / "ledger"), "UNITUNE_FAKE_DIR": str(tmp_path / "vendor")}
    environment = {**os.environ, **place}
    first = subprocess.run(
        [sys.executable, "-c", LAUNCH_AND_DIE, "job.yaml"],
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert first.returncode == -signal.SIGKILL
    second = subprocess.run(
        [sys.executable, "-c", RESUME],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert second.stdout.strip() == "submitting succeeded 1"
    assert len(list((tmp_path / "vendor").glob("*/job.json"))) == 1
