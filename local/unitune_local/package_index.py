"""One file from a package index: found by the simple API, fetched so that nothing half stays.

`fetch` asks the indexes that pip is configured with in turn, takes the file of exactly the wanted
name, and streams it to disk. The caller's hash decides whether it is the right one. A download that
was cut goes on where it stopped, in this call or the next; a file gets its final name only when its
hash is right.

Not here: choosing versions, dependencies, or anything that runs code of a package.

Source: https://packaging.python.org/en/latest/specifications/simple-repository-api/ (HTML and
JSON), 2026-11-25.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from http import HTTPStatus
from pathlib import Path
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit, urlunsplit

import certifi
import httpx
from pydantic import BaseModel, ValidationError

from unitune.backends.kit.bodies import GZIP_ONLY, BodyError, hooks
from unitune.errors import BackendError, Mismatch, Unreachable
from unitune.security.addresses import NotAnAddress, as_origin, shown
from unitune_local.pip_settings import PipSettings

ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
ATTEMPTS = 4
"""Tries at one file; each goes on where the last one was cut."""
TIMEOUT_SECONDS = 60.0
PAUSE_SECONDS = 0.5
"""Wait after the first cut; longer after each further one."""
CHUNK_BYTES = 1 << 18

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file on a package index.

    Args:
        project: The project's name, normalised.
        name: The file's name.
        sha256: What its content must hash to.
    """

    project: str
    name: str
    sha256: str


class _File(BaseModel):
    """One file in the JSON form of a project's page."""

    filename: str
    url: str
    hashes: dict[str, str] = {}


class _Page(BaseModel):
    """The JSON form of a project's page."""

    files: list[_File]


class _Anchors(HTMLParser):
    """The HTML form of a project's page: each anchor's address, and its text as file name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.files: list[_File] = []
        self._address: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._address = dict(attrs).get("href")

    def handle_data(self, data: str) -> None:
        if self._address and data.strip():
            url, fragment = urldefrag(self._address)
            kind, _, value = fragment.partition("=")
            self.files.append(_File(filename=data.strip(), url=url, hashes={kind: value}))
            self._address = None


def fetch(wanted: WantedFile, target: Path, settings: PipSettings, progress: Progress) -> None:
    """Bring one file from a package index onto this machine.

    Args:
        wanted: Which file.
        target: Where it goes; written only when it is whole and right.
        settings: Which indexes to ask, and how.
        progress: Called with the bytes here and their total (0: unknown).

    Raises:
        Unreachable: No index answered, or the download was cut too often; it goes on next time.
        BackendError: No index has the file, or one refuses.
        Mismatch: The file is there, but is not the one that was pinned.
    """
    for folder in settings.folders:
        if _sha256(folder / wanted.name) == wanted.sha256:
            target.write_bytes((folder / wanted.name).read_bytes())
            return
    url = _find(wanted, settings)
    part = target.with_name(target.name + ".part")
    with _client(url, settings) as client:
        _download(client, url, part, progress)
    found = _sha256(part)
    if found != wanted.sha256:
        part.unlink()
        raise Mismatch(
            f"{wanted.name} from {shown(url)} has SHA-256 {found}, expected {wanted.sha256}: "
            "the file is not the one that was pinned, and was deleted. Try again; if it stays so, "
            "ask whoever runs this package index."
        )
    part.replace(target)


def _find(wanted: WantedFile, settings: PipSettings) -> str:
    """Return the file's address from the first index that has it."""
    failures: list[str] = []
    answered = False
    for index in settings.indexes:
        page = f"{index.rstrip('/')}/{wanted.project}/"
        try:
            files = _files(page, settings)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failures.append(f"{shown(page)}: {_reason(error)}")
            answered |= not isinstance(error, httpx.TransportError)
            continue
        answered = True
        for file in files:
            if file.filename == wanted.name:
                _check_offered(file, wanted, page)
                return _with_credentials(urljoin(page, file.url), page)
        failures.append(f"{shown(page)}: it does not list the file")
    tried = "; ".join(failures) or "pip is configured with no-index"
    hint = "Check the network and pip's index-url, or set PIP_INDEX_URL."
    message = f"cannot get {wanted.name} from a package index ({tried}). {hint}"
    raise BackendError(message) if answered else Unreachable(message)


def _files(page: str, settings: PipSettings) -> list[_File]:
    with _client(page, settings) as client:
        client.event_hooks = hooks()
        try:
            response = client.get(page, headers={"Accept": ACCEPT, **GZIP_ONLY})
        except BodyError as error:
            raise httpx.DecodingError(f"its answer cannot be read: {error}") from error
    if response.status_code == HTTPStatus.NOT_FOUND:
        return []
    response.raise_for_status()
    if "json" not in response.headers.get("content-type", ""):
        return _Anchors(response.text).files
    try:
        return _Page.model_validate_json(response.content).files
    except ValidationError as error:
        raise httpx.DecodingError(f"its answer is no page of the simple API: {error}") from error


def _check_offered(file: _File, wanted: WantedFile, page: str) -> None:
    offered = file.hashes.get("sha256")
    if offered is not None and offered != wanted.sha256:
        raise Mismatch(
            f"{shown(page)} offers a {wanted.name} with SHA-256 {offered}, expected "
            f"{wanted.sha256}: it is not the file that was pinned. Use another package index."
        )


def _download(client: httpx.Client, url: str, part: Path, progress: Progress) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append(client, url, part, progress)
        except httpx.TransportError as error:
            if attempt == ATTEMPTS:
                raise Unreachable(
                    f"the download of {shown(url)} was cut {ATTEMPTS} times ({_reason(error)}); "
                    "what is here is kept, so the next try goes on from there."
                ) from error
            time.sleep(PAUSE_SECONDS * attempt)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BackendError(f"{shown(url)} was not delivered: {_reason(error)}.") from error
        else:
            return


def _append(client: httpx.Client, url: str, part: Path, progress: Progress) -> None:
    """Add to the part what is missing of the file; start over where the server cannot go on."""
    here = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={here}-"} if here else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all bytes are here; the hash says whether they are right
        response.raise_for_status()
        resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
        done = here if resumed else 0
        length = response.headers.get("content-length", "")
        total = done + int(length) if length.isdecimal() else 0
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)


@contextmanager
def _client(url: str, settings: PipSettings) -> Generator[httpx.Client]:
    parts = urlsplit(url)
    trusted = {parts.hostname, parts.netloc.rpartition("@")[2]} & settings.trusted_hosts
    with httpx.Client(
        verify=False if trusted else _certificates(settings),
        proxy=settings.proxy,
        follow_redirects=True,
        timeout=TIMEOUT_SECONDS,
    ) as client:
        yield client


def _certificates(settings: PipSettings) -> ssl.SSLContext:
    """Trust pip's own certificates if set; else the system's (as pip does) and certifi's."""
    if settings.certificates is None:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context
    if Path(settings.certificates).is_dir():
        return ssl.create_default_context(capath=settings.certificates)
    return ssl.create_default_context(cafile=settings.certificates)


def _with_credentials(url: str, page: str) -> str:
    """Keep the index's user and password for files of the same scheme, host and port."""
    index, file = urlsplit(page), urlsplit(url)
    if index.username and not file.username and _origin(index) == _origin(file):
        return urlunsplit(file._replace(netloc=index.netloc))
    return url


def _origin(parts: SplitResult) -> str | None:
    """Return scheme, host and port; None for what is no plain address."""
    try:
        return as_origin(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    except NotAnAddress:
        return None


def _reason(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}"
    if isinstance(error, httpx.TransportError):
        return f"no answer ({str(error) or type(error).__name__})"
    return str(error)


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
