"""Nobody but the user sees the pages, and nobody's page but ours writes a note."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from aiohttp.test_utils import TestServer
from support.command_line import Command
from support.sample_ledger import SampleLedger

from unitune.evaluate.documents.history import history_folder, read_notes
from unitune.ui import app

from .conftest import Visitor

PAGES = ("/runs", "/comparisons", "/deployments", "/style.css", "/script.js", "/nowhere")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_the_token_nothing_is_shown(visit: Visitor, path: str, token: str) -> None:
    answer = visit(path, token=token)
    assert answer.status == 403
    assert "bank-intents" not in answer.text


def test_the_token_of_the_address_becomes_a_cookie_that_scripts_cannot_read(visit: Visitor) -> None:
    answer = visit(f"/?token={visit.access.token}", token="")
    assert (answer.status, answer.headers["Location"]) == (303, "/runs")
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Lax", "unitune-8700="))
    assert visit.access.token not in cookie


def test_a_cookie_whose_bytes_are_no_text_is_refused(visit: Visitor) -> None:
    async def answer() -> bytes:
        async with TestServer(app.application(visit.ledger, visit.access)) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"GET /runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
            writer.write(b"Cookie: unitune-8700=\xff\r\n\r\n")
            line = await reader.readline()
            writer.close()
            return line

    assert asyncio.run(answer()) == b"HTTP/1.1 403 Forbidden\r\n"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8700", "127.0.0.1.evil.example", "127.0.0.1@evil.example"],
)
def test_a_page_whose_own_name_leads_here_is_refused(visit: Visitor, host: str) -> None:
    """DNS rebinding: the browser takes what we serve for that page's own, but names its host."""
    answer = visit("/runs", headers={"Host": host})
    assert answer.status == 403
    assert "bank-intents" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1:9999"])
def test_a_forwarded_port_may_be_another(visit: Visitor, host: str) -> None:
    assert visit("/runs", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "neither of the two"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_no_other_page_writes_a_note(
    visit: Visitor, sample: SampleLedger, headers: dict[str, str]
) -> None:
    comparison = sample.comparison
    form = {"case": comparison.cases[0].id, "text": "forged"}
    answer = visit(f"/comparisons/{comparison.id}/notes", form=form, headers=headers)
    assert answer.status == 403
    assert read_notes(history_folder(comparison.id or "")) == {}


@pytest.mark.parametrize("path", ["/runs", "/nowhere", "/runs/nope", "/style.css"])
@pytest.mark.parametrize("token", [None, ""])
def test_every_response_lets_no_script_but_ours_run_and_no_page_frame_it(
    visit: Visitor, path: str, token: str | None
) -> None:
    headers = visit(path, token=token).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (
        headers["X-Content-Type-Options"],
        headers["Cache-Control"],
    ) == ("nosniff", "no-store")


@pytest.mark.parametrize(
    "path",
    [
        "/runs/..%2f..%2fetc%2fpasswd",
        "/comparisons/..%2fruns",
        "/comparisons/../../etc/passwd",
        "/comparisons/newest",
        "/comparisons/c",
        "/comparisons/%00",
        "/static/style.css",
    ],
)
def test_no_path_comes_out_of_an_address(visit: Visitor, path: str) -> None:
    assert visit(path).status == 404


def test_the_command_listens_on_loopback_alone_and_prints_the_address(
    unitune: Command, served: list[tuple[str, int]]
) -> None:
    done = unitune("ui", "--no-browser")
    ((host, port),) = served
    assert (done.code, host) == (0, "127.0.0.1")
    assert done.out.startswith(f"http://127.0.0.1:{port}/?token=")
    assert "Ctrl-C" in done.err


@pytest.mark.usefixtures("served")
def test_the_command_opens_a_browser_where_there_is_a_screen(
    unitune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other users of the machine see a browser's command line, so it has no token."""
    opened: list[str] = []
    pages: list[tuple[str, int]] = []

    def read(address: str) -> None:
        opened.append(address)
        page = Path(unquote(urlsplit(address).path))
        pages.append((page.read_text(), page.stat().st_mode & 0o777))

    monkeypatch.setattr("webbrowser.open", read)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    unitune("ui")
    assert opened == [], "it may be a text browser, which takes the terminal"
    monkeypatch.setenv("DISPLAY", ":0")
    printed = unitune("ui").out.strip()
    (address,), ((page, mode),) = opened, pages
    assert address.startswith("file:///")
    assert printed.partition("?")[2] not in address
    assert (f'<meta http-equiv="refresh" content="0; url={printed}">', 0o600) == (page, mode)
    assert not Path(unquote(urlsplit(address).path)).exists(), "it goes when the command ends"


def test_a_port_that_is_taken_is_named(unitune: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = unitune("ui", "--no-browser", "--port", str(port))
    assert done.code == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in done.err
