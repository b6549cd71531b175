"""`Api`: a vendor's HTTP API, JSON in and out.

It keeps the house's rules, so that no backend states them again: a read is repeated after silence,
a rate limit or a failure of the vendor, a write is sent once; no redirect is followed, since it
would carry the key to another host; a body is bounded; every failure is an error of ours that keeps
status, request id and Retry-After, and repeats no key.

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
from unitune.backends.kit.bodies import GZIP_ONLY, LARGEST_ANSWER, LARGEST_FILE, BodyError, unpacked
from unitune.backends.kit.connection import http_client
from unitune.backends.kit.errors import (
    UNAUTHORIZED,
    Endpoint,
    ErrorResponse,
    Vendor,
    complaint,
    vendor_errors,
)
from unitune.backends.retry import retry_read
from unitune.errors import BackendError, Unreachable
from unitune.security.json_fields import Fields, read_json

TIMEOUT_SECONDS = 60.0  # for each wait on the wire: to connect, for the next bytes of a response
UPLOAD_SECONDS = 600.0  # likewise where a file is sent: the vendor may store it before it answers

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
# Pages in a row that bring nothing new, before a list is taken to be at its end
MOST_EMPTY_PAGES = 100
Body = Mapping[str, JsonValue]
Query = Mapping[str, str | int | list[str]]
Content = TypeVar("Content")
# Returns what the request for the next page adds to the query; None after the last page
NextPage = Callable[[Fields], Query | None]


class Response(NamedTuple):
    """A whole response of a vendor to an action."""

    vendor: Vendor
    action: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def fields(self) -> Fields:
        """The JSON of the response; empty content has no fields.

        Raises:
            Unreachable: The content is not JSON.
        """
        with vendor_errors(self.vendor, self.action):
            return Fields(read_json(self.content) if self.content.strip() else {})


class Api:
    """A vendor's API.

    Each part of a path is percent-encoded. `action` completes "VENDOR could not …" in errors.

    Args:
        endpoint: Address, headers with the key, and who answers there.
    """

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
            method: Such as PUT.
            path: Parts of the path; none: the endpoint's own address.
            action: Completes "VENDOR could not …".
            expected: Error statuses and redirects that are returned instead of raised.
            largest: Most bytes of the response.
            request: Query, content and timeout, as `httpx.Client.request` takes them.

        Raises:
            BackendError: The vendor refused (4xx), or failed and may have acted (5xx).
            Unreachable: What became of it is not known.
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
        """Return a resource, of at most `largest` bytes.

        Raises:
            BackendError: The vendor refused; `is_not_found` where there is no such resource.
            Unreachable: It did not answer, or what came is no JSON.
        """
        send = partial(self.request, "GET", *path, action=action, params=query, largest=largest)
        return retry_read(lambda: send().fields)

    def find(self, *path: str, action: str, query: Query | None = None) -> Fields | None:
        """Return a resource; None where there is none."""
        return _unless_missing(partial(self.get, *path, action=action, query=query))

    def pages(
        self,
        *path: str,
        action: str,
        next_page: NextPage,
        items: str = "data",
        query: Query | None = None,
    ) -> Iterator[Fields]:
        """Yield each item of a list once, whatever the order and the overlap of its pages.

        `items` is the field of a page that holds its items; `query` is sent for each page.
        """
        seen, requested, empty = set[str](), set[str](), 0
        added: Query | None = {}
        # A page may be empty and yet not the last (https://google.aip.dev/158).
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
        """Send a write once, as `request`; one that `changes_nothing` is repeated as a read is."""

        def send() -> Fields:
            return self.request("POST", *path, action=action, json=body, params=query).fields

        return retry_read(send) if changes_nothing else send()

    def delete(self, *path: str, action: str, query: Query | None = None) -> Fields:
        """Delete a resource and return the response, empty where there was no such resource."""
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
        """Return the content of a file; None where there is none."""
        return _unless_missing(partial(self.content, *path, action=action, query=query))

    def download(self, *path: str, action: str, file: BinaryIO, query: Query | None = None) -> str:
        """Write a file of any size into an emptied file, and return its content type.

        It may lie elsewhere: redirects are followed, and the key stays at the vendor's address.
        """

        def write() -> str:
            file.seek(0)
            file.truncate()
            with self._file(path, action, query) as response:
                file.writelines(response.iter_bytes())
                return response.headers.get("content-type", "")

        return retry_read(write)

    def lines(self, *path: str, action: str) -> Generator[Fields]:
        """Yield the rows of a file of JSON Lines as they come; an early end ends the transfer."""
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
        """Return the address of a resource.

        Raises:
            BackendError: A part of the path would lead to another path.
        """
        if {"", ".", ".."} & set(path):
            raise BackendError(f"{'/'.join(path)!r} names nothing at {self.endpoint.vendor.name}.")
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
        """Yield a response whose content is still to be read; any error is one of ours.

        A refused key is replaced once, if there is a newer one: nothing was created with it.
        """
        vendor, gateway = self.endpoint.vendor, self._gateway
        if gateway.query:
            given: Query = request.pop("params", None) or {}
            url = str(httpx.URL(url).copy_merge_params({**given, **gateway.query}))
        sent = self.endpoint.request_headers(gateway)
        seconds = UPLOAD_SECONDS if "content" in request else TIMEOUT_SECONDS
        request, client = {"timeout": seconds, **request}, http_client(url)
        with vendor_errors(vendor, action), ExitStack() as sending:
            send = partial(client.stream, method, url, **request)
            response = sending.enter_context(send(headers={**sent, **GZIP_ONLY}))
            is_refused = response.status_code == UNAUTHORIZED
            if is_refused and (newer := self.endpoint.renewed_headers(sent, gateway)):
                if content := request.get("content"):
                    content.seek(0)
                response = sending.enter_context(send(headers={**newer, **GZIP_ONLY}))
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
    """An API whose resources are named by their path: ``accounts/acme/jobs/1`` is one name."""

    def url(self, *path: str) -> str:
        """As of `Api`; a slash in a name divides it."""
        return super().url(*"/".join(path).split("/"))


def by_token(parameter: str = "pageToken", field: str = "nextPageToken") -> NextPage:
    """Return the paging of a list whose page has the token of the next in a field."""
    return lambda page: {parameter: token} if (token := page.text(field)) else None


def by_last_id(parameter: str = "after") -> NextPage:
    """Return the paging of a list whose next page comes after the id of the last item.

    A page in another order may end with an id that was used already; the last unused one is taken.
    """
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
    """Return the arguments of `Api.request` that upload a file in a multipart form."""
    return {"files": {"file": (name, file, "application/jsonl")}, "timeout": UPLOAD_SECONDS}


def item_key(item: Fields) -> str:
    """Return the id of an item of a list, or all of its content where it has none."""
    return item.text("id") or item.text("name") or repr(item.all)


def created_id(created: Fields, endpoint: Endpoint, field: str = "id") -> str:
    """Return the id of what a write created.

    Raises:
        Unreachable: The response names none, so what became of the write is not known.
    """
    if not (name := created.text(field)):
        raise Unreachable(f"{endpoint.vendor.name} answered a create call and names no {field}.")
    return name


def _body(response: httpx.Response, largest: int) -> Iterator[bytes]:
    return unpacked(response.iter_raw(), response.headers.get("content-encoding"), largest)
