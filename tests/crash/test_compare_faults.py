"""Comparisons under faults and kills: the benchmark's table, small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
FAULTS = Path(__file__).parents[2] / "benchmarks" / "harnesses" / "faults.py"


def test_no_row_is_lost_no_question_repeated_and_every_exit_code_is_right(
    guarded_environment: dict[str, str],
) -> None:
    done = subprocess.run(
        [sys.executable, FAULTS, "--cases", "200", "--kills", "2"],
        env=guarded_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" kept\n") == 8
