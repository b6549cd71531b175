"""What SDKs would load only because it is installed stays out of memory, and can still be used."""

from __future__ import annotations

import subprocess
import sys

import pytest

AFTER = "assert 'aiohttp' not in sys.modules; import aiohttp; aiohttp.ClientSession"
COMMAND = """
from unitune.cli.main import main
sys.argv = ["unitune", "--version"]
try:
    main()
except SystemExit:
    pass
"""


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


def test_openai_comes_without_aiohttp_in_a_command() -> None:
    pytest.importorskip("openai", reason="needs the extra openai")
    run(f"{COMMAND}\nimport unitune_providers.openai.backend\n{AFTER}")


def test_openai_keeps_its_client_for_aiohttp_where_unitune_is_a_library() -> None:
    pytest.importorskip("openai", reason="needs the extra openai")
    run("import unitune_providers.openai.backend, openai\nopenai.DefaultAioHttpClient()")


def test_httpx_comes_without_its_command_line_in_a_command() -> None:
    run(f"{COMMAND}\nimport httpx\nassert not sys.modules['httpx._main'] and httpx.Client")


def test_watching_loads_no_statistics() -> None:
    heavy = "{'numpy', 'scipy', 'unitune.evaluate', 'unitune.tco'}"
    run(f"import unitune.cli.following\nassert not {heavy} & set(sys.modules)")
