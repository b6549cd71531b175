"""How a vendor is served for its backend, and how it behaves: `VendorSetup`, `ServerBehavior`.

    with serve_vendor(SETUP) as served:
        served.server.inject_fault(Fault.CUT, "POST", SETUP.create)

`SETUP` is one as in `unitune.testing.contract`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from unitune.backends import registry
from unitune.testing.loopback import Server, Vendor, serve
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


@dataclass(frozen=True, slots=True)
class VendorState:
    """What stands at a vendor, counted at the vendor itself."""

    jobs: int
    files: int


def state_of(vendor: Any) -> VendorState:
    """Count the jobs and files of a vendor that keeps them in `jobs` and `files`."""
    return VendorState(len(vendor.jobs), len(vendor.files))


@dataclass(frozen=True, slots=True)
class VendorSetup:
    """How a vendor is served, and how its backend is led there.

    Args:
        vendor: Returns the vendor, or a context in which it stands, given how it is to behave. It
            keeps that as its attribute `behavior`.
        environment: Returns the variables that lead the backend to the vendor's server.
        create: Regular expression of the path of the POST that creates a job.
        model: A small base model that it tunes.
        state: Counts what the vendor has.
        patches: Returns what is exchanged meanwhile, by dotted name: waits, for a vendor this near.
        timeouts: Dotted names of seconds after which the backend gives up on a request; shortened
            where a test lets the vendor be silent.
    """

    vendor: Callable[[ServerBehavior], Vendor | AbstractContextManager[Vendor]]
    environment: Callable[[Server], Mapping[str, str]]
    create: str
    model: str
    state: Callable[[Any], VendorState] = state_of
    patches: Callable[[Server], Mapping[str, object]] = lambda _: {}
    timeouts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ServedVendor:
    """A vendor that is being served."""

    setup: VendorSetup
    server: Server
    behavior: ServerBehavior

    def state(self) -> VendorState:
        """Count the vendor's jobs and files in its own books."""
        return self.setup.state(self.server.vendor)


@contextmanager
def serve_vendor(
    setup: VendorSetup, behavior: ServerBehavior | None = None
) -> Generator[ServedVendor]:
    """Serve a vendor while the body runs, with this process's environment leading there."""
    behavior = behavior or ServerBehavior()
    with ExitStack() as stack:
        vendor = setup.vendor(behavior)
        if isinstance(vendor, AbstractContextManager):
            vendor = stack.enter_context(vendor)
        server = stack.enter_context(serve(vendor))
        stack.enter_context(patch.dict(os.environ, setup.environment(server)))
        for name, value in setup.patches(server).items():
            stack.enter_context(patch(name, value))
        registry.backend.cache_clear()
        stack.callback(registry.backend.cache_clear)
        yield ServedVendor(setup, server, behavior)
