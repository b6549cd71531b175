"""One request, sent until there is an answer or another attempt is of no use.

A failure that passes (rate limit, server error, no answer) is met by another attempt, as
`unitune.backends.retry.retry_reply` does; here each attempt also takes its turn and its budget.

Not here: many requests (`unitune.evaluate.inference.engine`).
"""

from __future__ import annotations

import time
from typing import NamedTuple

from unitune.backends.retry import MAX_RETRY_AFTER_SECONDS, reply_delay, retry_reply
from unitune.errors import BackendError, UnituneError
from unitune.evaluate.inference.budget import BudgetGuard, without_impossible_counts
from unitune.evaluate.inference.rate_limiter import AdaptiveLimiter
from unitune.evaluate.records import Uncounted
from unitune.models import ChatModel, Reply, Request
from unitune.security.json_fields import whole_text

SHOWN = 1000
"""Characters of an unforeseen error."""
OVERLOADED = (429, 503, 529)
"""Too many requests, or too busy: 529 is Anthropic's own."""


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
    reply = without_impossible_counts(request, reply)
    uncounted = None if guard is None else guard.settle(request, reply)
    pause = min(reply_delay(reply), MAX_RETRY_AFTER_SECONDS)
    if reply.status in OVERLOADED:
        limiter.refused(sent, pause)
    elif reply.error is None:
        limiter.answered()
        limiter.pause(pause)
    return Outcome(reply, uncounted)
