"""Retry requests to a vendor after delays.

A delay requested by the vendor comes first, up to `MAX_RETRY_AFTER_SECONDS`; otherwise delays grow.
Only requests that are safe to repeat are repeated here; create calls belong to `exactly_once`.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar, cast

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
)
from tenacity.stop import stop_base

from unitune.errors import BackendError
from unitune.models import Reply
from unitune.observability.logs import Log, cause_of
from unitune.observability.traces import count_retry

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 1.0, 15.0
READ_ATTEMPTS = 3  # of a request that changes nothing

# Attempts of one request; the pauses between them, 0.5 to 8 s, outlast some ten seconds of trouble.
# The openai and anthropic SDKs try three times by default, too few for an evaluation of hours.
ATTEMPTS = 6
# Pause before the second attempt, doubled for each further one, as in those SDKs
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0

# Upper bound for one wait, whatever Retry-After says, so that budgets are still checked
MAX_RETRY_AFTER_SECONDS = 60.0
# No quota has a longer period than a month, so a longer wait is a mistake
LONGEST_BELIEVED_SECONDS = 31 * 86_400.0
# Rate limit headers, with a placeholder for limit, remaining and reset
BUCKETS = (
    "x-ratelimit-{}",
    "x-ratelimit-{}-requests",
    "x-ratelimit-{}-tokens",
    "anthropic-ratelimit-requests-{}",
    "anthropic-ratelimit-tokens-{}",
    "anthropic-ratelimit-input-tokens-{}",
    "anthropic-ratelimit-output-tokens-{}",
)
SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
Result = TypeVar("Result")
log = Log(__name__)


def delays(longest: float = LONGEST_DELAY_SECONDS) -> Iterator[float]:
    """Yield the seconds between attempts: 1, 2, 4, 8, … up to the longest, for ever."""
    delay = FIRST_DELAY_SECONDS
    while True:
        yield delay
        delay = min(2 * delay, longest)


def retry_delay(error: BaseException | None, otherwise: float) -> float:
    """Return the delay requested by the vendor, bounded, or else `otherwise`."""
    requested = _retry_after(error)
    return otherwise if requested is None else min(requested, MAX_RETRY_AFTER_SECONDS)


def is_delay_too_long(error: BaseException) -> bool:
    """Return whether the vendor requests a longer delay than `MAX_RETRY_AFTER_SECONDS`."""
    return (_retry_after(error) or 0.0) > MAX_RETRY_AFTER_SECONDS


def sleep(seconds: float) -> None:
    """Sleep; Ctrl-C interrupts it."""
    time.sleep(seconds)


def retry_rate_limited(call: Callable[[], Result], seconds: float) -> Result:
    """Repeat a call while it is rate-limited, for at most `seconds`; raise any other error."""
    return _repeat(call, lambda error: error.is_rate_limited, stop_before_delay(seconds))


async def retry_reply(attempt: Callable[[], Awaitable[Reply]]) -> Reply:
    """Send a request until it succeeds or a retry is useless."""

    async def whole() -> AsyncGenerator[str | Reply]:
        yield await attempt()

    return cast("Reply", [piece async for piece in retry_stream(whole)][-1])


async def retry_stream(
    attempt: Callable[[], AsyncGenerator[str | Reply]],
) -> AsyncGenerator[str | Reply]:
    """Yield the pieces of an answer and its reply; retry only before the first piece."""
    reply, has_text = Reply(), False
    for sent in range(ATTEMPTS):
        if sent:
            longest = min(FIRST_PAUSE_SECONDS * 2 ** (sent - 1), LONGEST_PAUSE_SECONDS)
            # Spread retries of requests that failed together.
            pause = longest * random.uniform(0.5, 1)  # noqa: S311 - not a secret
            pause = reply_delay(reply) or pause
            report_retry(sent, pause, status=reply.status)
            await asyncio.sleep(pause)
        async with aclosing(attempt()) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reply):
                    reply = piece
                else:
                    has_text = True
                    yield piece
        if has_text or reply_delay(reply) > MAX_RETRY_AFTER_SECONDS or not reply.retryable:
            break
    yield reply


def reply_delay(reply: Reply) -> float:
    """Return the delay requested with a reply in seconds; 0 without one."""
    return believable(reply.retry_after_seconds) or 0.0


def retry_read(call: Callable[[], Result], attempts: int | None = None) -> Result:
    """Repeat a read after a missing answer, a rate limit or a failure of the vendor."""
    return _repeat(
        call, lambda error: error.is_retryable, stop_after_attempt(attempts or READ_ATTEMPTS)
    )


def _repeat(
    call: Callable[[], Result], is_worth_it: Callable[[BackendError], bool], stop: stop_base
) -> Result:
    def again(error: BaseException) -> bool:
        is_of_vendor = isinstance(error, BackendError) and is_worth_it(error)
        return is_of_vendor and not is_delay_too_long(error)

    retry = retry_if_exception(again)
    retrying = Retrying(retry=retry, wait=_delay, stop=stop, sleep=_sleep, reraise=True)
    return retrying.copy(before_sleep=_before_sleep)(call)


def _delay(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    grown = wait_exponential(min=FIRST_DELAY_SECONDS, max=LONGEST_DELAY_SECONDS)(state)
    return retry_delay(error, grown)


def report_retry(sent: int, pause: float, **cause: object) -> None:
    """Log and count a failed attempt that is repeated after a pause (see `logs.cause_of`)."""
    count_retry()
    why = f"HTTP {cause['status']}" if cause.get("status") else "no answer"
    log.info("attempt %d failed (%s); the next one is in %.1f s", sent, why, pause, **cause)


def _before_sleep(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    report_retry(state.attempt_number, pause, **cause_of(error))


def _sleep(seconds: float) -> None:
    sleep(seconds)  # looked up at each call, so that tests can replace it


def _retry_after(error: BaseException | None) -> float | None:
    return believable(error.retry_after) if isinstance(error, BackendError) else None


def believable(seconds: float | None) -> float | None:
    """Return a requested delay in seconds; None if it is implausible."""
    if seconds is None or math.isnan(seconds) or not 0 <= seconds <= LONGEST_BELIEVED_SECONDS:
        return None
    return seconds


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the delay in seconds that a vendor requests, or None.

    Args:
        headers: Headers of a refusal, with lower-case or case-insensitive names.

    Source:
        RFC 9110, 10.2.3 (seconds or a date); ``retry-after-ms`` as sent by OpenAI and Azure and
        read by the openai SDK 3.
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
    """Return the seconds to wait if no request is left in a rate limit, or None.

    Vendors refill a bucket steadily and report when it is full. The delay is the time for one
    request or a hundredth of the bucket, whichever is longer, as waiting for all wastes minutes.

    Args:
        headers: Headers of any answer.

    Source:
        OpenAI's headers in published answers (``x-ratelimit-limit-requests``,
        ``-remaining-``, ``-reset-requests: 12ms``; reset is the time to the initial state);
        Together, Rate limits (``x-ratelimit-limit``, ``-remaining``, ``-reset``); Anthropic's
        (``anthropic-ratelimit-requests-remaining``, ``-reset`` as RFC 3339 time) as documented by
        its users. Read 2026-11-25.
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
    """Parse seconds, a span such as ``6m0s``, or a time."""
    if (seconds := _number(reset)) is not None:
        # Such a large number is a time in seconds since 1970.
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
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
