"""A process killed anywhere in a launch, a cancel or a resume leaves a run that goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.warm import warm_run

from unitune.backends.protocol import Guarantee

KILLING = Path(__file__).parent / "killing.py"
STRIDE = {"launch": 59, "settle": 2, "cancel": 47, "resume": 47, "sweep": 211}
"""Lines between two kills, so that the tests take seconds; 1 kills before every line."""


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
