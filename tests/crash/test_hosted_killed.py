"""Kill -9 at every journalled step of a launch, on every backend and both ledgers.

Each row of `benchmarks/kill_table.py`, in a process of its own: its forks must find no threads but
those of the vendor's server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from crash.postgres import the_server

TABLE = Path(__file__).parents[2] / "benchmarks" / "kill_table.py"
SDKS = {
    "openai": "openai",
    "together": "together",
    "vertex": "google.genai",
    "bedrock": "boto3",
    "local": "torch",
    "fake": "unitune",
}
"""What each backend needs to be imported."""


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest) -> str:
    if request.param == "postgresql":
        the_server()  # skips where there is none
    return request.param


@cache
def kills(backend: str, ledger: str, act: str) -> list[dict[str, Any]]:
    pytest.importorskip(SDKS[backend], reason=f"needs the extra `{backend}`")
    command = [sys.executable, str(TABLE), "--json", "--backend", backend]
    done = subprocess.run(
        [*command, "--ledger", ledger, "--act", act], capture_output=True, text=True, check=False
    )
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert 0 == done.returncode, done.stdout + done.stderr
    return seen


def values(seen: list[dict[str, Any]], key: str) -> set[object]:
    return {kill["outcome"][key] for kill in seen}


@pytest.mark.parametrize("backend", SDKS)
def test_a_launch_killed_at_any_step_has_one_job_that_its_run_knows(
    backend: str, ledger: str
) -> None:
    seen = kills(backend, ledger, "launch")
    held = [kill for kill in seen if kill["verdict"] == "uncertain"]
    settled = [kill for kill in seen if kill["verdict"] == "one job"]
    assert len(seen) == len(held) + len(settled)
    assert {1} == values(settled, "jobs")
    assert {True} == values(settled, "known")
    assert {0 if backend == "local" else 2} == values(seen, "files"), "each file once"
    assert {"", "planned", "uploading", "submitting", "queued"} == values(seen, "left")
    if backend != "together":
        assert [] == held
        return
    # A suffix is all that carries the key, so a call that was announced may have been sent.
    assert 2 == len(held)
    assert {"submitting"} == values(held, "left")
    assert {0} == values(held, "jobs")


@pytest.mark.parametrize("backend", SDKS)
def test_a_job_whose_answer_was_never_written_down_is_adopted(backend: str, ledger: str) -> None:
    (kill,) = [kill for kill in kills(backend, ledger, "launch") if "after submit" in str(kill)]
    assert ("submitting", 1) == (kill["outcome"]["left"], kill["outcome"]["jobs"])
    assert kill["outcome"]["known"]


def test_a_cancel_killed_at_any_step_ends_the_only_job(ledger: str) -> None:
    seen = kills("openai", ledger, "cancel")
    assert {"cancelled"} == values(seen, "state")
    assert {1} == values(seen, "jobs")
    assert {"queued", "cancelling"} <= values(seen, "left")


def test_a_delete_killed_at_any_step_can_be_done_again(ledger: str) -> None:
    seen = kills("openai", ledger, "delete")
    assert {"deleted"} == values(seen, "state")
    assert {0} == values(seen, "files")
    assert {"", "cancelled"} == values(seen, "left")
