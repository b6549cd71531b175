"""Kill -9 at every journalled step of a launch, on each kind of backend and both ledgers.

The other backends and the rest of the product are exhaustive. Each row of
`benchmarks/kill_table.py` runs in a process of its own: its forks must find no threads but
those of the vendor's server.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from crash.postgres import STORES, the_server
from support.warm import warm_run

TABLE = Path(__file__).parents[2] / "benchmarks" / "kill_table.py"
SDKS = {
    "openai": "unitune",
    "azure": "unitune",
    "nebius": "unitune",
    "together": "unitune",
    "fireworks": "unitune",
    "vertex": "google.auth",
    "bedrock": "boto3",
    "ray": "fsspec",
    "hf-jobs": "huggingface_hub",
    "skypilot": "fsspec",
    "local": "torch",
    "fake": "unitune",
}
"""What each backend needs to be imported."""


REPRESENTATIVE = {("together", "sqlite"), ("fake", "postgresql")}
"""Found by a suffix alone, and the other ledger; the contract kills launches at each backend."""


PRODUCT = [
    pytest.param(
        *pair, marks=[] if pair in REPRESENTATIVE else pytest.mark.exhaustive, id="-".join(pair)
    )
    for pair in itertools.product(SDKS, STORES)
]


def kills(backend: str, ledger: str, act: str) -> list[dict[str, Any]]:
    pytest.importorskip(SDKS[backend], reason=f"needs the extra `{backend}`")
    if ledger == "postgresql":
        the_server()  # skips where there is none
    command = [sys.executable, str(TABLE), "--json", "--backend", backend]
    done = warm_run([*command, "--ledger", ledger, "--act", act])
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    return seen


def values(seen: list[dict[str, Any]], key: str) -> set[object]:
    return {kill["outcome"][key] for kill in seen}


@pytest.mark.parametrize(("backend", "ledger"), PRODUCT)
def test_a_launch_killed_at_any_step_has_one_job_that_its_run_knows(
    backend: str, ledger: str
) -> None:
    seen = kills(backend, ledger, "launch")
    held = [kill for kill in seen if kill["verdict"] == "uncertain"]
    settled = [kill for kill in seen if kill["verdict"] == "one job"]
    assert len(seen) == len(held) + len(settled)
    assert values(settled, "jobs") == {1}
    assert values(settled, "known") == {True}
    assert values(seen, "files") == {0 if backend == "local" else 2}, "each file once"
    assert values(seen, "left") == {"", "planned", "uploading", "submitting", "queued"}
    (unwritten,) = [kill for kill in seen if "after submit" in str(kill)]
    assert (unwritten["outcome"]["left"], unwritten["outcome"]["jobs"]) == ("submitting", 1)
    assert unwritten["outcome"]["known"], "a job whose answer was never written down is adopted"
    if backend not in ("together", "nebius"):
        assert held == []
        return
    # A suffix is all that carries the key, so a call that was announced may have been sent.
    assert len(held) == 2
    assert values(held, "left") == {"submitting"}
    assert values(held, "jobs") == {0}


BOTH_LEDGERS = [
    pytest.param("sqlite", marks=pytest.mark.slow),
    pytest.param("postgresql", marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("ledger", BOTH_LEDGERS)
def test_a_cancel_killed_at_any_step_ends_the_only_job(ledger: str) -> None:
    seen = kills("openai", ledger, "cancel")
    assert values(seen, "state") == {"cancelled"}
    assert values(seen, "jobs") == {1}
    assert {"queued", "cancelling"} <= values(seen, "left")


@pytest.mark.parametrize("ledger", BOTH_LEDGERS)
def test_a_delete_killed_at_any_step_can_be_done_again(ledger: str) -> None:
    seen = kills("openai", ledger, "delete")
    assert values(seen, "state") == {"deleted"}
    assert values(seen, "files") == {0}
    assert values(seen, "left") == {"", "cancelled"}
