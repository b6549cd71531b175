"""How a vendor is served for its backend: `VendorSetup` says, `serve_vendor` does.

SETUP = VendorSetup(
vendor=MyVendor,
environment=lambda server: {"MY_BASE_URL": server.url, "MY_API_KEY": "secret"},
create=r"/jobs$",
model="tiny",
)
with serve_vendor(SETUP) as served:
served.server.inject_fault(Fault.CUT, "POST", SETUP.create)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from unitune.backends import registry
from unitune.testing.behavior import ServerBehavior
from unitune.testing.loopback import Server, Vendor, serve


@dataclass(frozen=True, slots=True)
class VendorState:
    """What stands at a vendor, counted at the vendor itself."""

    jobs: int
    files: int


def state_of(vendor: Any) -> VendorState:
    """Count the jobs and files of a vendor that keeps them in `jobs` and `files`."""
    return VendorState(len(vendor.jobs), len(vendor.files))


def no_patches(_: Server) -> Mapping[str, object]:
    """Exchange nothing."""
    return {}


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
    patches: Callable[[Server], Mapping[str, object]] = no_patches
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
