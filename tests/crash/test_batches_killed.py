"""A comparison in batches killed at any step: each batch is paid for once, each row stands once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.warm import warm_run

KILLING = Path(__file__).parent / "batch_killing.py"


def kills(scene: str, steps: str, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    done = warm_run([sys.executable, str(KILLING), scene, steps, str(folder)])
    assert done.returncode == 0, done.stderr
    undisturbed, *seen = [json.loads(line) for line in done.stdout.splitlines()]
    return undisturbed, seen


@pytest.mark.parametrize(
    ("scene", "chosen", "batches", "cancelled"),
    [
        ("changed", "each", 4, 1),
        pytest.param("changed", "all", 4, 1, marks=pytest.mark.slow),
        pytest.param("lost", "all", 3, 0, marks=pytest.mark.slow),
    ],
)
def test_a_comparison_killed_at_any_step_has_one_batch_a_contender_and_the_same_rows(
    scene: str, chosen: str, batches: int, cancelled: int, tmp_path: Path
) -> None:
    undisturbed, seen = kills(scene, chosen, tmp_path)
    assert len(undisturbed["rows"]) == 15
    steps = {step for kill in seen for step in kill["steps"]}
    verbs = {"submit_batch", "find_batch", "poll_batch", "fetch_batch"}
    verbs |= {"announce", "change", "append"}
    verbs |= {"cancel_batch"} if scene == "changed" else set()
    assert steps == {
        "within write",
        *(f"{side} {verb}" for verb in verbs for side in ("before", "after")),
    }
    for kill in (undisturbed, *seen):
        what = f"killed {kill['steps']} (step {kill['at']})" if kill["at"] else "undisturbed"
        assert (batches, cancelled, 0) == (kill["batches"], kill["cancelled"], kill["open"]), what
        assert undisturbed["rows"] == kill["rows"], what
        assert undisturbed["verdict"] == kill["verdict"], what
