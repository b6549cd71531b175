"""Serve a vendor for its backend: `VendorSetup` describes how, `ServerBehavior` how it behaves.

    with serve_vendor(SETUP) as served:
        served.server.inject_fault(Fault.CUT, "POST", SETUP.create)

See `unitune.testing.contract` for a setup.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from unitune.testing.loopback import Server, Vendor, serve
from unitune.testing.omissions import Omissions
from unitune.workspace.settings import current


@dataclass(slots=True)
class ServerBehavior:
    """Behavior of a vendor; a test may change it while it runs."""

    queued_polls: int = 1  # number of polls of a job during which it stays queued
    steps: int = 4  # number of training steps, each with a loss
    steps_per_poll: int = 2  # number of steps between two polls
    seconds: float | None = None  # if set, duration of a job; polls then have no effect
    list_lag_seconds: float = 0.0  # delay before lists show a job
    lists_repeat: bool = False  # whether lists show a job on two pages, each time in another order
    state: str | None = None  # state shown instead of the vendor's own for a running job
    # Reason why every training file fails validation, in the vendor's words
    rejects_files: str | None = None
    fails: str | None = None  # reason why every job fails at the end
    replies: dict[str, str] = field(default_factory=dict[str, str])
    otherwise: str = "I do not know."  # answer to everything else
    omits: Omissions | None = None  # fields that its answers omit, if any


@dataclass(slots=True)
class Progress:
    """Progress of one job; a vendor calls `look` at each poll."""

    created: float = field(default_factory=time.time)
    polls: int = 0

    def look(self) -> None:
        """Count a poll."""
        self.polls += 1

    def started(self, behavior: ServerBehavior) -> bool:
        """Return whether training has begun."""
        if behavior.seconds is not None:
            return time.time() > self.created
        return self.polls > behavior.queued_polls

    def steps(self, behavior: ServerBehavior) -> int:
        """Return the number of finished steps."""
        if behavior.seconds is not None:
            share = (time.time() - self.created) / max(behavior.seconds, 1e-9)
            return min(behavior.steps, int(share * behavior.steps))
        return min(
            behavior.steps, max(0, self.polls - behavior.queued_polls - 1) * behavior.steps_per_poll
        )

    def done(self, behavior: ServerBehavior) -> bool:
        """Return whether the last step is finished."""
        return self.steps(behavior) >= behavior.steps

    def listed(self, behavior: ServerBehavior) -> bool:
        """Return whether lists show the job."""
        return time.time() - self.created >= behavior.list_lag_seconds


def loss(step: int) -> float:
    """Return the loss of a step, counted from 1, on a falling curve."""
    return round(2 / (step + 1), 6)


@dataclass(frozen=True, slots=True)
class VendorState:
    """Number of objects at a vendor, counted there."""

    jobs: int
    files: int


def state_of(vendor: Any) -> VendorState:
    """Count the jobs and files in a vendor's `jobs` and `files`."""
    return VendorState(len(vendor.jobs), len(vendor.files))


@dataclass(frozen=True, slots=True)
class VendorSetup:
    """Settings for serving a vendor and pointing its backend to it.

    Args:
        vendor: Returns the vendor for a behavior, or a context manager that yields it. The vendor
            keeps the behavior in its attribute `behavior`.
        environment: Returns the environment variables that point the backend to the server.
        create: Regular expression for the path of the POST that creates a job.
        model: A small base model that it tunes.
        state: Counts the vendor's objects.
        patches: Returns values to patch by dotted name, such as shorter waits.
        timeouts: Dotted names of the backend's request timeouts in seconds, which are shortened in
            tests of a silent vendor.
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
    """A served vendor."""

    setup: VendorSetup
    server: Server
    behavior: ServerBehavior

    def state(self) -> VendorState:
        """Count the objects at the vendor."""
        return self.setup.state(self.server.vendor)


@contextmanager
def serve_vendor(
    setup: VendorSetup, behavior: ServerBehavior | None = None
) -> Generator[ServedVendor]:
    """Serve a vendor while the body runs, and point this process's environment to it."""
    behavior = behavior or ServerBehavior()
    with ExitStack() as stack:
        vendor = setup.vendor(behavior)
        if isinstance(vendor, AbstractContextManager):
            vendor = stack.enter_context(vendor)
        server = stack.enter_context(serve(vendor))
        stack.enter_context(patch.dict(os.environ, setup.environment(server)))
        for name, value in setup.patches(server).items():
            stack.enter_context(patch(name, value))
        current().backends.clear()
        stack.callback(current().backends.clear)
        yield ServedVendor(setup, server, behavior)
