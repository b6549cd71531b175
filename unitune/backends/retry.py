"""Waiting for a vendor: how long to wait before the same request is sent again.

Only what may be repeated is repeated here; a create call is not (`unitune.runs.launching`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from unitune.backends.rate_limits import LONGEST_WISH_SECONDS, believable
from unitune.errors import BackendError, UnituneError

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 15.0

Answer = TypeVar("Answer")


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
            if too_late or not error.is_rate_limited:
                raise
            wait(longer)
    raise AssertionError("pauses never end")


def _wish(error: UnituneError) -> float | None:
    return believable(error.retry_after) if isinstance(error, BackendError) else None
