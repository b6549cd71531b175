"""Call a vendor's HTTP API, with JSON in and out.

Reads are repeated after a missing answer, a rate limit or a failure of the vendor; writes are sent
once. Redirects are not followed, since they would carry the key to another host. Bodies are
bounded. Every failure becomes a `BackendError` with status, request id and Retry-After, but no key.

    api = Api(Endpoint(Vendor("mine", "MY_KEY"), "https://api.example.com/v1", {"api-key": key}))
    job = api.get("jobs", job_id, action=f"read job {job_id}")
    print(job.text("state"))
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
from pydantic import JsonValue

from unitune.backends.credentials import gateway_for
from unitune.backends.kit.connection import (
    GZIP_ONLY,
    LARGEST_ANSWER,
    LARGEST_FILE,
    BodyError,
    http_client,
    unpacked,
)
from unitune.backends.kit.errors import (
    BROKEN,
    UNAUTHORIZED,
    Endpoint,
    ErrorResponse,
    ErrorTable,
    Vendor,
    complaint,
    vendor_errors,
)
from unitune.backends.kit.requests import request_span
from unitune.backends.retry import retry_read
from unitune.errors import BackendError, Unreachable
from unitune.security.json_fields import Fields, read_json

TIMEOUT_SECONDS = 60.0  # for each wait: for the connection, for the next bytes of a response
UPLOAD_SECONDS = 600.0  # for uploads: the vendor may store the file before it answers

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
# Pages in a row without new items before a list is considered complete
MOST_EMPTY_PAGES = 100
Body = Mapping[str, JsonValue]
Query = Mapping[str, str | int | list[str]]
Content = TypeVar("Content")
# Failures without a complete response; `Api` reads an error status itself
ERRORS = ErrorTable({}, (httpx.HTTPError, httpx.StreamError, *BROKEN))
# Return the query parameters of the next page; None after the last page
NextPage = Callable[[Fields], Query | None]


class Response(NamedTuple):
    """A complete response of a vendor."""

    vendor: Vendor
    action: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def fields(self) -> Fields:
        """JSON of the response; empty content has no fields. `Unreachable` if it is not JSON."""
        with vendor_errors(self.vendor, self.action, ERRORS):
            return Fields(read_json(self.content) if self.content.strip() else {})


class Api:
    """A vendor's API; parts of a path are percent-encoded."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._gateway = gateway_for(endpoint.url)

    def request(
        self,
        method: str,
        *path: str,
        action: str,
        expected: Collection[int] = (),
        largest: int = LARGEST_ANSWER,
        **request: Any,
    ) -> Response:
        """Send a request once and return the response.

        Args:
            method: HTTP method, such as PUT.
            path: Parts of the path; none for the endpoint's own address.
            action: Completes "VENDOR could not …".
            expected: Error statuses and redirects that are returned instead of raised.
            largest: Maximum size of the response in bytes.
            request: Further arguments of `httpx.Client.request`, such as params and timeout.

        Raises:
            BackendError: The vendor refused (4xx) or failed and may have acted (5xx).
            Unreachable: The outcome is unknown.
        """
        with self._response(method, self.url(*path), action, expected, **request) as response:
            content = b"".join(_body(response, largest))
            vendor, status = self.endpoint.vendor, response.status_code
            return Response(vendor, action, status, response.headers, content)

    def get(
        self,
        *path: str,
        action: str,
        query: Query | None = None,
        largest: int = LARGEST_ANSWER,
    ) -> Fields:
        """Return a resource of at most `largest` bytes; `BackendError.is_not_found` if missing."""
        send = partial(self.request, "GET", *path, action=action, params=query, largest=largest)
        return retry_read(lambda: send().fields)

    def find(self, *path: str, action: str, query: Query | None = None) -> Fields | None:
        """Return a resource, or None if it does not exist."""
        return _unless_missing(partial(self.get, *path, action=action, query=query))

    def pages(
        self,
        *path: str,
        action: str,
        next_page: NextPage,
        items: str = "data",
        query: Query | None = None,
    ) -> Iterator[Fields]:
        """Yield each item of a list once, whatever the order and overlap of its pages.

        `items` is the field of a page with its items; `query` is sent for each page.
        """
        seen, requested, empty = set[str](), set[str](), 0
        added: Query | None = {}
        # An empty page need not be the last (https://google.aip.dev/158).
        while added is not None and str(added) not in requested and empty < MOST_EMPTY_PAGES:
            requested.add(str(added))
            page = self.get(*path, action=action, query={**(query or {}), **added})
            fresh = {item_key(item): item for item in page.items(items)}
            new = [item for key, item in fresh.items() if key not in seen]
            yield from new
            seen.update(fresh)
            empty = 0 if new else empty + 1
            added = next_page(page)

    def post(
        self,
        *path: str,
        action: str,
        body: Body | None = None,
        query: Query | None = None,
        changes_nothing: bool = False,
    ) -> Fields:
        """Send a write once; with `changes_nothing`, repeat it like a read."""

        def send() -> Fields:
            return self.request("POST", *path, action=action, json=body, params=query).fields

        return retry_read(send) if changes_nothing else send()

    def delete(self, *path: str, action: str, query: Query | None = None) -> Fields:
        """Delete a resource and return the response; empty if it did not exist."""
        send = partial(self.request, "DELETE", *path, action=action, params=query)
        return _unless_missing(lambda: send().fields) or Fields({})

    def content(
        self,
        *path: str,
        action: str,
        query: Query | None = None,
        largest: int = LARGEST_FILE,
    ) -> bytes:
        """Return the content of a file, of at most `largest` bytes; see `download`."""

        def read() -> bytes:
            with self._file(path, action, query) as response:
                return b"".join(_body(response, largest))

        return retry_read(read)

    def find_content(self, *path: str, action: str, query: Query | None = None) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        return _unless_missing(partial(self.content, *path, action=action, query=query))

    def download(self, *path: str, action: str, file: BinaryIO, query: Query | None = None) -> str:
        """Write a file of any size into an emptied file, and return its content type.

        Redirects are followed, but the key is sent to the vendor's own address only.
        """

        def write() -> str:
            file.seek(0)
            file.truncate()
            with self._file(path, action, query) as response:
                file.writelines(response.iter_bytes())
                return response.headers.get("content-type", "")

        return retry_read(write)

    def lines(self, *path: str, action: str) -> Generator[Fields]:
        """Yield the rows of a JSON Lines file as they arrive; closing it ends the transfer."""
        with self._file(path, action, None) as response:
            rest = b""
            for piece in _body(response, LARGEST_FILE):
                *whole, rest = (rest + piece).split(b"\n")
                if len(rest) > LARGEST_ANSWER:
                    raise BodyError(f"it has a line of more than {LARGEST_ANSWER:,} bytes")
                yield from (Fields(read_json(line)) for line in whole if line.strip())
            if rest.strip():
                yield Fields(read_json(rest))

    def url(self, *path: str) -> str:
        """Return the address of a resource; raise `BackendError` for a part such as ``..``."""
        if {"", ".", ".."} & set(path):
            raise BackendError(
                f"{'/'.join(path)!r} is not a valid path at {self.endpoint.vendor.name}."
            )
        return "/".join((self.endpoint.url, *(quote(part, safe=":") for part in path)))

    @contextmanager
    def _file(
        self, path: tuple[str, ...], action: str, query: Query | None
    ) -> Generator[httpx.Response]:
        url = httpx.URL(self.url(*path)).copy_merge_params(query or {})
        home = (url.scheme, url.netloc)
        for _ in range(MOST_REDIRECTS + 1):
            is_home = (url.scheme, url.netloc) == home
            api = self if is_home else Api(Endpoint(self.endpoint.vendor, str(url)))
            with api._response("GET", str(url), action, REDIRECTS) as response:  # noqa: SLF001
                if response.is_success:
                    yield response
                    return
                url = url.join(response.headers.get("location", ""))
        raise BackendError(f"{self.endpoint.vendor.name} could not {action}: too many redirects.")

    @contextmanager
    def _response(
        self,
        method: str,
        url: str,
        action: str,
        expected: Collection[int] = (),
        **request: Any,
    ) -> Generator[httpx.Response]:
        """Yield a response whose content is not read yet; raise any failure as a `BackendError`.

        A refused key is replaced once by a newer one, as nothing was created with it.
        """
        vendor, gateway = self.endpoint.vendor, self._gateway
        if gateway.query:
            given: Query = request.pop("params", None) or {}
            url = str(httpx.URL(url).copy_merge_params({**given, **gateway.query}))
        sent = self.endpoint.request_headers(gateway)
        seconds = UPLOAD_SECONDS if "content" in request else TIMEOUT_SECONDS
        request, client = {"timeout": seconds, **request}, http_client(url)
        with (
            vendor_errors(vendor, action, ERRORS),
            request_span(vendor.name, method, url) as seen,
            ExitStack() as sending,
        ):
            send = partial(client.stream, method, url, **request)
            response = sending.enter_context(send(headers={**sent, **GZIP_ONLY}))
            is_refused = response.status_code == UNAUTHORIZED
            if is_refused and (newer := self.endpoint.renewed_headers(sent, gateway)):
                if content := request.get("content"):
                    content.seek(0)
                response = sending.enter_context(send(headers={**newer, **GZIP_ONLY}))
            seen(response.status_code, response.headers)
            if not response.is_success and response.status_code not in expected:
                content = b"".join(_body(response, LARGEST_ANSWER))
                words = complaint(content) or response.reason_phrase
                error = ErrorResponse(response.status_code, response.headers, words)
                raise vendor.refused(action, error)
            yield response


def _unless_missing(send: Callable[[], Content]) -> Content | None:
    try:
        return send()
    except BackendError as error:
        if error.is_not_found:
            return None
        raise


class ResourceApi(Api):
    """An API with paths as resource names, such as ``accounts/acme/jobs/1``."""

    def url(self, *path: str) -> str:
        """Return the address of a resource; slashes divide a name."""
        return super().url(*"/".join(path).split("/"))


def by_token(parameter: str = "pageToken", field: str = "nextPageToken") -> NextPage:
    """Return paging for a list whose pages have the next page's token in a field."""
    return lambda page: {parameter: token} if (token := page.text(field)) else None


def by_last_id(parameter: str = "after") -> NextPage:
    """Return paging by the last id of a page, or the last unused one if the order differs."""
    used = set[str]()

    def next_page(page: Fields) -> Query | None:
        if page.all.get("has_more") is False:
            return None
        ids = [item.text("id") for item in reversed(page.items("data"))]
        last = next((name for name in ids if name and name not in used), None)
        used.add(last or "")
        return {parameter: last} if last else None

    return next_page


def multipart(name: str, file: BinaryIO) -> dict[str, Any]:
    """Return arguments of `Api.request` for a multipart file upload."""
    return {"files": {"file": (name, file, "application/jsonl")}, "timeout": UPLOAD_SECONDS}


def item_key(item: Fields) -> str:
    """Return the id of a list item, or all of its content."""
    return item.text("id") or item.text("name") or repr(item.all)


def created_id(created: Fields, endpoint: Endpoint, field: str = "id") -> str:
    """Return the id of a created object; raise `Unreachable` if it is missing."""
    if not (name := created.text(field)):
        raise Unreachable(
            f"{endpoint.vendor.name} answered a create call without the field {field!r}."
        )
    return name


def _body(response: httpx.Response, largest: int) -> Iterator[bytes]:
    return unpacked(response.iter_raw(), response.headers.get("content-encoding"), largest)
