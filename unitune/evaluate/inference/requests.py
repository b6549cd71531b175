"""One request, sent in its turn until there is an answer or another attempt is of no use.

A failure that passes (rate limit, server error, no answer) is met by another attempt, as
`unitune.backends.retry.retry_reply` does; here each attempt also takes its turn and its budget.

How many requests may be in flight at a model is learned as it answers. The limit grows by one for
each round of answers, at first by one for each answer, and is halved when the vendor limits the
rate: additive increase, multiplicative decrease, as TCP shares a line (Chiu and Jain 1989, Computer
Networks 17:1). A pause that the vendor asks for then holds for every request, since its limits are
an account's. A few refusals among answers are those requests' own: to slow down for each would
leave little, as a line that loses packets by chance leaves TCP.
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
from unitune.evaluate.inference.budget import BudgetGuard, without_impossible_counts
from unitune.evaluate.records import Uncounted
from unitune.models import ChatModel, Reply, Request
from unitune.security.json_fields import whole_text

# Small enough for the least of accounts; answers of half a second double it in half a second
FIRST_LIMIT = 8
# Most requests in flight unless the job says otherwise: at half a second an answer 7,700 a minute,
# which is beyond most accounts' limits
LIMIT = 64
# So many refusals among so many last replies, and the rate is to blame: of 5 % refused by chance
# that is one window in three thousand, while a limit that is passed refuses whole rounds
WINDOW, REFUSALS = 20, 6


@dataclass(slots=True)
class AdaptiveLimiter:
    """The limiter at one model; belongs to one event loop."""

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
            # As many go on as may be sent; each looks for itself whether it still may.
            free = int(self.limit) - self._in_flight
            while self._waiting and free > 0:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(None)
                    free -= 1

    def answered(self) -> None:
        """Take note of an answer."""
        self._refused.append(False)
        self.limit = min(self.most, self.limit + (1 if self._starting else 1 / self.limit))

    def refused(self, sent: float, retry_after_seconds: float) -> None:
        """Take note that the vendor limits the rate.

        Args:
            sent: When the refused request was sent, on the monotonic clock. Of requests that were
                sent before the last slowing down, more refusals say nothing new.
            retry_after_seconds: What the vendor asks to wait.
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
        """Send nothing for a while, as the vendor asks."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


SHOWN = 1000  # characters of an unforeseen error
OVERLOADED = (429, 503, 529)  # too many requests, or too busy: 529 is Anthropic's own


class Outcome(NamedTuple):
    """What came of a request, all attempts together."""

    reply: Reply
    uncounted: Uncounted | None = None

    def after(self, other: Outcome) -> Outcome:
        """Return this outcome with what another request for the same answer took."""
        prompt, completion = other.reply.prompt_tokens, other.reply.completion_tokens
        taken = other.uncounted
        if prompt is not None and completion is not None:
            taken = Uncounted(prompt_tokens=prompt, completion_tokens=completion)
        return Outcome(self.reply, Uncounted.total(taken, self.uncounted))


async def request_with_retry(
    model: ChatModel, request: Request, limiter: AdaptiveLimiter, guard: BudgetGuard | None = None
) -> Outcome:
    """Send a request until there is an answer, or another attempt is of no use.

    Raises:
        OverBudget: The guard does not hold what the next attempt may cost.
    """
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
    if guard is not None:
        await guard.reserve(request)
    sent = time.monotonic()
    try:
        reply = await model.reply(request)
    except BackendError as error:
        reply = Reply.failed(error)
    except UnituneError:
        raise  # about the job, and not about this answer
    except Exception as error:  # noqa: BLE001 - one odd answer must not end the comparison
        words = whole_text(f"the answer could not be read ({type(error).__name__}: {error})")
        reply = Reply(finish_reason="error", error=words[:SHOWN])
    reply = without_impossible_counts(request, reply)
    uncounted = None if guard is None else guard.settle(request, reply)
    pause = min(reply_delay(reply), MAX_RETRY_AFTER_SECONDS)
    if reply.status in OVERLOADED:
        limiter.refused(sent, pause)
    elif reply.error is None:
        limiter.answered()
        limiter.pause(pause)
    return Outcome(reply, uncounted)
