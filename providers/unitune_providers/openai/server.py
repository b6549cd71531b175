"""Where requests on OpenAI's wire go, with which key, and how long lists are read to their end.

A `Server` is an address with its key; `client` gives the SDK's client for it. A job may name
another server than the vendor's own: what is made there carries the address in its id
(``ftjob-1@https://example.com/v1``), because verbs get nothing but ids.
What is not here: which server a backend's own is (`unitune_providers.openai.backend`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

import openai
from openai import DefaultHttpxClient, Omit, OpenAI

from unitune.backends.credentials import allowed_variables, not_allowed, origin_of
from unitune.backends.kit.bodies import GZIP_ONLY, LARGEST_FILE, hooks
from unitune.backends.kit.chat_completions import Dialect
from unitune.backends.kit.chat_model import Endpoint
from unitune.backends.kit.errors import (
    BROKEN,
    ErrorTable,
    Vendor,
    error_of_response,
    vendor_errors,
)
from unitune.errors import UserError
from unitune.models import ChatModel
from unitune.security.json_fields import Fields, Unreadable, read_json
from unitune.security.redaction import redacted

READ_SECONDS = 60.0
"""Longest wait for an answer that changes nothing."""
READ_RETRIES = 2
"""Repeats of a request that changes nothing, after 408, 409, 429, 5xx or no answer."""
PAGE = 100
"""Items asked for at once."""
SDK_ERRORS = ErrorTable(
    {openai.APIStatusError: error_of_response},
    (openai.APIConnectionError, *BROKEN),
    (openai.OpenAIError,),
)
MARKED = re.compile(r"^(?P<ref>.+?)@(?P<url>https?://\S+)$")


class RawResponse(Protocol):
    """An answer as the SDK's `with_raw_response` gives it."""

    @property
    def content(self) -> bytes:
        """The body."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """An address that speaks OpenAI's wire.

    Args:
        backend: Name of the backend, for messages.
        url: Base URL, with its version.
        key: Secret; never in a message.
        key_variable: Environment variable that holds it.
        key_header: Header in which it is sent beside ``Authorization``, if any.
        named: Whether a job named the server, so that ids must carry its address.
    """

    backend: str
    url: str
    key: str = field(repr=False)
    key_variable: str
    key_header: str | None = None
    named: bool = False

    def mark(self, ref: str) -> str:
        """Return an id as the ledger keeps it."""
        return f"{ref}@{self.url}" if self.named else ref

    @property
    def vendor(self) -> Vendor:
        """Who answers, as messages name it."""
        return Vendor(self.backend, self.key_variable, self.url, secrets=(self.key,))

    def safe(self, words: str) -> str:
        """Take the key out of a vendor's words."""
        return redacted(words, [self.key])

    def errors(self, doing: str) -> AbstractContextManager[None]:
        """Raise the SDK's errors as ours; see `vendor_errors`."""
        return vendor_errors(self.vendor, doing, SDK_ERRORS)

    @property
    def headers(self) -> dict[str, str | Omit]:
        """What the SDK's own headers are changed by."""
        # The SDK takes organisation, project and further headers, a key among them, from the
        # environment, whoever is asked.
        ours: dict[str, str | Omit] = {}
        if self.backend != "openai" or self.named:
            ours |= {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
            ours |= {name: Omit() for name in _custom_headers()}
            ours["Authorization"] = f"Bearer {self.key}"
        if self.key_header is not None:
            ours[self.key_header] = self.key
        return ours


def _custom_headers() -> list[str]:
    """Return the names of the headers that are meant for OpenAI, as its SDK reads them."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    return [name for name in names if name.lower() != "authorization"]


@dataclass(frozen=True, slots=True)
class Marked:
    """An id, split.

    Args:
        ref: The vendor's own id.
        url: Of a server that a job named; None for the vendor's own.
    """

    ref: str
    url: str | None


def split(ref: str) -> Marked:
    """Return an id and the address that it carries."""
    found = MARKED.match(ref)
    return Marked(found["ref"], found["url"]) if found else Marked(ref, None)


def named_server(backend: str, url: str) -> Server:
    """Return a server that a job or an id names, with the key that the user has allowed for it.

    Raises:
        JobError: It is no address.
        UserError: No key is allowed for it, or it is not set.
    """
    variable = named_variable(backend, url)
    key = required(
        variable, f"the key for {origin_of(url)}, which is no address of {backend}'s own,"
    )
    return Server(backend, url.rstrip("/"), key, variable, named=True)


def named_variable(backend: str, url: str) -> str:
    """Return the variable with the key for an address that a job names: the first that is allowed.

    Raises:
        JobError: It is no address.
        UserError: No key is allowed for it.
    """
    allowed = allowed_variables(url)
    if not allowed:
        raise UserError(not_allowed(None, url, f"another server than {backend}'s"))
    return allowed[0]


def required(variable: str, what: str) -> str:
    """Return an environment variable's value.

    Args:
        variable: Its name.
        what: What it holds, for the message.

    Raises:
        UserError: It is not set.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(f"{what} is not set. Set the environment variable {variable}.")
    return value


class Connections(DefaultHttpxClient):
    """An HTTP client that follows no redirects and reads no body without end.

    It is closed, as the SDK's own is, when nobody holds it any more.
    """

    def __init__(self) -> None:
        super().__init__(follow_redirects=False, event_hooks=hooks(LARGEST_FILE), headers=GZIP_ONLY)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


@lru_cache(maxsize=8)
def client(server: Server) -> OpenAI:
    """Return the SDK's client for requests that change nothing; one for each server."""
    return OpenAI(
        api_key=server.key,
        base_url=server.url,
        http_client=Connections(),
        default_headers=server.headers,  # pyright: ignore[reportArgumentType] - Omit is the SDK's own way to leave a header out
        timeout=READ_SECONDS,
        max_retries=READ_RETRIES,
    )


@lru_cache(maxsize=256)
def dialect(server: Server, model: str, *, old_limit: bool) -> Dialect:
    """Return what is known of a model's wire; what it has refused once holds for this process.

    Args:
        server: Who is called.
        model: The vendor's id.
        old_limit: Begin with `max_tokens`, which OpenAI has deprecated and others know alone.
    """
    del server, model  # each has its own
    return Dialect("max_tokens" if old_limit else "max_completion_tokens")


def chat_model(server: Server, model: str, *, old_limit: bool) -> ChatModel:
    """Return a model of a server.

    Args:
        server: Who is called.
        model: The vendor's id.
        old_limit: As of `dialect`.
    """
    from unitune.backends.kit.chat import ChatCompletions  # noqa: PLC0415 - loads aiohttp

    headers = {
        name: value
        for name, value in client(server).default_headers.items()
        if isinstance(value, str) and not name.lower().startswith(("x-stainless", "accept"))
    }
    headers["Authorization"] = f"Bearer {server.key}"
    return ChatCompletions(
        Endpoint(server.vendor, server.url.rstrip("/"), headers),
        model,
        fingerprint=f"{server.backend}:{server.mark(model)}",
        dialect=dialect(server, model, old_limit=old_limit),
    )


def once(server: Server, seconds: float) -> OpenAI:
    """Return the client for a request that must not be repeated: the vendor knows no such key.

    Args:
        server: Who is asked.
        seconds: Longest wait for the answer.
    """
    return client(server).with_options(max_retries=0, timeout=seconds)


def fields_of(answer: RawResponse) -> Fields:
    """Return what an answer says: not every server of the wire sends what the SDK's types promise.

    Args:
        answer: By the SDK's `with_raw_response`.

    Raises:
        Unreadable: It is no JSON.
    """
    return Fields(read_json(answer.content))


def id_of(answer: RawResponse) -> str:
    """Return the id of what was just made.

    Args:
        answer: To the request that made it.

    Raises:
        Unreadable: It names none, so what became of the request is not known.
    """
    made = fields_of(answer).text("id")
    if not made:
        raise Unreadable("it names no id of what was made")
    return made


def key_of(item: Fields) -> str:
    """Return the id of an item of a list, or a hash of its content where it has none."""
    return item.text("id") or f"hash-{sha256(repr(item.all).encode()).hexdigest()[:16]}"


def everything(fetch: Callable[[str | None], RawResponse]) -> Iterator[Fields]:
    """Yield each item of a list once, whatever the order and the overlap of its pages.

    Args:
        fetch: Returns the page after an id; the first page for None.
    """
    seen, asked = set[str](), set[str]()
    after: str | None = None
    while True:
        page = fields_of(fetch(after))
        items = page.items("data")
        fresh = {key_of(item): item for item in items if key_of(item) not in seen}
        yield from fresh.values()
        seen.update(fresh)
        # A page in another order may end with an id that was asked for already.
        ids = [name for item in reversed(items) if (name := item.text("id"))]
        after = next((name for name in ids if name not in asked), None)
        if not fresh or page.all.get("has_more") is False or after is None:
            return
        asked.add(after)
