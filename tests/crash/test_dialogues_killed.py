"""`unitune compare` is killed in the middle of dialogues; the next call asks no turn again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import AgentServer, customer_job, refund_job
from support.warm import WarmPopen, warm_run

from unitune.evaluate.inference.journal import read_record
from unitune.job.job import Job
from unitune.testing.loopback import serve

COMMAND = [sys.executable, "-m", "unitune", "compare", "unitune.yaml", "--output", "found"]
TURNS = 20 * 3 + 10 * 2 + 30 * 2  # by `careful`: orders that exist, others; by `hasty`: all
# With a simulated user, `careful` asks first, and each dialogue has one more message at its end
TURNS_WITH_USER = TURNS + 30 + (30 + 30 + 30)
COUNTING = """
from pathlib import Path

def refund(order, amount):
    with Path(__file__).with_name("runs").open("a") as file:
        file.write("x")
    return {"refunded": amount, "serial": Path(__file__).with_name("runs").stat().st_size}
"""


@pytest.mark.parametrize(
    ("make", "turns", "places"),
    [
        (refund_job, TURNS, (12, 45, 75, 100, 125)),
        (customer_job, TURNS_WITH_USER, (12, 40, 62, 75, 100, 125, 150, 177, 200, 222, 255)),
    ],
    ids=["tools", "user"],
)
def test_no_turn_is_asked_twice_and_no_tool_run_twice(
    tmp_path: Path, make: Callable[..., Job], turns: int, places: tuple[int, ...]
) -> None:
    """Killed in different turns; results of tools differ at every run."""
    vendor, found = AgentServer(), tmp_path / "found" / "rows.jsonl"
    environment = {**os.environ, "UNITUNE_DIR": str(tmp_path / "home")}
    with serve(vendor) as server:
        make(tmp_path, f"{server.url}/v1", concurrency=8)
        (tmp_path / "tools.py").write_text(COUNTING)
        for place in places:
            vendor.hold_at = place
            command = WarmPopen(COMMAND, cwd=tmp_path, env=environment, start_new_session=True)
            assert vendor.held.wait(60)
            while len(turns_in(found)) < place:
                time.sleep(0.01)  # the last answers are still on their way to the file
            os.killpg(command.pid, signal.SIGKILL)
            command.wait()
            vendor.revive()
            assert vendor.seen.total() == place
        done = warm_run(COMMAND, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    assert vendor.seen.total() == turns
    assert set(vendor.seen.values()) == {1}
    assert {"careful", "hasty"} <= set(vendor.lost)
    assert ("customer" in vendor.lost) == (make is customer_job)
    assert len((tmp_path / "runs").read_text()) == 20 + 30
    assert len(turns_in(found)) == turns


def turns_in(file: Path) -> set[tuple[str, str, str]]:
    """Return the recorded turns, without a line that is being written."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return {(each.contender, each.case, each.request_hash) for each in map(read_record, lines)}
