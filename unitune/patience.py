"""Waiting for a vendor: which failures pass, and how long to wait before asking again.

Only what may be repeated is repeated here; a create call is not (`unitune.runs.launching`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from unitune.errors import BackendError, UnituneError, Unreachable
from unitune.ratelimits import LONGEST_WISH_SECONDS, believable

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 15.0
REQUEST_TIMEOUT = 408
RATE_LIMITED = 429
SERVER_ERRORS = 500

Answer = TypeVar("Answer")


def outcome_open(error: UnituneError) -> bool:
    """Return whether a request may have taken effect; a 4xx proves that it did not."""
    if isinstance(error, Unreachable):
        return True
    status = error.status if isinstance(error, BackendError) else None
    return status is not None and (status >= SERVER_ERRORS or status == REQUEST_TIMEOUT)


def rate_limited(error: UnituneError) -> bool:
    """Return whether the vendor was asked too often, and has done nothing."""
    return isinstance(error, BackendError) and error.status == RATE_LIMITED


def passes(error: UnituneError) -> bool:
    """Return whether the same request may be answered later."""
    return outcome_open(error) or rate_limited(error)


def pauses(longest: float = LONGEST_PAUSE_SECONDS) -> Iterator[float]:
    """Yield the seconds between tries: 1, 2, 4, 8, and so on up to the longest, then that for ever.

    Args:
        longest: In seconds.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, longest)


def wished(error: UnituneError, pause: float) -> float:
    """Return the pause that the vendor asks for, bounded, or else ours."""
    wish = _wish(error)
    return pause if wish is None else min(wish, LONGEST_WISH_SECONDS)


def wishes_too_much(error: UnituneError) -> bool:
    """Return whether the vendor asks for a longer pause than anyone waits at a time."""
    return (_wish(error) or 0.0) > LONGEST_WISH_SECONDS


def wait(seconds: float) -> None:
    """Do nothing for a while; Ctrl-C ends it."""
    time.sleep(seconds)


def patiently(ask: Callable[[], Answer], seconds: float) -> Answer:
    """Ask again for as long as the vendor says that it is asked too often.

    Args:
        ask: What may be repeated.
        seconds: How long to go on.

    Raises:
        UnituneError: Any other error at once; the rate limit when the time is over.
    """
    end = time.monotonic() + seconds
    for pause in pauses():
        try:
            return ask()
        except BackendError as error:
            longer = wished(error, pause)
            too_late = wishes_too_much(error) or time.monotonic() + longer > end
            if too_late or not rate_limited(error):
                raise
            wait(longer)
    raise AssertionError("pauses never end")


def _wish(error: UnituneError) -> float | None:
    return believable(error.retry_after) if isinstance(error, BackendError) else None
