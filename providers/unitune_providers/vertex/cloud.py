"""Reaching Google Cloud: who calls, in which project and location, through which client.

Settings come from the environment alone: ``GOOGLE_CLOUD_PROJECT``, ``GOOGLE_CLOUD_LOCATION``,
``UNITUNE_VERTEX_BUCKET``, and credentials as google-auth finds them. ``UNITUNE_VERTEX_BASE_URL``
and ``STORAGE_EMULATOR_HOST`` lead to another server; one on this machine is a stand-in for tests
and gets a fixed token, never real credentials.

A resource's name holds its location, so a job or model of another location than the configured one
is asked there. Not here: what is asked (`vertex`), and what failures mean (`vertex_errors`).
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict, Unpack, cast
from urllib.parse import urlsplit

import google.auth
import httpx2
from google import genai
from google.auth.credentials import Credentials
from google.genai import types
from google.oauth2.credentials import Credentials as TokenCredentials

from unitune.backends.credentials import environment_address
from unitune.errors import UserError
from unitune_providers.vertex.errors import vendor_errors

if TYPE_CHECKING:
    from google.auth.transport.requests import AuthorizedSession

if find_spec("google.cloud.storage") is None:  # imported late, but missed before a launch begins
    raise ModuleNotFoundError("No module named 'google.cloud.storage'", name="google.cloud.storage")

_found = cast("Callable[..., tuple[Credentials, str | None]]", google.auth.default)  # pyright: ignore[reportUnknownMemberType] - half typed

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
STAND_IN_TOKEN = "loopback"  # noqa: S105 - no secret: only servers on this machine get it
MULTI_REGIONS = ("us", "eu")
"""Locations with a host name of another form (google-genai 3.6.1, `_api_client`)."""


class Patience(NamedTuple):
    """How long Google Cloud is waited for.

    Args:
        request_seconds: For one answer.
        attempts: Of a request that may be repeated, in all.
        first_wait_seconds: Before the second attempt; it doubles.
        storage_seconds: For one storage operation with all its attempts.
        operation_seconds: For a deletion that goes on after its answer.
        look_seconds: Between two looks at such a deletion.
    """

    request_seconds: float = 120.0
    attempts: int = 3
    first_wait_seconds: float = 0.5
    storage_seconds: float = 300.0
    operation_seconds: float = 600.0
    look_seconds: float = 2.0

    @property
    def storage(self) -> Waits:
        """For storage operations; each may be repeated, since none changes what is there."""
        from google.cloud.storage.retry import (  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - as in `Cloud`; it has none
            DEFAULT_RETRY,
        )

        again = cast("Any", DEFAULT_RETRY).with_timeout(self.storage_seconds)
        again = again.with_delay(initial=self.first_wait_seconds)
        return {"timeout": self.request_seconds, "retry": again}

    @property
    def retries(self) -> types.HttpOptions:
        """For requests that change nothing; a create call goes without."""
        again = types.HttpRetryOptions(
            attempts=self.attempts, initial_delay=self.first_wait_seconds, max_delay=8.0
        )
        return types.HttpOptions(retry_options=again)


PATIENCE = Patience()


class Waits(TypedDict):
    """How one storage operation is waited for, as its package takes it."""

    timeout: float
    retry: object


class Blob(Protocol):
    """What is used of an object in Cloud Storage; its package has no types."""

    name: str
    size: int | None
    """In bytes; None until it was looked at."""

    def exists(self, **waits: Unpack[Waits]) -> bool:
        """Whether it is there."""
        ...

    def upload_from_filename(
        self,
        filename: str,
        *,
        content_type: str,
        if_generation_match: int,
        **waits: Unpack[Waits],
    ) -> None:
        """Write it."""
        ...

    def download_as_bytes(self, **waits: Unpack[Waits]) -> bytes:
        """Read it."""
        ...

    def upload_from_string(
        self,
        data: bytes,
        *,
        content_type: str,
        if_generation_match: int,
        **waits: Unpack[Waits],
    ) -> None:
        """Write it."""
        ...

    def delete(self, **waits: Unpack[Waits]) -> None:
        """Remove it."""
        ...


class Folder(NamedTuple):
    """Where uploads go: a bucket, and what object names begin with."""

    bucket: str
    prefix: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Cloud:
    """One project in one location, as one caller reaches it.

    Args:
        project: Its id.
        location: Where trainings run, such as ``us-central1``.
        credentials: Whoever calls.
        base_url: Another server than Google's; empty for Google's.
        patience: How long it is waited for.
    """

    project: str
    location: str
    credentials: Credentials
    base_url: str = ""
    patience: Patience = field(default_factory=lambda: PATIENCE)
    _clients: dict[str, genai.Client] = field(default_factory=dict[str, genai.Client])

    def __post_init__(self) -> None:
        weakref.finalize(self, _close, self._clients)

    def client(self, location: str | None = None) -> genai.Client:
        """Return the client for a location, one for each."""
        place = location or self.location
        if place not in self._clients:
            self._clients[place] = self.new_client(place)
        return self._clients[place]

    def new_client(
        self, location: str, connections: httpx2.AsyncClient | None = None
    ) -> genai.Client:
        """Return a client of its own.

        Args:
            location: Whose server is asked.
            connections: For its async calls; who brings them closes them.
        """
        options = types.HttpOptions(
            base_url=self.base_url or None,
            timeout=int(self.patience.request_seconds * 1000),
            client_args={"follow_redirects": False},
            httpx_async_client=connections,
        )
        return genai.Client(
            vertexai=True,
            project=self.project,
            location=location,
            credentials=self.credentials,
            http_options=options,
        )

    def session(self) -> AuthorizedSession:
        """Return a session for what google-genai has no call for."""
        return _session(self.credentials)

    def url(self, resource: str, version: str = "v1") -> str:
        """Return the address of a resource, such as a model or an endpoint."""
        host = self.base_url or _host(location_of(resource) or self.location)
        return f"{host}/{version}/{resource}"

    @contextmanager
    def blob(self, uri: str) -> Generator[Blob]:
        """Reach an object in Cloud Storage while the body runs.

        Args:
            uri: ``gs://BUCKET/NAME``.
        """
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        with self._storage() as client:
            yield cast("Blob", client.bucket(bucket).blob(name))

    @contextmanager
    def blobs(self, folder: str) -> Generator[Iterator[Blob]]:
        """Reach the objects of a folder in Cloud Storage while the body runs.

        Args:
            folder: ``gs://BUCKET/NAME``.
        """
        bucket, _, name = folder.removeprefix("gs://").rstrip("/").partition("/")
        with self._storage() as client:
            listed = client.list_blobs(bucket, prefix=f"{name}/", **self.patience.storage)
            yield iter(cast("Iterable[Blob]", listed))

    @contextmanager
    def _storage(self) -> Generator[Any]:
        from google.cloud import storage  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - large, and not for watching; it has no types

        emulator = environment_address("STORAGE_EMULATOR_HOST") or ""
        caller = stand_in() if is_here(emulator) else self.credentials
        session = _session(caller)
        client = cast("Any", storage.Client)(
            project=self.project, credentials=caller, _http=session
        )
        try:
            yield client
        finally:
            client.close()


def _session(credentials: Credentials) -> AuthorizedSession:
    """Return a session that follows no redirects."""
    from google.auth.transport.requests import (  # noqa: PLC0415 - large, and not for watching
        AuthorizedSession,
    )

    session = cast("Callable[[Credentials], AuthorizedSession]", AuthorizedSession)(credentials)
    session.max_redirects = 0
    return session


def _close(clients: dict[str, genai.Client]) -> None:
    for client in clients.values():
        client.close()


def connect() -> Cloud:
    """Return the project and location that the environment names.

    Raises:
        UserError: A variable is not set, or there are no credentials.
    """
    base_url = environment_address("UNITUNE_VERTEX_BASE_URL") or ""
    if is_here(base_url):
        credentials, found = stand_in(), None
    else:
        with vendor_errors("sign in"):
            credentials, found = _found(scopes=[SCOPE])
    project = os.environ.get("GOOGLE_CLOUD_PROJECT") or found
    if not project:
        raise UserError("GOOGLE_CLOUD_PROJECT is not set. Set it to the id of your project.")
    location = os.environ.get("GOOGLE_CLOUD_LOCATION")
    if not location:
        raise UserError(
            "GOOGLE_CLOUD_LOCATION is not set. Set it to a region that tunes, such as us-central1."
        )
    return Cloud(project, location, credentials, base_url)


def upload_folder() -> Folder:
    """Return where uploads go.

    Raises:
        UserError: The environment does not say.
    """
    chosen = os.environ.get("UNITUNE_VERTEX_BUCKET", "").removeprefix("gs://").strip("/")
    if not chosen:
        raise UserError(
            "UNITUNE_VERTEX_BUCKET is not set. Set it to a Cloud Storage bucket for training "
            "files, such as my-bucket or gs://my-bucket/unitune, in the location of the training."
        )
    bucket, _, prefix = chosen.partition("/")
    return Folder(bucket, f"{prefix}/" if prefix else "")


def location_of(resource: str) -> str | None:
    """Return the location in a resource's name, if it is a full name.

    Raises:
        UserError: It is no location; the host that gets the caller's token is made of it.
    """
    found = re.match(r"projects/[^/]+/locations/([^/]+)/", resource)
    if found is None:
        return None
    if not re.fullmatch(r"[a-z0-9-]+", found[1]):
        raise UserError(
            f"{resource!r} names {found[1]!r} as its location, which is none. Locations are "
            "written like us-central1."
        )
    return found[1]


def is_here(url: str) -> bool:
    """Whether a server is on this machine, which makes it a stand-in for Google's."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def stand_in() -> Credentials:
    """Return what servers on this machine are shown instead of real credentials."""
    return cast("Callable[[str], Credentials]", TokenCredentials)(STAND_IN_TOKEN)


def _host(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"
