"""Connect to Google Cloud: credentials, project, location, and the APIs.

Settings come only from the environment: ``GOOGLE_CLOUD_PROJECT``, ``GOOGLE_CLOUD_LOCATION``,
``UNITUNE_VERTEX_BUCKET``, and credentials found by google-auth. ``UNITUNE_VERTEX_BASE_URL`` and
``STORAGE_EMULATOR_HOST`` set another server; one on this machine is a test server and gets a fixed
token. The name of a resource has its location, so jobs and models in other locations are requested
there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import google.auth
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials as TokenCredentials
from requests import Session

from unitune.backends.credentials import environment_address
from unitune.backends.kit.api import Api, ResourceApi, by_token
from unitune.backends.kit.connection import certificate_file, proxy_for
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.kit.hosted import BAD_REQUEST, required
from unitune.backends.retry import retry_read
from unitune.errors import BackendError, UserError
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.user_settings import variable

_default_credentials = cast("Callable[..., tuple[Credentials, str | None]]", google.auth.default)  # pyright: ignore[reportUnknownMemberType] - half typed

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
STAND_IN_TOKEN = "loopback"  # noqa: S105 - not a secret: only servers on this machine get it
STORAGE_URL = "https://storage.googleapis.com"
# Locations with another form of host name (google-genai 3.6.1, `_api_client`)
MULTI_REGIONS = ("us", "eu")
PRECONDITION_FAILED = 412
PAGE_SIZE = 100
SIGN_IN = (
    "Sign in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS "
    "to a key file."
)


@dataclass(frozen=True, slots=True)
class Cloud:
    """A project and location, with the caller's credentials."""

    project: str  # Id of the project
    location: str  # location of trainings, such as ``us-central1``
    credentials: Credentials  # credentials of the caller
    base_url: str = ""  # address of another server than Google's; empty for Google's

    @property
    def base_location(self) -> str:
        """Location of untuned models, some of which answer only globally."""
        return variable("UNITUNE_VERTEX_BASE_LOCATION") or self.location

    def parent(self, location: str | None = None) -> str:
        """Return the resource name of a location, by default the configured one."""
        return f"projects/{self.project}/locations/{location or self.location}"

    def resource_name(self, model: str | TunedModel) -> str:
        """Return the full resource name of a model, in the location for its requests."""
        name = model if isinstance(model, str) else model.name
        if name.startswith("projects/"):
            location_of(name)  # checked, as the caller's token is sent to its host
            return name
        location = self.base_location if isinstance(model, str) else self.location
        return f"{self.parent(location)}/{published_name(name)}"

    def endpoint(self, resource: str, version: str = "v1beta1") -> Endpoint:
        """Return the server of a resource, with the caller's token."""
        host = self.base_url or _host(location_of(resource) or self.location)
        return _endpoint("Vertex AI", f"{host}/{version}", self.credentials)

    def api(self, resource: str, version: str = "v1beta1") -> ResourceApi:
        """Return the API at the server of a resource; see `endpoint`."""
        return ResourceApi(self.endpoint(resource, version))

    def find_jobs(
        self,
        parents: Sequence[str],
        collection: str,
        condition: str,
        is_ours: Callable[[Fields], bool],
    ) -> list[str]:
        """Return the names of our jobs, by a filter and the same condition as `is_ours`.

        Filters are not documented for each list, and a missed job would be paid for twice. So each
        job is checked, over the whole list if needed.
        """
        for filter_ in (condition, None):
            listed = (job for parent in parents for job in self._list(parent, collection, filter_))
            if names := [name for job in listed if is_ours(job) and (name := job.text("name"))]:
                return names
        return []

    def read(self, uri: str) -> bytes | None:
        """Return the content of an object, ``gs://BUCKET/NAME``, or None if it does not exist."""
        query = {"alt": "media"}
        return self._storage.find_content(*_object(uri), action=f"read {uri}", query=query)

    def write(self, uri: str, content: BinaryIO) -> None:
        """Write an object unless it exists; repeated on failure, as that is safe."""
        bucket, name = _bucket_and_name(uri)
        path = ("upload", "storage", "v1", "b", bucket, "o")
        query = {"uploadType": "media", "name": name, "ifGenerationMatch": "0"}
        action = f"write {uri}"

        def send() -> None:
            content.seek(0)
            self._storage.request("POST", *path, action=action, params=query, content=content)

        try:
            retry_read(send)
        except BackendError as error:
            if error.status != PRECONDITION_FAILED:
                raise

    def exists(self, uri: str) -> bool:
        """Return whether an object exists."""
        return self._storage.find(*_object(uri), action=f"search for {uri}") is not None

    def objects(self, folder: str) -> Iterator[str]:
        """Yield the addresses of the objects in a folder."""
        bucket, prefix = _bucket_and_name(folder.rstrip("/"))
        path = ("storage", "v1", "b", bucket, "o")
        query, action = {"prefix": f"{prefix}/"}, f"list {folder}"
        pages = self._storage.pages(
            *path, action=action, next_page=by_token(), items="items", query=query
        )
        return (f"gs://{bucket}/{name}" for item in pages if (name := item.text("name")))

    def delete(self, uri: str) -> None:
        """Delete an object; do nothing if it does not exist."""
        self._storage.delete(*_object(uri), action=f"delete {uri}")

    def _list(self, parent: str, collection: str, filter_: str | None) -> Iterator[Fields]:
        query = {"pageSize": PAGE_SIZE, **({"filter": filter_} if filter_ else {})}
        path, action = (parent, collection), f"list {collection}"
        api, paging = self.api(parent), by_token()
        try:
            yield from api.pages(
                *path, action=action, next_page=paging, items=collection, query=query
            )
        except BackendError as error:
            if filter_ is None or error.status != BAD_REQUEST:
                raise

    @property
    def _storage(self) -> Api:
        url = environment_address("STORAGE_EMULATOR_HOST") or ""
        caller = stand_in() if is_here(url) else self.credentials
        return Api(_endpoint("Cloud Storage", url or STORAGE_URL, caller))


def connect() -> Cloud:
    """Return the project and location in the environment, or raise `UserError`."""
    base_url = environment_address("UNITUNE_VERTEX_BASE_URL") or ""
    if is_here(base_url):
        credentials, project = stand_in(), None
    else:
        with _sign_in_errors():
            credentials, project = _default_credentials(scopes=[SCOPE])
    project = variable("GOOGLE_CLOUD_PROJECT") or project
    project = project or required("GOOGLE_CLOUD_PROJECT", "the id of your project")
    location = required("GOOGLE_CLOUD_LOCATION", "a region that tunes, such as us-central1,")
    return Cloud(project, location, credentials, base_url)


def upload_uri(name: str) -> str:
    """Return the address of a file in the user's bucket; raise `UserError` if it is not set."""
    what = (
        "the Cloud Storage bucket for training files, such as my-bucket or gs://my-bucket/unitune, "
        "in the location of the training,"
    )
    folder = required("UNITUNE_VERTEX_BUCKET", what).removeprefix("gs://").strip("/")
    return f"gs://{folder}/{name}"


def location_of(resource: str) -> str | None:
    """Return the location in a full resource name; raise `UserError` if it is invalid."""
    match = re.match(r"projects/[^/]+/locations/([^/]+)(/|$)", resource)
    if match is None:
        return None
    if not re.fullmatch(r"[a-z0-9-]+", match[1]):
        raise UserError(
            f"{resource!r} has the location {match[1]!r}, which is invalid. Locations are "
            "written like us-central1."
        )
    return match[1]


def published_name(model: str) -> str:
    """Return the resource name of a published model with a short name, or else the name."""
    is_full = model.startswith(("projects/", "publishers/"))
    return model if is_full else f"publishers/google/models/{model}"


def version_behind(deployed: Fields) -> str:
    """Return the version of a model that an endpoint has deployed."""
    model = (deployed.text("model") or "").partition("@")[0]
    version = deployed.text("modelVersionId")
    return f"{model}@{version}" if version else model


def is_here(url: str) -> bool:
    """Return whether a server is on this machine and therefore a test server."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def stand_in() -> Credentials:
    """Return credentials for test servers."""
    return cast("Callable[[str], Credentials]", TokenCredentials)(STAND_IN_TOKEN)


def token_of(credentials: Credentials) -> str:
    """Return a valid access token; raise `UserError` for invalid credentials."""
    if not credentials.valid:
        session = Session()
        session.verify = certificate_file("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") or True
        with _sign_in_errors():
            credentials.refresh(Request(session))  # pyright: ignore[reportUnknownMemberType] - half typed
    return str(credentials.token)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - half typed


@contextmanager
def _sign_in_errors() -> Generator[None]:
    try:
        yield
    except TransportError as error:
        raise Vendor("Google").unreachable("give a token", error) from error
    except DefaultCredentialsError as error:
        raise UserError(f"no Google Cloud credentials were found. {SIGN_IN}") from error
    except GoogleAuthError as error:
        raise UserError(f"Google Cloud refused your credentials. {SIGN_IN}") from error


def _endpoint(name: str, url: str, credentials: Credentials) -> Endpoint:
    proxy_for(url)  # refuses a SOCKS proxy before the sign-in fails
    vendor = Vendor(name, url=url, advice={401: SIGN_IN})
    billed = cast("str | None", getattr(credentials, "quota_project_id", None))
    headers = {"x-goog-user-project": billed} if billed else {}
    return Endpoint(vendor, url, headers, lambda: token_of(credentials))


def _bucket_and_name(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name


def _object(uri: str) -> tuple[str, ...]:
    bucket, name = _bucket_and_name(uri)
    return ("storage", "v1", "b", bucket, "o", name)


def _host(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"
