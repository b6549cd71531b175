"""Send a request until it is answered or retrying is useless.

The limit of requests in flight grows by one per round of answers, at first by one per answer, and
is halved when the vendor limits the rate (additive increase, multiplicative decrease: Chiu and Jain
1989, Computer Networks 17:1). A vendor's pause applies to all requests of the account. A few
refusals among answers do not slow it down.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from unitune.backends.retry import MAX_RETRY_AFTER_SECONDS, reply_delay, retry_reply
from unitune.errors import BackendError, UnituneError
from unitune.evaluate.documents.records import Uncounted
from unitune.evaluate.inference.budget import BudgetGuard, most_tokens, without_impossible_counts
from unitune.models import ChatModel, Reply, Request
from unitune.security.json_fields import whole_text

# Low enough for the smallest accounts; at half a second per answer it doubles in half a second
FIRST_LIMIT = 8
# Default limit of requests in flight: at half a second per answer 7,700 a minute, more than most
# accounts allow
LIMIT = 64
# This many refusals in a window of replies mean that the rate is too high. With 5 % random
# refusals, that happens in one window of three thousand; an exceeded limit refuses whole rounds
WINDOW, REFUSALS = 20, 6


@dataclass(slots=True)
class AdaptiveLimiter:
    """Limiter of requests to one model, for one event loop."""

    most: int = LIMIT
    limit: float = 0.0
    _starting: bool = True
    _in_flight: int = 0
    _paused_until: float = 0.0
    _slowed: float = 0.0
    _refused: deque[bool] = field(default_factory=lambda: deque[bool](maxlen=WINDOW))
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque[asyncio.Future[None]])

    def __post_init__(self) -> None:
        self.limit = self.limit or float(min(FIRST_LIMIT, self.most))

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait until another request may be sent, and count it while the body runs."""
        while True:
            if (pause := self._paused_until - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            elif self._in_flight >= int(self.limit):
                self._waiting.append(asyncio.get_running_loop().create_future())
                await self._waiting[-1]
            else:
                break
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            # Wake as many as may be sent; each checks again itself.
            free = int(self.limit) - self._in_flight
            while self._waiting and free > 0:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(None)
                    free -= 1

    def answered(self) -> None:
        """Record an answer."""
        self._refused.append(False)
        self.limit = min(self.most, self.limit + (1 if self._starting else 1 / self.limit))

    def refused(self, sent: float, retry_after_seconds: float) -> None:
        """Record that the vendor limits the rate and asks for a pause.

        Refusals of requests sent before the last slowdown (`sent`, monotonic clock) are ignored.
        """
        self._refused.append(True)
        if sum(self._refused) < REFUSALS:
            return
        self.pause(retry_after_seconds)
        if sent >= self._slowed:
            self._slowed = time.monotonic()
            self._starting = False
            self.limit = max(1.0, min(self.limit, float(self._in_flight)) / 2)

    def pause(self, seconds: float) -> None:
        """Pause all requests, as the vendor asks."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


SHOWN = 1000  # maximum characters of an unexpected error
OVERLOADED = (429, 503, 529)  # too many requests, or too busy; 529 is Anthropic's code


class Outcome(NamedTuple):
    """Result of a request over all attempts."""

    reply: Reply
    uncounted: Uncounted | None = None

    def after(self, other: Outcome) -> Outcome:
        """Return this outcome plus the tokens of another request for the same answer."""
        prompt, completion = other.reply.prompt_tokens, other.reply.completion_tokens
        taken = other.uncounted
        if prompt is not None and completion is not None:
            taken = Uncounted(prompt_tokens=prompt, completion_tokens=completion)
        return Outcome(self.reply, Uncounted.total(taken, self.uncounted))


async def request_with_retry(
    model: ChatModel, request: Request, limiter: AdaptiveLimiter, guard: BudgetGuard | None = None
) -> Outcome:
    """Send a request until it is answered or retrying is useless. Raises OverBudget."""
    uncounted: Uncounted | None = None

    async def attempt() -> Reply:
        nonlocal uncounted
        async with limiter.turn():
            reply, more = await _attempt(model, request, limiter, guard)
        uncounted = Uncounted.total(uncounted, more)
        return reply

    return Outcome(await retry_reply(attempt), uncounted)


async def _attempt(
    model: ChatModel, request: Request, limiter: AdaptiveLimiter, guard: BudgetGuard | None
) -> Outcome:
    most = most_tokens(request)
    if guard is not None:
        await guard.reserve(most)
    sent = time.monotonic()
    try:
        reply = await model.reply(request)
    except BackendError as error:
        reply = Reply.failed(error)
    except UnituneError:
        raise  # about the job, not this answer
    except Exception as error:  # noqa: BLE001 - one odd answer must not end the comparison
        words = whole_text(f"the answer could not be read ({type(error).__name__}: {error})")
        reply = Reply(finish_reason="error", error=words[:SHOWN])
    reply = without_impossible_counts(most, reply)
    uncounted = None if guard is None else guard.settle(most, reply)
    pause = min(reply_delay(reply), MAX_RETRY_AFTER_SECONDS)
    if reply.status in OVERLOADED:
        limiter.refused(sent, pause)
    elif reply.error is None:
        limiter.answered()
        limiter.pause(pause)
    return Outcome(reply, uncounted)
