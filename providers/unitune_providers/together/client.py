"""Together's client, and its errors in our words: the one place where they are mapped.

Keys come from the environment alone. One client serves a backend; reads are repeated by the SDK,
writes never. `translated` wraps every call to the vendor, `ours` says what an error of the SDK, or
of the HTTP client below it, means: an answer with a status is a `BackendError`, no answer or a
broken one is `Unreachable`. What is not here: what is asked (the siblings).
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TypeVar, cast
from urllib.parse import quote

import httpx
from together import (
    APIConnectionError,
    APIStatusError,
    AsyncTogether,
    DefaultAsyncHttpxClient,
    DefaultHttpxClient,
    Together,
    TogetherError,
)
from together.types import WhoamiProjectAPIKey

from unitune.backends.credentials import environment_address
from unitune.backends.kit.bodies import GZIP_ONLY, LARGEST_FILE, async_hooks, hooks
from unitune.backends.rate_limits import asked_pause
from unitune.errors import BackendError, Unreachable, UserError
from unitune.security.addresses import is_redirect, redirected
from unitune.security.redaction import redacted

KEY = "TOGETHER_API_KEY"
ADDRESS = "TOGETHER_BASE_URL"
PROJECT = "TOGETHER_PROJECT_ID"
TIMEOUT_SECONDS = 60.0
"""For each wait on the wire; the SDK's own default."""
CHAT_TIMEOUT_SECONDS = 180.0
"""A long answer comes in one piece."""
READ_RETRIES = 2
TRAININGS = "/v1/fine-tunes"
FOREIGN = (TogetherError, httpx.HTTPError, httpx.StreamError, json.JSONDecodeError)
"""What a call to the SDK raises; its file transfers let the HTTP client's own errors through."""
NOT_FOUND = 404
SHOWN = 1000
"""Characters of what the vendor says."""

Answer = TypeVar("Answer")


def api_key() -> str:
    """Return the key from the environment.

    Raises:
        UserError: It is not set.
    """
    key = os.environ.get(KEY)
    if not key:
        raise UserError(
            f"backend 'together' needs a key, and the environment variable {KEY} is not set. "
            f"Make a key at https://api.together.ai/settings/api-keys and export {KEY}."
        )
    return key


def chat_client() -> AsyncTogether:
    """Return a new client for answers; whoever asks for it closes it."""
    return AsyncTogether(
        api_key=api_key(),
        base_url=environment_address(ADDRESS),
        timeout=CHAT_TIMEOUT_SECONDS,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(
            follow_redirects=False, event_hooks=async_hooks(), headers=GZIP_ONLY
        ),
    )


class Connections(DefaultHttpxClient):
    """The SDK's HTTP client; like the SDK's own one it is closed when nobody holds it any more.

    Args:
        follow_redirects: Not where a key or a question is sent.
    """

    def __init__(self, *, follow_redirects: bool = False) -> None:
        # Weights are files of any size, written to the disk as they come.
        bounds = {} if follow_redirects else hooks(LARGEST_FILE)
        super().__init__(follow_redirects=follow_redirects, event_hooks=bounds, headers=GZIP_ONLY)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


class Connection:
    """The client of one backend, made when it is first needed."""

    @cached_property
    def writes(self) -> Together:
        """For calls that must not be repeated."""
        return self._new(follow_redirects=False, max_retries=0)

    @cached_property
    def reads(self) -> Together:
        """For calls that may be repeated."""
        return self.writes.with_options(max_retries=READ_RETRIES)

    @cached_property
    def files(self) -> Together:
        """For reading files, which may lie elsewhere: there the HTTP client sends no key."""
        return self._new(follow_redirects=True, max_retries=READ_RETRIES)

    def _new(self, *, follow_redirects: bool, max_retries: int) -> Together:
        return Together(
            api_key=api_key(),
            base_url=environment_address(ADDRESS),
            timeout=TIMEOUT_SECONDS,
            max_retries=max_retries,
            http_client=Connections(follow_redirects=follow_redirects),
        )

    def training(self, answer: type[Answer], *path: str, **query: object) -> Answer:
        """Return what Together says of its trainings.

        By its path, because the SDK's `fine_tuning` loads the types of all that Together offers:
        6 MiB, and who only watches trainings needs none of them.

        Args:
            answer: The SDK's type of it.
            path: Below that of all trainings.
            query: Parameters.
        """
        below = "".join(f"/{quote(part, safe='')}" for part in path)
        return self.reads.get(f"{TRAININGS}{below}", cast_to=answer, options={"params": query})

    @cached_property
    def project(self) -> str:
        """The project that endpoints stand in: the environment's, or the key's own.

        Raises:
            UserError: The key belongs to no project.
        """
        chosen = os.environ.get(PROJECT)
        if chosen:
            return chosen
        with translated("look up the project of the key"):
            caller = self.reads.whoami()
        if isinstance(caller, WhoamiProjectAPIKey):
            return caller.project.id
        raise UserError(
            f"the key in {KEY} belongs to no single project. Set {PROJECT} to the project that "
            "endpoints shall stand in; `tg projects list` shows them."
        )


@contextmanager
def translated(what: str) -> Generator[None]:
    """Raise what goes wrong at the vendor as an error of ours.

    Args:
        what: What was being done: "create the training", …
    """
    try:
        yield
    except FOREIGN as error:
        raise ours(error, what) from error


def ours(error: Exception, what: str) -> BackendError:
    """Return an error of the SDK as one of ours, without the key.

    Args:
        error: One of `FOREIGN`.
        what: What was being done.
    """
    if isinstance(error, APIStatusError):
        return _refusal(error.response, what)
    if isinstance(error, httpx.HTTPStatusError):
        return _refusal(error.response, what)
    if isinstance(error, APIConnectionError | httpx.HTTPError | httpx.StreamError):
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {cause}".rstrip(": ")
        return Unreachable(f"together did not answer when asked to {what} ({_hidden(reason)}).")
    if isinstance(error, json.JSONDecodeError):
        return Unreachable(f"together's answer when asked to {what} cannot be read: {error}.")
    return BackendError(f"together could not {what}: {_hidden(str(error))}")


def is_gone(error: BackendError) -> bool:
    """Return whether the vendor said that there is no such thing."""
    return error.status == NOT_FOUND


def _refusal(response: httpx.Response, what: str) -> BackendError:
    status = response.status_code
    hint = f" Check the key in {KEY}." if status in (401, 403) else ""
    moved = is_redirect(status)
    said = redirected(response.headers.get("location")) if moved else _words(response)
    words = _hidden(said)
    return BackendError(
        f"together could not {what} (HTTP {status}): {words}{hint}",
        status=status,
        request_id=response.headers.get("x-request-id"),
        retry_after=asked_pause(response.headers),
    )


def _words(response: httpx.Response) -> str:
    """Return the vendor's message from an error body of any of its shapes."""
    try:
        body: object = response.json()
    except (ValueError, RecursionError, httpx.StreamError):
        return _text(response) or "no reason given"
    while isinstance(body, dict):
        fields = cast("dict[str, object]", body)
        body = fields.get("message") or fields.get("error") or fields.get("detail")
    return str(body) if body else "no reason given"


def _text(response: httpx.Response) -> str:
    try:
        return response.text
    except httpx.StreamError:
        return ""


def _hidden(text: str) -> str:
    """Take the key out, in case that the vendor or a proxy repeats it."""
    return redacted(text, [os.environ.get(KEY)], SHOWN)
