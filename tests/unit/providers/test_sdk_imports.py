"""What SDKs would load only because it is installed stays out of memory, and can still be used."""

from __future__ import annotations

import subprocess
import sys

import pytest

AFTER = "assert 'aiohttp' not in sys.modules; import aiohttp; aiohttp.ClientSession"


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr


def test_google_genai_comes_without_aiohttp() -> None:
    pytest.importorskip("google.genai", reason="needs the extra vertex")
    run(f"import unitune_providers.vertex.backend\n{AFTER}")


def test_aiohttp_that_is_loaded_already_stays() -> None:
    pytest.importorskip("google.genai", reason="needs the extra vertex")
    run(
        "import aiohttp, unitune_providers.vertex.backend\nassert sys.modules['aiohttp'] is aiohttp"
    )


def test_watching_loads_no_statistics() -> None:
    heavy = "{'numpy', 'scipy', 'unitune.evaluate', 'unitune.tco'}"
    run(f"import unitune.cli.watch\nassert not {heavy} & set(sys.modules)")
