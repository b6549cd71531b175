"""What SDKs would load only because it is installed stays out of memory, and can still be used."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_watching_loads_no_statistics() -> None:
    heavy = "{'numpy', 'scipy', 'unitune.evaluate', 'unitune.ownership'}"
    run(f"import unitune.cli.watch\nassert not {heavy} & set(sys.modules)")
