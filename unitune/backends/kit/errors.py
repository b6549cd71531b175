"""Describe vendors and map their failures to `BackendError`, for all backends.

An error status tells whether the request was refused (4xx) or may have taken effect (5xx). A
missing or unreadable answer becomes `Unreachable`. A backend that uses an SDK lists its exceptions
in an `ErrorTable`:
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

from unitune.backends.credentials import Parameters, forget_refused
from unitune.backends.kit.connection import BodyError
from unitune.backends.retry import parse_retry_after
from unitune.errors import BackendError, Unreachable
from unitune.security.addresses import is_redirect, redirected
from unitune.security.json_fields import Unreadable, read_json, whole_text
from unitune.security.redaction import hold_secret, redacted

UNAUTHORIZED = 401
SHOWN_CHARACTERS = 1000
TEXT_BYTES = 16_000  # shown of an error body that is not JSON
# Exceptions in a body that is a Python traceback; the last one is the cause
RAISED = re.compile(r"(?<=\n)[\w.]+(?:Error|Exception): .+")
REQUEST_IDS = ("x-request-id", "request-id", "x-ms-request-id", "x-goog-request-id")
ADVICE = {
    401: "Check the key in {variable}.",
    403: "Check the permissions of the key in {variable}.",
    429: "Wait or raise the limit at the vendor.",
}


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor, as named in messages."""

    name: str  # name of the vendor, or the address of a server
    key_variable: str | None = None  # environment variable with the key, if any
    url: str | None = None  # its address, shown if it does not answer
    # What to do next by status; extends `ADVICE`
    advice: Mapping[int, str] = field(default_factory=dict[int, str])
    # Values that no message may repeat, besides those in the environment
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
            request_id=request_id_of(headers),
            retry_after=parse_retry_after(headers),
        )

    def unreachable(self, doing: str, error: BaseException) -> Unreachable:
        """Return the error for an incomplete or unreadable answer."""
        from unitune.backends.kit.connection import certificate_advice  # noqa: PLC0415 - slow

        cause = error.__cause__ or error
        reason = self.safe(f"{type(cause).__name__}: {cause}".rstrip(": "))
        where = f" from {self.url}" if self.url else ""
        words = f"{self.name} could not {doing}: no complete answer{where} ({reason})."
        return Unreachable(f"{words} {certificate_advice(reason)}".rstrip())

    def failed(self, doing: str, error: BaseException) -> BackendError:
        """Return the error for a request that an SDK refuses to send."""
        return BackendError(f"{self.name} could not {doing}: {self.safe(str(error))}.")

    def safe(self, words: str) -> str:
        """Return a vendor's message without keys, cut to `SHOWN_CHARACTERS`."""
        return redacted(whole_text(words), self.secrets, SHOWN_CHARACTERS).strip().rstrip(".")


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the vendor's id of a request."""
    return next((headers[name] for name in REQUEST_IDS if name in headers), None)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and authentication of requests."""

    vendor: Vendor  # vendor at the address
    url: str  # base URL, with its version
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    # Returns the key; called for each request, because keys expire
    token: Callable[[], str] | None = field(default=None, repr=False)
    token_header: str | None = None  # header of the key; None for a bearer token

    def request_headers(self, gateway: Parameters) -> dict[str, str]:
        """Return the headers of one request; a gateway's replace others of the same name."""
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
        """Return headers with a newer key than the refused one, or None."""
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
    """Exceptions of a library."""

    # Exceptions that hold an answer, each with a function that reads it
    responses: Mapping[type[Exception], Callable[[Any], ErrorResponse]]
    silent: tuple[type[Exception], ...]  # exceptions for a missing or incomplete answer
    others: tuple[type[Exception], ...] = ()  # all other exceptions

    @property
    def all(self) -> tuple[type[Exception], ...]:
        """All exceptions of the table."""
        return (*self.responses, *self.silent, *self.others)

    def map_error(self, error: Exception, vendor: Vendor, doing: str) -> BackendError:
        """Map one of `all` to a `BackendError`."""
        for kind, read in self.responses.items():
            if isinstance(error, kind):
                return vendor.refused(doing, read(error))
        if isinstance(error, self.silent):
            return vendor.unreachable(doing, error)
        return vendor.failed(doing, error)


BROKEN = (json.JSONDecodeError, Unreadable, BodyError)


@contextmanager
def vendor_errors(vendor: Vendor, doing: str, table: ErrorTable) -> Generator[None]:
    """Map a library's exceptions to `BackendError`, or `Unreachable` without a complete answer.

    `doing` completes "VENDOR could not DOING".
    """
    try:
        yield
    except table.all as error:
        raise table.map_error(error, vendor, doing) from error


def complaint(content: bytes | object) -> str:
    """Return the message and the code in an error body of any known form."""
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
