"""The SDK's errors as ours: the one place where openai's exceptions are known.

An answer with a status becomes `BackendError`, which says whether the request was refused (4xx) or
may have taken effect (5xx); no answer, or one that was cut short, becomes `Unreachable`.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import cast

import openai

from unitune.errors import BackendError, Unreachable
from unitune_providers.openai.server import Server

ADVICE = {
    401: "Check the key in {variable}.",
    403: "The key's organisation or project may not do this.",
    429: "Wait, or raise the limit at the vendor.",
}
"""What to do next, by status."""


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
    except (openai.OpenAIError, json.JSONDecodeError) as error:
        raise ours(error, server, doing) from error


def ours(error: openai.OpenAIError | json.JSONDecodeError, server: Server, doing: str) -> Exception:
    """Return our error for one of the SDK's.

    Args:
        error: As the SDK raised it.
        server: Who was asked.
        doing: What for, as in "could not DOING".
    """
    who = f"{server.backend} could not {doing}"
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        advice = ADVICE.get(status, "").format(variable=server.key_variable)
        words = f"{who}: {said(error, server)} (HTTP {status})." + (f" {advice}" if advice else "")
        return BackendError(
            words,
            status=status,
            request_id=error.request_id,
            retry_after=pause_of(error.response.headers),
        )
    if isinstance(error, openai.APITimeoutError):
        return Unreachable(f"{who}: no answer from {server.url} in time.")
    if isinstance(error, openai.APIConnectionError | json.JSONDecodeError):
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        reason = f"{type(cause).__name__}: {cause}" if cause else "the connection failed"
        return Unreachable(f"{who}: no whole answer from {server.url} ({_safe(reason, server)}).")
    return BackendError(f"{who}: {_safe(str(error), server)}")


def said(error: openai.APIStatusError, server: Server) -> str:
    """Return the vendor's own words, without a full stop at the end.

    Args:
        error: As the SDK raised it.
        server: Who was asked.
    """
    told = error.body
    body = cast("dict[str, object]", told) if isinstance(told, dict) else dict[str, object]()
    words = str(body.get("message") or error.message)
    if error.code and error.code != str(error.status_code) and error.code not in words:
        words = f"{words.rstrip('. ')} [{error.code}]"
    return _safe(words, server).rstrip(". ")


def pause_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the vendor asks to wait; a date is left to the caller's patience.

    Args:
        headers: Of its answer.
    """
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return None


def _safe(words: str, server: Server) -> str:
    return words.replace(server.key, "***")
