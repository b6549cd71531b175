"""How long a vendor asks to wait, from the headers of its answers.

`parse_retry_after` reads what comes with a refusal, `rate_limit_delay` what comes with any answer:
once no request or token is left, the next would be refused. `believable` is for what others have
read. How much of it is waited for, at most `MAX_RETRY_AFTER_SECONDS`, is the business of
`unitune.backends.retry` and of `unitune.evaluate.inference`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 60.0
"""Nobody waits longer at a time, whatever a vendor says: meanwhile a budget may be spent."""
LONGEST_BELIEVED_SECONDS = 31 * 86_400.0
"""No quota is counted by more than a month, so a longer wait is a mistake."""
BUCKETS = (
    "x-ratelimit-{}",
    "x-ratelimit-{}-requests",
    "x-ratelimit-{}-tokens",
    "anthropic-ratelimit-requests-{}",
    "anthropic-ratelimit-tokens-{}",
    "anthropic-ratelimit-input-tokens-{}",
    "anthropic-ratelimit-output-tokens-{}",
)
"""Names of the headers that tell of a bucket, with a place for limit, remaining and reset."""
SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def believable(seconds: float | None) -> float | None:
    """Return the seconds that a vendor asks to wait; None where that is no time to wait.

    Args:
        seconds: As it was read; NaN, below 0 or beyond `LONGEST_BELIEVED_SECONDS`, perhaps.
    """
    if seconds is None or math.isnan(seconds) or not 0 <= seconds <= LONGEST_BELIEVED_SECONDS:
        return None
    return seconds


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a vendor asks to wait before the next request, where it does.

    Args:
        headers: Of a refusal, by names in lower case or without regard to it.

    Source:
        RFC 9110, 10.2.3 (seconds, or a date); ``retry-after-ms`` as OpenAI and Azure send it and
        the openai SDK 3 reads it.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return believable(milliseconds / 1000)
    value = headers.get("retry-after", "")
    if (seconds := _number(value)) is not None:
        return believable(seconds)
    try:
        left = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return believable(max(0.0, left))


def rate_limit_delay(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait before the next request, when none is left for now.

    Vendors fill a bucket steadily and say when it is full again. To wait for that would waste
    minutes; what is waited for is one request, or a hundredth of the bucket where that is more.

    Args:
        headers: Of any answer.

    Source:
        OpenAI's headers as published answers show them (``x-ratelimit-limit-requests``,
        ``-remaining-``, ``-reset-requests: 12ms``; reset is the time to the initial state);
        Together, Rate limits (``x-ratelimit-limit``, ``-remaining``, ``-reset``); Anthropic's
        (``anthropic-ratelimit-requests-remaining``, ``-reset`` as RFC 3339 time) as users of it
        document them. Read 2026-11-25.
    """
    pauses = [
        full * max(1 / limit, 0.01)
        for name in BUCKETS
        if _number(headers.get(name.format("remaining"))) == 0
        and (limit := _number(headers.get(name.format("limit"))))
        and (full := _seconds_until(headers.get(name.format("reset"), ""))) is not None
    ]
    return believable(max(pauses, default=None))


def _seconds_until(reset: str) -> float | None:
    """Read seconds, a span such as ``6m0s``, or a time."""
    if (seconds := _number(reset)) is not None:
        # A number this large is a time, in seconds since 1970.
        return max(0.0, seconds - time.time()) if seconds > 1e9 else seconds
    if spans := SPAN.findall(reset):
        if "".join(number + unit for number, unit in spans) == reset:
            return sum(float(number) * UNIT_SECONDS[unit] for number, unit in spans)
        return None
    try:
        return max(0.0, (datetime.fromisoformat(reset) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    """Read a number that is none of infinity, NaN or below 0."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
