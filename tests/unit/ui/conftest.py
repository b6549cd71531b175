from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer
from support.html_pages import Page
from support.sample_ledger import SampleLedger, fill

from unitune.evaluate.review.queue import Review
from unitune.ledger import Ledger
from unitune.ui import app
from unitune.ui.app import Access, application


@dataclass(frozen=True)
class Answer:
    """What a server has answered."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def words(self) -> str:
        """The text that a reader sees, without markup."""
        return Page(self.text).text


class Visitor:
    """Sends single requests to the pages of a ledger, each to a server of its own."""

    def __init__(self, ledger: Ledger, review: Review | None = None) -> None:
        self.ledger = ledger
        self.review = review
        self.access = Access(8700)

    def __call__(
        self,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Answer:
        """Return the answer to a request; one with a form is a POST, as from a page of ours.

        Args:
            path: With its query.
            form: Its fields.
            headers: In place of a browser's own.
            token: To enter with; by default the right one, empty: none.
        """
        return asyncio.run(self._send(path, form, headers, token))

    async def _send(
        self,
        path: str,
        form: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        token: str | None,
    ) -> Answer:
        server = TestServer(application(self.ledger, self.access, self.review))
        async with TestClient(server, cookie_jar=CookieJar(unsafe=True)) as client:
            if token != "":
                entrance = f"/?token={token or self.access.token}"
                await client.get(entrance, allow_redirects=False)
            own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
            given = {
                name: value.format(port=server.port) for name, value in (headers or own).items()
            }
            method = "GET" if form is None else "POST"
            sent = client.request(method, path, data=form, headers=given, allow_redirects=False)
            async with sent as response:
                return Answer(response.status, response.headers, await response.text())


Visit = Callable[..., Answer]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleLedger]:
    """The sample ledger, which the tests of a module share."""
    folder = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_DIR", str(folder / "home"))
        yield fill(folder)


@pytest.fixture
def visit(sample: SampleLedger) -> Visitor:
    return Visitor(sample.ledger)


@pytest.fixture
def home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder of one test's own."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Addresses that commands have listened at, without serving anything."""
    addresses: list[tuple[str, int]] = []

    def run_app(_app: object, *, sock: socket.socket, **_: object) -> None:
        addresses.append(sock.getsockname())

    monkeypatch.setattr(app.web, "run_app", run_app)
    return addresses
