"""The SDK's errors as ours: the one place where openai's exceptions are known.

An answer with a status becomes `BackendError`, which says whether the request was refused (4xx) or
may have taken effect (5xx); no answer, or one that was cut short, becomes `Unreachable`.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

import openai

from unitune.backends.rate_limits import asked_pause
from unitune.errors import BackendError, Unreachable
from unitune.security.addresses import is_redirect, redirected
from unitune.security.json_fields import Unreadable
from unitune.security.redaction import redacted
from unitune_providers.openai.server import Server

ADVICE = {
    401: "Check the key in {variable}.",
    403: "The key's organisation or project may not do this.",
    429: "Wait, or raise the limit at the vendor.",
}
"""What to do next, by status."""
SDK_ERRORS = (openai.OpenAIError, json.JSONDecodeError, Unreadable)
"""All that comes of a request that has no good answer."""


@contextmanager
def our_errors(server: Server, doing: str) -> Generator[None]:
    """Turn what the SDK raises into our errors.

    Args:
        server: Who is asked.
        doing: What for, as in "could not DOING".

    Raises:
        BackendError: The vendor answered with an error.
        Unreachable: It did not answer, or its answer was cut short.
    """
    try:
        yield
    except SDK_ERRORS as error:
        raise ours(error, server, doing) from error


def ours(
    error: openai.OpenAIError | json.JSONDecodeError | Unreadable, server: Server, doing: str
) -> BackendError:
    """Return our error for one of the SDK's.

    Args:
        error: As the SDK raised it.
        server: Who was asked.
        doing: What for, as in "could not DOING".
    """
    who = f"{server.backend} could not {doing}"
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        told = error.body
        if is_redirect(status):
            told = {"message": redirected(error.response.headers.get("location"))}
        words = refusal(server, doing, status, told, otherwise=error.message)
        return BackendError(
            words,
            status=status,
            request_id=error.request_id,
            retry_after=asked_pause(error.response.headers),
        )
    if isinstance(error, openai.APITimeoutError):
        return Unreachable(f"{who}: no answer from {server.url} in time.")
    if isinstance(error, openai.APIConnectionError | ValueError):
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        reason = f"{type(cause).__name__}: {cause}" if cause else "the connection failed"
        return Unreachable(
            f"{who}: no whole answer from {server.url} ({without_key(reason, server)})."
        )
    return BackendError(f"{who}: {without_key(str(error), server)}")


def refusal(server: Server, doing: str, status: int, told: object, *, otherwise: str) -> str:
    """Return what to say of an answer with a status that is none of success.

    Args:
        server: Who answered.
        doing: What for, as in "could not DOING".
        status: HTTP status.
        told: The error in its body, with `message` and `code`.
        otherwise: Words for one without a message.
    """
    body = cast("dict[str, object]", told) if isinstance(told, dict) else dict[str, object]()
    words, code = str(body.get("message") or otherwise), str(body.get("code") or "")
    if code and code != str(status) and code not in words:
        words = f"{words.rstrip('. ')} [{code}]"
    said = without_key(words, server).rstrip(". ")
    advice = ADVICE.get(status, "").format(variable=server.key_variable)
    whole = f"{server.backend} could not {doing}: {said} (HTTP {status})."
    return whole + (f" {advice}" if advice else "")


def without_key(words: str, server: Server) -> str:
    """Return a vendor's words with the key blotted out.

    Args:
        words: As the vendor said them.
        server: Whose key it is.
    """
    return redacted(words, [server.key])
