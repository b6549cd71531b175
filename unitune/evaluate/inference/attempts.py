"""One request, sent until there is an answer or asking again is of no use.

A failure that passes (asked too often, out of order, no answer) is met by another attempt, a few
times and with the pauses that the vendor asks for, or else pauses that grow.

Not here: many requests (`unitune.evaluate.inference.engine`).
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import NamedTuple

from unitune.backends.rate_limits import LONGEST_WISH_SECONDS, believable
from unitune.errors import BackendError, UnituneError
from unitune.evaluate.inference.budget import BudgetGuard, believed
from unitune.evaluate.inference.rate_limiter import AdaptiveLimiter
from unitune.evaluate.records import Uncounted
from unitune.models import ChatModel, Reply, Request
from unitune.security.json_fields import whole_text

ATTEMPTS = 6
"""Of one request: the pauses between them, 0.5 to 8 seconds, outlive some ten seconds of trouble.
The openai and anthropic SDKs try three times by default; an evaluation of hours would feel that."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
"""Before the second attempt, doubled for each further one; as in those SDKs."""
SHOWN = 1000
"""Characters of an error that nobody has foreseen."""
OVERLOADED = (429, 503, 529)
"""Asked too often, or too busy: 529 is Anthropic's own."""


class Outcome(NamedTuple):
    """What came of a request, all attempts together."""

    reply: Reply
    uncounted: Uncounted | None = None

    def after(self, other: Outcome) -> Outcome:
        """Return this one with what another request for the same answer took."""
        prompt, completion = other.reply.prompt_tokens, other.reply.completion_tokens
        taken = other.uncounted
        if prompt is not None and completion is not None:
            taken = Uncounted(prompt_tokens=prompt, completion_tokens=completion)
        both = taken + self.uncounted if taken and self.uncounted else taken or self.uncounted
        return Outcome(self.reply, both)


async def request_with_retry(
    model: ChatModel, request: Request, limiter: AdaptiveLimiter, guard: BudgetGuard | None = None
) -> Outcome:
    """Ask until there is an answer, or asking again is of no use.

    Raises:
        OverBudget: The guard does not hold what the next attempt may cost.
    """
    reply, uncounted = Reply(), None
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(_pause(attempt, reply))
        async with limiter.turn():
            reply, more = await _attempt(model, request, limiter, guard)
        uncounted = uncounted + more if uncounted and more else uncounted or more
        if not reply.retryable or _asked_pause(reply) > LONGEST_WISH_SECONDS:
            break
    return Outcome(reply, uncounted)


async def _attempt(
    model: ChatModel, request: Request, limiter: AdaptiveLimiter, guard: BudgetGuard | None
) -> Outcome:
    """Send a request once, and let the limiter know what came of it."""
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
    reply, said = believed(request, reply)
    uncounted = None if guard is None else guard.settle(request, reply)
    if uncounted is not None and said:
        uncounted = replace(uncounted, said=said)
    pause = min(_asked_pause(reply), LONGEST_WISH_SECONDS)
    if reply.status in OVERLOADED:
        limiter.refused(sent, pause)
    elif reply.error is None:
        limiter.answered()
        limiter.pause(pause)
    return Outcome(reply, uncounted)


def _asked_pause(reply: Reply) -> float:
    """Return the seconds that the vendor asks to wait; 0 where it does not."""
    return believable(reply.retry_after_seconds) or 0.0


def _pause(attempt: int, reply: Reply) -> float:
    """Return the seconds before the next attempt."""
    if (asked := _asked_pause(reply)) > 0:
        return asked
    longest = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
    # Requests that failed together are not to come back together.
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
