"""Waiting for a vendor: whether and when the same request is sent again.

What the vendor asks for (Retry-After) comes first, bounded by `MAX_RETRY_AFTER_SECONDS`; else
delays grow. Only what may be repeated is repeated here; create calls belong to `exactly_once`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
)
from tenacity.stop import stop_base

from unitune.backends.rate_limits import MAX_RETRY_AFTER_SECONDS, believable
from unitune.errors import BackendError
from unitune.models import Reply

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 1.0, 15.0
READ_ATTEMPTS = 3
"""Of a request that changes nothing."""

ATTEMPTS = 6
"""Of one request: the pauses between them, 0.5 to 8 seconds, outlive some ten seconds of trouble.
The openai and anthropic SDKs try three times by default; an evaluation of hours would feel that."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
"""Before the second attempt, doubled for each further one; as in those SDKs."""

Result = TypeVar("Result")


def delays(longest: float = LONGEST_DELAY_SECONDS) -> Iterator[float]:
    """Yield the seconds between attempts: 1, 2, 4, 8, … up to the longest, then that for ever.

    Args:
        longest: In seconds.
    """
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
    """Repeat a call for as long as the vendor refuses it for its rate.

    Args:
        call: What may be repeated.
        seconds: How long to go on.

    Raises:
        UnituneError: Any other error at once; the rate limit when the time is over.
    """
    return _repeat(call, _is_rate_limited, stop_before_delay(seconds))


async def retry_reply(attempt: Callable[[], Awaitable[Reply]]) -> Reply:
    """Send a request until there is a reply, or sending it again is of no use.

    Args:
        attempt: Sends it once; a failure is in the reply's `error`.
    """
    reply = Reply()
    for sent in range(ATTEMPTS):
        if sent:
            await asyncio.sleep(reply_delay(reply) or _growing_pause(sent))
        reply = await attempt()
        if not reply.retryable or reply_delay(reply) > MAX_RETRY_AFTER_SECONDS:
            break
    return reply


def reply_delay(reply: Reply) -> float:
    """Return the seconds that the vendor asks to wait after a reply; 0 where it does not."""
    return believable(reply.retry_after_seconds) or 0.0


def _growing_pause(sent: int) -> float:
    longest = min(FIRST_PAUSE_SECONDS * 2 ** (sent - 1), LONGEST_PAUSE_SECONDS)
    # Requests that failed together are not to come back together.
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret


def retry_read(call: Callable[[], Result]) -> Result:
    """Repeat a call that changes nothing after silence, a rate limit or a failure of the vendor.

    Raises:
        UnituneError: Any other error at once; the last error after `READ_ATTEMPTS`.
    """
    return _repeat(call, _is_transient, stop_after_attempt(READ_ATTEMPTS))


def _repeat(
    call: Callable[[], Result], is_worth_it: Callable[[BaseException], bool], stop: stop_base
) -> Result:
    retry = retry_if_exception(lambda error: is_worth_it(error) and not is_delay_too_long(error))
    return Retrying(retry=retry, wait=_delay, stop=stop, sleep=_sleep, reraise=True)(call)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, BackendError) and error.is_retryable


def _delay(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    grown = wait_exponential(min=FIRST_DELAY_SECONDS, max=LONGEST_DELAY_SECONDS)(state)
    return retry_delay(error, grown)


def _sleep(seconds: float) -> None:
    sleep(seconds)  # looked up at each call, so that a test may replace it


def _is_rate_limited(error: BaseException) -> bool:
    return isinstance(error, BackendError) and error.is_rate_limited


def _retry_after(error: BaseException | None) -> float | None:
    return believable(error.retry_after) if isinstance(error, BackendError) else None
