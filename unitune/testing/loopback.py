"""Serve test vendors on loopback, with state and injected faults.

A `Vendor` answers requests from its own state in the vendor's format. `serve` runs it on a free
port of 127.0.0.1, where the vendor's real SDK finds it by a base URL. A `Fault` disturbs the
transport of single requests; `ServerBehavior` controls the vendor itself: how long its jobs take,
how late its lists are, …

    with serve(OpenAIVendor(ServerBehavior(steps=2))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        server.inject_fault(Fault.CUT, "POST", "/fine_tuning/jobs")

The server runs in this process, so that clients can be killed.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import JsonValue

from unitune.testing.omissions import EMPTY, Omissions, Shape


class Fault(StrEnum):
    """Fault of one request."""

    RATE_LIMITED = "rate limited"  # a 429 with Retry-After; the vendor never sees the request
    SERVER_ERROR = "server error"  # a 500; the vendor never sees the request
    # The vendor acts on the request and answers 500
    ERROR_AFTER = "server error after it took effect"
    SILENCE = "no answer"  # the vendor acts on the request and never answers
    # The vendor acts on the request; the connection ends within the answer's headers
    CUT = "connection cut"
    # The vendor acts on the request; the body ends before its announced length
    SHORT = "body cut short"
    EXPIRED_KEY = "expired key"  # a 401; the vendor never sees the request
    # The vendor acts on the request and answers 409, as if a proxy had sent it twice
    CONFLICT_AFTER = "conflict after it took effect"
    # The vendor acts on the request and answers 429 with Retry-After
    RATE_LIMITED_AFTER = "rate limited after it took effect"
    TWICE = "delivered twice"  # the vendor acts on the request twice and returns the second answer
    # The connection is cut; the vendor sees the request `Server.late_seconds` later
    LATE = "delivered late"


# Faults in which the vendor has acted, but the answer does not show it
TOOK_EFFECT = frozenset({Fault.ERROR_AFTER, Fault.SILENCE, Fault.CUT, Fault.SHORT})
# Faults in which the vendor has acted, but the answer is a refusal
REFUSED_AFTER = frozenset({Fault.CONFLICT_AFTER, Fault.RATE_LIMITED_AFTER})
OF_PROXIES = REFUSED_AFTER | {Fault.TWICE, Fault.LATE}
OF_VENDORS = frozenset(Fault) - OF_PROXIES  # faults of the vendor or the connection
ANYTHING = (Shape("GET", ".*", EMPTY),)  # shape of answers without a description
SILENT_SECONDS = 600.0  # longer than any client waits; closing the server ends it


class Malformed(ValueError):
    """An unreadable request; each vendor refuses it with a 400 in its own format."""


# Exceptions raised by reading a request with invalid parts, including `Malformed`
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class VendorRequest:
    """A received request."""

    method: str  # GET, POST, …
    path: str  # path without query, percent-decoded
    query: Mapping[str, list[str]]  # values by name
    headers: Mapping[str, str]  # headers with lower-case names
    body: bytes  # body as sent

    @property
    def json(self) -> dict[str, Any]:
        """Body as a JSON object; empty without a body. `Malformed` for other content."""
        try:
            content: object = json.loads(self.body) if self.body else {}
        except (ValueError, RecursionError) as error:
            raise Malformed("The body of the request is not valid JSON.") from error
        if not isinstance(content, dict):
            raise Malformed("The body of the request is not a JSON object.")
        return cast("dict[str, Any]", content)

    def first(self, name: str) -> str | None:
        """Return the first value of a query parameter."""
        return self.query.get(name, [None])[0]

    def number(self, name: str, otherwise: int) -> int:
        """Return the first value of a query parameter as a number, or raise `Malformed`."""
        value = self.first(name)
        if value and not value.isdecimal():
            raise Malformed(f"{name} must be a whole number of 0 or more, but is {value!r}.")
        return int(value) if value else otherwise


@dataclass(frozen=True, slots=True)
class VendorResponse:
    """A vendor's response."""

    content: JsonValue | bytes = field(default_factory=dict[str, JsonValue])  # JSON or bytes
    status: int = 200  # HTTP status
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def body(self) -> bytes:
        """Content as bytes."""
        if isinstance(self.content, bytes):
            return self.content
        return json.dumps(self.content).encode()


class Vendor(Protocol):
    """A test vendor; called by one thread at a time."""

    def answer(self, request: VendorRequest, /) -> VendorResponse:
        """Answer a request and change state as the vendor would."""
        ...


@dataclass(slots=True)
class _Spoiled:
    fault: Fault
    method: str
    path: re.Pattern[str]
    left: int


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with 5, the default, many clients at once would be refused

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that were killed between two requests."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Server:
    """A vendor on a port of 127.0.0.1."""

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor
        self.late_seconds = 1.0
        """Delay of a request with `Fault.LATE`."""
        self.omits: Omissions | None = None
        """Fields that answers to a GET omit, described or not; None for none."""
        self.change: Callable[[VendorRequest, VendorResponse], VendorResponse] | None = None
        """Changes the vendor's answers; None to leave them unchanged."""
        self.requests: list[VendorRequest] = []
        """All received requests, including faults, oldest first."""
        self._spoiled: list[_Spoiled] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._http = _HTTPServer(("127.0.0.1", 0), _handler_of(self))

    @property
    def url(self) -> str:
        """Address of the server: ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def inject_fault(self, fault: Fault, method: str, path: str, times: int = 1) -> None:
        """Inject a fault into the next requests whose path contains a regular expression."""
        self._spoiled.append(_Spoiled(fault, method, re.compile(path), times))

    def received(self, method: str, path: str) -> list[VendorRequest]:
        """Return the requests of a method whose path matches a regular expression."""
        pattern = re.compile(path)
        return [
            request
            for request in self.requests
            if request.method == method and pattern.search(request.path)
        ]

    def start(self) -> None:
        """Answer requests in a thread until `close`."""
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop answering and end silent requests."""
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()

    def handle(self, request: VendorRequest, connection: BaseHTTPRequestHandler) -> None:
        """Answer one request over its connection, with a fault if one is due."""
        with self._lock:
            self.requests.append(request)
            fault = self._due(request)
            answer = VendorResponse()
            if fault is None or fault in TOOK_EFFECT | REFUSED_AFTER | {Fault.TWICE}:
                answer = self.vendor.answer(request)
            if fault is Fault.TWICE:
                answer = self.vendor.answer(request)
            if self.change is not None:
                answer = self.change(request, answer)
        if fault is None:
            _send(connection, thinned(self.omits, answer, request, lambda: ANYTHING))
        else:
            if fault is Fault.LATE:
                threading.Thread(target=self._deliver_late, args=(request,), daemon=True).start()
            self._spoil(connection, fault, answer)

    def _due(self, request: VendorRequest) -> Fault | None:
        for injected in self._spoiled:
            if (
                injected.left
                and injected.method == request.method
                and injected.path.search(request.path)
            ):
                injected.left -= 1
                return injected.fault
        return None

    def _deliver_late(self, request: VendorRequest) -> None:
        self._closed.wait(self.late_seconds)
        with self._lock:
            self.vendor.answer(request)

    def _spoil(
        self, connection: BaseHTTPRequestHandler, fault: Fault, answer: VendorResponse
    ) -> None:
        connection.close_connection = True
        match fault:
            case Fault.RATE_LIMITED | Fault.RATE_LIMITED_AFTER:
                _send(connection, _complaint(429, "rate limit reached", {"Retry-After": "1"}))
            case Fault.EXPIRED_KEY:
                _send(connection, _complaint(401, "the key has expired"))
            case Fault.SERVER_ERROR | Fault.ERROR_AFTER:
                _send(connection, _complaint(500, "internal error"))
            case Fault.SILENCE:
                self._closed.wait(SILENT_SECONDS)
            case Fault.CONFLICT_AFTER:
                _send(connection, _complaint(409, "such a request is being handled"))
            case Fault.CUT | Fault.LATE:
                connection.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")
            case Fault.TWICE:
                _send(connection, answer)
            case Fault.SHORT:
                _send(connection, answer, missing=max(1, len(answer.body) // 2))


@contextmanager
def serve(vendor: Vendor) -> Generator[Server]:
    """Serve a vendor on a free port of 127.0.0.1 while the body runs."""
    server = Server(vendor)
    server.start()
    try:
        yield server
    finally:
        server.close()


def thinned(
    omits: Omissions | None,
    answer: VendorResponse,
    request: VendorRequest,
    shapes: Callable[[], Sequence[Shape]],
) -> VendorResponse:
    """Return an answer without omitted fields; unchanged if its shape is unknown."""
    if omits is None or answer.status >= 300 or isinstance(answer.content, bytes):
        return answer
    for shape in shapes():
        if shape.method == request.method and re.fullmatch(shape.path, request.path):
            return replace(answer, content=omits.thinned(answer.content, shape.schema))
    return answer


def _complaint(status: int, text: str, headers: Mapping[str, str] | None = None) -> VendorResponse:
    content: JsonValue = {"error": {"message": text, "code": status, "status": text.upper()}}
    return VendorResponse(content, status, {"Connection": "close", **(headers or {})})


def _send(connection: BaseHTTPRequestHandler, answer: VendorResponse, missing: int = 0) -> None:
    body = answer.body
    connection.send_response(answer.status)
    kind = "application/octet-stream" if isinstance(answer.content, bytes) else "application/json"
    for name, value in {"Content-Type": kind, **answer.headers}.items():
        connection.send_header(name, value)
    connection.send_header("Content-Length", str(max(len(body), missing)))
    connection.end_headers()
    connection.wfile.write(body[: max(0, len(body) - missing)])


def _handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each body waits 40 ms for the acknowledged headers
        wbufsize = -1  # headers and body in one packet: two would wait for each other

        def handle_any(self) -> None:
            place = urlsplit(self.path)
            request = VendorRequest(
                method=self.command,
                path=unquote(place.path),
                query=parse_qs(place.query, keep_blank_values=True),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=_body_of(self),
            )
            try:
                server.handle(request, self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client was killed or gave up

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any  # noqa: N815 - the standard library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Log nothing; see `Server.requests`."""

    return Handler


def _body_of(connection: BaseHTTPRequestHandler) -> bytes:
    if connection.headers.get("Transfer-Encoding", "").lower() == "chunked":
        parts: list[bytes] = []
        while size := int(connection.rfile.readline().split(b";")[0], 16):
            parts.append(connection.rfile.read(size))
            connection.rfile.readline()
        connection.rfile.readline()
        return b"".join(parts)
    return connection.rfile.read(int(connection.headers.get("Content-Length") or 0))
