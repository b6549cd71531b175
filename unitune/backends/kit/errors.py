"""Who is called, and what goes wrong there, as errors of ours: one map for all backends.

An answer with an error status becomes a `BackendError`, which says whether the request was refused
(4xx) or may have taken effect (5xx); no answer, or none that can be read to its end, becomes
`Unreachable`. A backend that goes through an SDK says in an `ErrorTable` which of its exceptions
hold an answer and which mean silence:

    with vendor_errors(vendor, "create the job", SDK_ERRORS):
        client.jobs.create(...)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import httpx

from unitune.backends.credentials import Parameters, forget_refused
from unitune.backends.kit.bodies import BodyError
from unitune.backends.kit.connection import certificate_advice
from unitune.backends.retry import parse_retry_after
from unitune.errors import BackendError, Unreachable
from unitune.security.addresses import is_redirect, redirected
from unitune.security.json_fields import Unreadable, read_json, whole_text
from unitune.security.redaction import hold_secret, redacted

UNAUTHORIZED = 401
SHOWN_CHARACTERS = 1000
TEXT_BYTES = 16_000  # of an error body that is not JSON
# In a body that is a traceback of Python, what was raised: the last one is the cause
RAISED = re.compile(r"(?<=\n)[\w.]+(?:Error|Exception): .+")
REQUEST_IDS = ("x-request-id", "request-id", "x-ms-request-id", "x-goog-request-id")
ADVICE = {
    401: "Check the key in {variable}.",
    403: "Check what the key in {variable} may do.",
    429: "Wait, or raise the limit at the vendor.",
}


@dataclass(frozen=True, slots=True)
class Vendor:
    """Who is called, as messages name it.

    Args:
        name: Of the vendor, or the address of a server.
        key_variable: Environment variable with the key; None: there is none.
        url: Its address, shown when no answer comes.
        advice: What to do next by status, over `ADVICE`.
        secrets: Beside the environment's own, what no message may repeat.
    """

    name: str
    key_variable: str | None = None
    url: str | None = None
    advice: Mapping[int, str] = field(default_factory=dict[int, str])
    secrets: tuple[str | None, ...] = field(default=(), repr=False)

    def refused(self, doing: str, response: ErrorResponse) -> BackendError:
        """Return the error for an answer with an error status."""
        status, headers = response.status, response.headers
        words = response.words or "no reason given"
        if is_redirect(status):
            words = redirected(headers.get("location"))
        advice = {**ADVICE, **self.advice}.get(status, "")
        if "{variable}" in advice:
            advice = advice.format(variable=self.key_variable) if self.key_variable else ""
        sentence = f"{self.name} could not {doing}: {self.safe(words)} (HTTP {status})."
        return BackendError(
            f"{sentence} {advice}".rstrip(),
            status=status,
            request_id=next((headers[name] for name in REQUEST_IDS if name in headers), None),
            retry_after=parse_retry_after(headers),
        )

    def unreachable(self, doing: str, error: BaseException) -> Unreachable:
        """Return the error for an answer that did not come whole, or cannot be read."""
        cause = error.__cause__ or error
        reason = self.safe(f"{type(cause).__name__}: {cause}".rstrip(": "))
        where = f" from {self.url}" if self.url else ""
        words = f"{self.name} could not {doing}: no whole answer{where} ({reason})."
        return Unreachable(f"{words} {certificate_advice(reason)}".rstrip())

    def failed(self, doing: str, error: BaseException) -> BackendError:
        """Return the error for what an SDK refuses to send."""
        return BackendError(f"{self.name} could not {doing}: {self.safe(str(error))}.")

    def safe(self, words: str) -> str:
        """Return the vendor's words without keys, cut to `SHOWN_CHARACTERS`."""
        return redacted(whole_text(words), self.secrets, SHOWN_CHARACTERS).strip().rstrip(".")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that requests go to.

    Args:
        vendor: Who answers there.
        url: Base URL, with its version.
        headers: Sent with each request.
        token: Returns the key; called for each request, since keys expire.
        token_header: Header that takes the key; None: it is a bearer token.
    """

    vendor: Vendor
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    token: Callable[[], str] | None = field(default=None, repr=False)
    token_header: str | None = None

    def request_headers(self, gateway: Parameters) -> dict[str, str]:
        """Return the headers of one request; a gateway's replace others of the same name.

        Raises:
            UserError: There is no key any more.
        """
        headers = dict[str, str]()
        if self.token is not None:
            hold_secret(token := self.token())
            value = token if self.token_header else f"Bearer {token}"
            headers[(self.token_header or "authorization").lower()] = value
        for given in (self.headers, gateway.headers):
            headers |= {name.lower(): value for name, value in given.items()}
        return headers

    def renewed_headers(
        self, refused: Mapping[str, str], gateway: Parameters
    ) -> dict[str, str] | None:
        """Return headers with a newer key than the one that was refused; None: there is none."""
        forget_refused(refused)
        headers = self.request_headers(gateway)
        return headers if headers != refused else None


class ErrorResponse(NamedTuple):
    """An answer with an error status."""

    status: int
    headers: Mapping[str, str]
    words: str


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """The exceptions of a library.

    Args:
        responses: By the type of an exception that holds an answer, what reads it.
        silent: Exceptions that say that no whole answer came.
        others: Those that say neither.
    """

    responses: Mapping[type[Exception], Callable[[Any], ErrorResponse]]
    silent: tuple[type[Exception], ...]
    others: tuple[type[Exception], ...] = ()

    @property
    def all(self) -> tuple[type[Exception], ...]:
        """Every type of the table."""
        return (*self.responses, *self.silent, *self.others)

    def map_error(self, error: Exception, vendor: Vendor, doing: str) -> BackendError:
        """Return our error for one of `all`."""
        for kind, read in self.responses.items():
            if isinstance(error, kind):
                return vendor.refused(doing, read(error))
        if isinstance(error, self.silent):
            return vendor.unreachable(doing, error)
        return vendor.failed(doing, error)


# What reading an answer raises that did not come as it was sent
BROKEN = (json.JSONDecodeError, Unreadable, BodyError)
# `Api` reads an error status itself
HTTPX_ERRORS = ErrorTable({}, (httpx.HTTPError, httpx.StreamError, *BROKEN))


@contextmanager
def vendor_errors(vendor: Vendor, doing: str, table: ErrorTable = HTTPX_ERRORS) -> Generator[None]:
    """Raise what goes wrong at a vendor as an error of ours.

    Args:
        vendor: Who is called.
        doing: As in "VENDOR could not DOING".
        table: Which exceptions are the library's.

    Raises:
        BackendError: The vendor answered with an error.
        Unreachable: It did not answer, or its answer was cut short.
    """
    try:
        yield
    except table.all as error:
        raise table.map_error(error, vendor, doing) from error


def complaint(content: bytes | object) -> str:
    """Return the message in an error's body, of any of its shapes, with its code."""
    body: object = content
    if isinstance(content, bytes):
        try:
            body = read_json(content)
        except Unreadable:
            text = content[:TEXT_BYTES].decode(errors="replace")
            return (RAISED.findall(text) or [text])[-1]
    code = ""
    while isinstance(body, dict):
        fields = cast("dict[str, object]", body)
        named = fields.get("code")
        code = named if isinstance(named, str) and not named.isdigit() else code
        body = fields.get("message") or fields.get("error") or fields.get("detail")
    words = str(body or "").rstrip(". ")
    return f"{words} [{code}]".strip() if code and code not in words else words
