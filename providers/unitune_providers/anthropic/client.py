"""Reaching Anthropic: clients with what the environment names, and its errors in our words.

Not here: what is asked (`chat`, `batches`).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import anthropic
import httpx2
from anthropic import (
    Anthropic,
    AsyncAnthropic,
    DefaultAsyncHttpxClient,
    DefaultHttpxClient,
)

from unitune.backends.credentials import environment_address
from unitune.backends.kit.bodies import GZIP_ONLY, LARGEST_FILE, async_hooks, hooks
from unitune.backends.kit.errors import BROKEN, ErrorTable, Vendor, error_of_response, vendor_errors
from unitune.errors import UserError
from unitune.security.redaction import redacted

NAME = "anthropic"
ANSWER_SECONDS = 300.0
"""Longest wait for one answer."""
RETRIES = 4
"""Repeats of what may be repeated, after 408, 409, 429, 5xx or no answer."""
ADDRESS = "ANTHROPIC_BASE_URL"
SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
NO_KEY = "Claude cannot be asked without a key. Set ANTHROPIC_API_KEY."
VENDOR = Vendor(
    "Anthropic",
    "ANTHROPIC_API_KEY",
    advice={404: "Check the model's name; `claude-` and what docs.claude.com lists."},
)
SDK_ERRORS = ErrorTable(
    {anthropic.APIStatusError: error_of_response},
    # Once a stream has begun, the SDK maps nothing any more.
    (anthropic.APIConnectionError, anthropic.APIResponseValidationError, httpx2.HTTPError, *BROKEN),
    (anthropic.AnthropicError,),
)


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


def errors(doing: str) -> AbstractContextManager[None]:
    """Raise the SDK's errors as ours, and what its streams let through; see `vendor_errors`."""
    return vendor_errors(VENDOR, doing, SDK_ERRORS)


def safe(words: str) -> str:
    """Take the key out, in case that a gateway repeats it, and what ends a sentence."""
    return redacted(words, map(os.environ.get, SECRETS)).rstrip(". ")
