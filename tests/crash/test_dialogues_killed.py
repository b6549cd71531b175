"""`unitune compare` is killed in the middle of dialogues; the next call asks no turn again."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from support.agents import AgentServer, refund_job
from support.warm import WarmPopen, warm_run

from unitune.evaluate.inference.journal import read_record
from unitune.testing.loopback import serve

COMMAND = [sys.executable, "-m", "unitune", "compare", "unitune.yaml", "--output", "found"]
TURNS = 20 * 3 + 10 * 2 + 30 * 2  # by `careful`: orders that exist, others; by `hasty`: all
COUNTING = """
from pathlib import Path

def refund(order, amount):
    with Path(__file__).with_name("runs").open("a") as file:
        file.write("x")
    return {"refunded": amount, "serial": Path(__file__).with_name("runs").stat().st_size}
"""


def test_no_turn_is_asked_twice_and_no_tool_run_twice(tmp_path: Path) -> None:
    """Killed at the first, second and third turn; results of tools differ at every run."""
    vendor, found = AgentServer(), tmp_path / "found" / "rows.jsonl"
    environment = {**os.environ, "UNITUNE_DIR": str(tmp_path / "home")}
    with serve(vendor) as server:
        refund_job(tmp_path, f"{server.url}/v1", concurrency=8)
        (tmp_path / "tools.py").write_text(COUNTING)
        for place in (12, 45, 75, 100, 125):
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
    assert vendor.seen.total() == TURNS
    assert set(vendor.seen.values()) == {1}
    assert len((tmp_path / "runs").read_text()) == 20 + 30
    assert len(turns_in(found)) == TURNS


def turns_in(file: Path) -> set[tuple[str, str, str]]:
    """Return the recorded turns, without a line that is being written."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return {(each.contender, each.case, each.request_hash) for each in map(read_record, lines)}
