"""Waiting for a vendor: whether and when the same request is sent again.

What the vendor requests comes first, bounded by `MAX_RETRY_AFTER_SECONDS`; else delays grow.
`parse_retry_after` reads what comes with a refusal, `rate_limit_delay` what comes with any answer:
once no request or token is left, the next would be refused. Only what may be repeated is repeated
here; create calls belong to `exactly_once`.
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

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 1.0, 15.0
READ_ATTEMPTS = 3  # for a request that changes nothing

# Of one request: the pauses between them, 0.5 to 8 seconds, outlive some ten seconds of trouble.
# The openai and anthropic SDKs try three times by default; an evaluation of hours would feel that.
ATTEMPTS = 6
# Before the second attempt, doubled for each further one; as in those SDKs
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0

# Nobody waits longer at a time, whatever a vendor says: meanwhile a budget may be spent
MAX_RETRY_AFTER_SECONDS = 60.0
# No quota is counted by more than a month, so a longer wait is a mistake
LONGEST_BELIEVED_SECONDS = 31 * 86_400.0
# Names of the headers that tell of a bucket, with a place for limit, remaining and reset
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


def delays(longest: float = LONGEST_DELAY_SECONDS) -> Iterator[float]:
    """Yield the seconds between attempts: 1, 2, 4, 8, … up to the longest, then that for ever."""
    delay = FIRST_DELAY_SECONDS
    while True:
        yield delay
        delay = min(2 * delay, longest)


def retry_delay(error: BaseException | None, otherwise: float) -> float:
    """Return the seconds to wait that the vendor requests, bounded, or else ours."""
    requested = _retry_after(error)
    return otherwise if requested is None else min(requested, MAX_RETRY_AFTER_SECONDS)


def is_delay_too_long(error: BaseException) -> bool:
    """Return whether the vendor asks for a longer wait than `MAX_RETRY_AFTER_SECONDS`."""
    return (_retry_after(error) or 0.0) > MAX_RETRY_AFTER_SECONDS


def sleep(seconds: float) -> None:
    """Do nothing for a while; Ctrl-C ends it."""
    time.sleep(seconds)


def retry_rate_limited(call: Callable[[], Result], seconds: float) -> Result:
    """Repeat a call for so long as the vendor refuses it for its rate.

    Raises:
        UnituneError: Any other error at once; the rate limit when the time is over.
    """
    return _repeat(call, lambda error: error.is_rate_limited, stop_before_delay(seconds))


async def retry_reply(attempt: Callable[[], Awaitable[Reply]]) -> Reply:
    """Send a request until there is a reply, or sending it again is of no use."""

    async def whole() -> AsyncGenerator[str | Reply]:
        yield await attempt()

    return cast("Reply", [piece async for piece in retry_stream(whole)][-1])


async def retry_stream(
    attempt: Callable[[], AsyncGenerator[str | Reply]],
) -> AsyncGenerator[str | Reply]:
    """Yield the pieces of an answer and its reply, as `retry_reply` sends the request again.

    What has begun to come is not sent again: its failure is the reply.
    """
    reply, has_text = Reply(), False
    for sent in range(ATTEMPTS):
        if sent:
            longest = min(FIRST_PAUSE_SECONDS * 2 ** (sent - 1), LONGEST_PAUSE_SECONDS)
            # Requests that failed together are not to come back together.
            pause = longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
            await asyncio.sleep(reply_delay(reply) or pause)
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
    """Return the seconds that the vendor asks to wait after a reply; 0 where it does not."""
    return believable(reply.retry_after_seconds) or 0.0


def retry_read(call: Callable[[], Result], attempts: int | None = None) -> Result:
    """Repeat a call that changes nothing after silence, a rate limit or a failure of the vendor.

    Args:
        call: Made at least once.
        attempts: How often at most; None: `READ_ATTEMPTS`.

    Raises:
        UnituneError: Any other error at once; the last error after so many attempts.
    """
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
    return Retrying(retry=retry, wait=_delay, stop=stop, sleep=_sleep, reraise=True)(call)


def _delay(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    grown = wait_exponential(min=FIRST_DELAY_SECONDS, max=LONGEST_DELAY_SECONDS)(state)
    return retry_delay(error, grown)


def _sleep(seconds: float) -> None:
    sleep(seconds)  # looked up at each call, so that a test may replace it


def _retry_after(error: BaseException | None) -> float | None:
    return believable(error.retry_after) if isinstance(error, BackendError) else None


def believable(seconds: float | None) -> float | None:
    """Return the seconds that a vendor requests to wait; None where they are no time to wait."""
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
