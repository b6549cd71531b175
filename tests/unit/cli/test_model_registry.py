"""`unitune models`, `promote`, `rollback`, `unalias`, `verify`: what they print, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import Command
from support.trained_runs import IMPROVE, change_answers, trained, triage_job

from unitune.evaluate.compare import compare
from unitune.job.job import Job
from unitune.run.run import Run


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job with a gate, in the current folder, at the fake vendor."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.setenv("UNITUNE_USER", "ana")
    monkeypatch.chdir(tmp_path)
    made = triage_job(50, IMPROVE)
    made.save(tmp_path / "unitune.yaml")
    return made


@pytest.fixture
def run(job: Job) -> Run:
    """A run that has passed its gate."""
    passed = trained(job)
    compare(job, passed)
    return passed


def test_a_run_is_promoted_and_shown_by_its_version(unitune: Command, run: Run) -> None:
    done = unitune("models", "promote", run.id[:12], "--as", "production")
    assert done.code == 0
    assert "triage@production points to version 1 (gate of c2" in done.out
    assert "triage:1, triage@production" in unitune("runs", "show", "triage@production").out
    told = json.loads(unitune("models", "triage", "--json").out)
    assert told["aliases"] == {"production": 1}
    (version,) = told["versions"]
    assert (run.id, 0, "no charge") == (version["run"], version["gate"]["gate"], version["cost"])
    assert told["moves"][0]["verdict_sha256"] == version["gate"]["verdict_sha256"]


@pytest.mark.parametrize(
    ("threshold", "code"), [(0.99, 1), (0.8, 3)], ids=["on evidence", "inconclusive"]
)
def test_a_refused_promotion_exits_as_the_gate_does(
    unitune: Command, job: Job, run: Run, threshold: float, code: int
) -> None:
    gate = {"mode": "absolute", "threshold": threshold}
    assert code == compare(triage_job(50, gate), run).exit_code
    refused = unitune("models", "promote", run.id, "--as", "production")
    assert code == refused.code
    assert "has not passed the gate of comparison c2" in " ".join(refused.err.split())
    assert "No registered models yet" in unitune("models").out
    assert unitune("models", "promote", trained(job).id, "--as", "production").code == 2


def test_a_registered_version_needs_no_alias(unitune: Command, run: Run) -> None:
    assert unitune("models", "register", run.id).out == f"triage:1 is the model of run {run.id}.\n"
    assert "triage     " in unitune("models").out
    assert run.id == json.loads(unitune("runs", "show", "triage:1", "--json").out)["id"]


def test_back_and_away(unitune: Command, run: Run) -> None:
    other = trained(triage_job(41))
    unitune("models", "promote", run.id, "--as", "production")
    unitune("models", "promote", other.id, "--as", "production", "--without-gate", "ticket 812")
    done = unitune("models", "rollback", "triage@production", "--reason", "wrong tone")
    assert (
        done.out
        == "triage@production points to version 1, no longer to 2 (rollback: wrong tone).\n"
    )
    again = unitune("models", "rollback", "triage@production")
    assert (again.code, "no former version" in again.err) == (2, True)
    moved = unitune("models", "triage").out
    assert "without a gate: ticket 812" in moved
    kept = unitune("runs", "delete", run.id, "--yes")
    assert (kept.code, "while triage@production points" in " ".join(kept.err.split())) == (2, True)
    assert "which pointed to version 1" in unitune("models", "unalias", "triage@production").out
    gone = unitune("runs", "show", "triage@production")
    assert (gone.code, "no alias 'triage@production'" in gone.err) == (2, True)


def test_a_verification_exits_as_the_gate_does_and_says_what_was_lost(
    unitune: Command, run: Run
) -> None:
    unitune("models", "promote", run.id, "--as", "production")
    same = unitune("models", "verify", "triage@production", "unitune.yaml", "--quiet")
    assert same.code == 0
    assert "0 cases gained, 0 lost: not clearly different." in " ".join(same.out.split())
    change_answers(run, 10)
    drifted = unitune("models", "verify", "triage@production", "unitune.yaml", "--quiet")
    assert drifted.code == 1
    assert "0 cases gained, 40 lost: worse." in " ".join(drifted.out.split())
    told = json.loads(unitune("models", "verify", "triage:1", "--json").out)
    assert (
        *(told["exit_code"], told["version"]),
        len(told["change"]["paired"]["lost"]),
    ) == (1, "triage:1", 40)
    assert "cases" not in told["comparison"]
