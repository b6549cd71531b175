"""How a vendor on loopback behaves: how long its jobs take, how late its lists are."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from unitune.testing.omissions import Omissions


@dataclass(slots=True)
class ServerBehavior:
    """How a vendor behaves; a test may change it while it runs.

    Args:
        queued_polls: Polls of a job for which it stays queued.
        steps: Training steps, each with a loss.
        steps_per_poll: Steps done between two looks.
        seconds: When set, a job is done after so long, and looks do not matter.
        list_lag_seconds: Lists show a job so late.
        lists_repeat: Lists give the same job on two pages, and in another order each time.
        state: A word shown instead of the vendor's own for a job at work.
        rejects_files: Why every training file fails validation, in the vendor's words.
        fails: Why every job fails at the end.
        replies: What tuned models say by the last user message; else they say `otherwise`.
        otherwise: See `replies`.
        omits: Which fields its answers leave out; None: none.
    """

    queued_polls: int = 1
    steps: int = 4
    steps_per_poll: int = 2
    seconds: float | None = None
    list_lag_seconds: float = 0.0
    lists_repeat: bool = False
    state: str | None = None
    rejects_files: str | None = None
    fails: str | None = None
    replies: dict[str, str] = field(default_factory=dict[str, str])
    otherwise: str = "I do not know."
    omits: Omissions | None = None


@dataclass(slots=True)
class Progress:
    """How far one job is; a vendor keeps one for each, and calls `look` at each poll."""

    created: float = field(default_factory=time.time)
    polls: int = 0

    def look(self) -> None:
        """Let a poll's worth of time pass."""
        self.polls += 1

    def started(self, behavior: ServerBehavior) -> bool:
        """Whether training has begun."""
        if behavior.seconds is not None:
            return time.time() > self.created
        return self.polls > behavior.queued_polls

    def steps(self, behavior: ServerBehavior) -> int:
        """Return the steps that are done."""
        if behavior.seconds is not None:
            share = (time.time() - self.created) / max(behavior.seconds, 1e-9)
            return min(behavior.steps, int(share * behavior.steps))
        return min(
            behavior.steps, max(0, self.polls - behavior.queued_polls - 1) * behavior.steps_per_poll
        )

    def done(self, behavior: ServerBehavior) -> bool:
        """Whether the last step is done."""
        return self.steps(behavior) >= behavior.steps

    def listed(self, behavior: ServerBehavior) -> bool:
        """Whether lists show the job already."""
        return time.time() - self.created >= behavior.list_lag_seconds


def loss(step: int) -> float:
    """Return the loss of a step, counted from 1: a falling curve."""
    return round(2 / (step + 1), 6)
