"""Reaching Anthropic: clients with what the environment names, and its errors in our words.

Not here: what is asked (`chat`, `batches`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
from anthropic import (
    Anthropic,
    AsyncAnthropic,
    DefaultAsyncHttpxClient,
    DefaultHttpxClient,
)

from unitune.backends.credentials import environment_address
from unitune.backends.kit.bodies import GZIP_ONLY, LARGEST_FILE, BodyError, async_hooks, hooks
from unitune.backends.rate_limits import asked_pause
from unitune.errors import BackendError, UnituneError, Unreachable, UserError
from unitune.security.addresses import is_redirect, redirected
from unitune.security.redaction import redacted

NAME = "anthropic"
ANSWER_SECONDS = 300.0
"""Longest wait for one answer."""
RETRIES = 4
"""Repeats of what may be repeated, after 408, 409, 429, 5xx or no answer."""
ADDRESS = "ANTHROPIC_BASE_URL"
SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
NO_KEY = "Claude cannot be asked without a key. Set ANTHROPIC_API_KEY."
ADVICE = {
    401: "Check ANTHROPIC_API_KEY.",
    404: "Check the model's name; `claude-` and what docs.claude.com lists.",
    429: "Wait, or raise the limit at Anthropic.",
}
"""What to do next, by status."""


def new_client() -> AsyncAnthropic:
    """Return a client with the key, address and proxy that the environment names.

    It sends a question once.
    """
    environment_address(ADDRESS)  # which the SDK reads
    connections = DefaultAsyncHttpxClient(
        follow_redirects=False, event_hooks=async_hooks(), headers=GZIP_ONLY
    )
    return AsyncAnthropic(timeout=ANSWER_SECONDS, max_retries=0, http_client=connections)


def new_sync_client() -> Anthropic:
    """Return one that waits for each answer, and repeats what may be repeated.

    Raises:
        UserError: No key is set.
    """
    environment_address(ADDRESS)
    connections = DefaultHttpxClient(
        follow_redirects=False, event_hooks=hooks(LARGEST_FILE), headers=GZIP_ONLY
    )
    client = Anthropic(timeout=ANSWER_SECONDS, max_retries=RETRIES, http_client=connections)
    if not client.auth_headers and client.custom_auth is None:
        client.close()
        raise UserError(NO_KEY)
    return client


@contextmanager
def vendor_errors(doing: str) -> Generator[None]:
    """Map what the SDK raises in the body, and what its streams let through.

    Args:
        doing: What is being done, as in "Anthropic could not DOING".

    Raises:
        BackendError: An answer with an error status.
        Unreachable: No answer, or none that can be read to its end.
    """
    try:
        yield
    except anthropic.AnthropicError as error:
        raise ours(error, doing) from error
    except (httpx2.HTTPError, json.JSONDecodeError) as error:
        # Once a stream has begun, the SDK maps nothing any more.
        raise Unreachable(
            f"Anthropic could not {doing}: no whole answer ({type(error).__name__})."
        ) from error


def ours(error: anthropic.AnthropicError, doing: str) -> UnituneError:
    """Return our error for one of the SDK's; the one place where they are known.

    Args:
        error: As the SDK raised it.
        doing: What was being done, as in "Anthropic could not DOING".
    """
    who = f"Anthropic could not {doing}"
    if isinstance(error, anthropic.APIStatusError):
        status, advice = error.status_code, ADVICE.get(error.status_code, "")
        words = f"{who}: {_said(error)} (HTTP {status}).{' ' + advice if advice else ''}"
        return BackendError(
            words,
            status=status,
            request_id=error.request_id,
            retry_after=asked_pause(error.response.headers),
        )
    if isinstance(error, anthropic.APITimeoutError):
        return Unreachable(f"{who}: no answer in time.")
    if isinstance(error, anthropic.APIConnectionError | anthropic.APIResponseValidationError):
        cause = error.__cause__ or error
        reason = str(cause) if isinstance(cause, BodyError) else type(cause).__name__
        return Unreachable(f"{who}: no whole answer ({reason}).")
    return UserError(f"{who}: {error}. Set ANTHROPIC_API_KEY.")


def safe(words: str) -> str:
    """Take the key out, in case that a gateway repeats it, and what ends a sentence.

    Args:
        words: Of an answer.
    """
    return redacted(words, map(os.environ.get, SECRETS)).rstrip(". ")


def _said(error: anthropic.APIStatusError) -> str:
    """Return Anthropic's own words; its errors are ``{error: {type, message}}``."""
    if is_redirect(error.status_code):
        return safe(redirected(error.response.headers.get("location")))
    body: Any = error.body
    try:
        words = body["error"]["message"]
    except (KeyError, TypeError):
        words = error.message
    return safe(str(words))
