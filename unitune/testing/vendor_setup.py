"""Serve a vendor for its backend: `VendorSetup` describes how, `ServerBehavior` how it behaves.

    with serve_vendor(SETUP) as served:
        served.server.inject_fault(Fault.CUT, "POST", SETUP.create)

See `unitune.testing.contract` for a setup.

Define the vendor by routes with `RoutedVendor` and its decorator `route`:

    class MyVendor(RoutedVendor):
        @route("GET", "/jobs/{job_id}")
        def job(self, request: VendorRequest, job_id: str) -> JsonValue:
            return existing(self.jobs, job_id, "job").as_json()

A path must match completely; the first matching route answers. Parts in braces are passed as
arguments and contain no slash, unless they have a regular expression: ``/jobs/{job_id:.+}``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from unittest.mock import patch

from pydantic import JsonValue

from unitune.testing.loopback import (
    UNREADABLE,
    Server,
    Vendor,
    VendorRequest,
    VendorResponse,
    serve,
    thinned,
)
from unitune.testing.omissions import Omissions, Shape
from unitune.workspace.user_settings import current


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


Handler = TypeVar("Handler", bound=Callable[..., Any])
Resource = TypeVar("Resource")


class Refused(Exception):
    """A request that the vendor refuses, with further fields such as a code."""

    def __init__(self, status: int, message: str, **details: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """Decorate a method that answers requests to a path such as ``/jobs/{job_id}``."""
    pattern = re.sub(r"\{(\w+)(?::([^}]+))?\}|[^{]+", _expression, path)

    def mark(handler: Handler) -> Handler:
        handler.__dict__.setdefault("routes", []).append((method, pattern))
        return handler

    return mark


def _expression(part: re.Match[str]) -> str:
    name, expression = part.groups()
    return f"(?P<{name}>{expression or '[^/]+?'})" if name else re.escape(part[0])


class RoutedVendor:
    """A vendor whose methods answer requests; a test may change its behavior while it runs."""

    key: str  # key that a request must carry
    # Headers that may carry the key, with the prefix of the key in each
    key_headers: ClassVar[Mapping[str, str]] = {"authorization": "Bearer "}
    prefix: ClassVar[str] = ""  # regular expression for the beginning of all paths
    wrong_key: ClassVar[str] = "the key is not valid"
    no_route: ClassVar[str] = "{method} {path} does not exist"
    unreadable: ClassVar[str] = "cannot be read: {error}"
    _routes: ClassVar[Sequence[tuple[str, str, str]]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._routes = [
            *(
                (method, pattern, name)
                for name, handler in vars(cls).items()
                for method, pattern in getattr(handler, "routes", ())
            ),
            *cls._routes,
        ]

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        self.behavior = behavior or ServerBehavior()

    def answer(self, request: VendorRequest) -> VendorResponse:
        """Answer a request and change state."""
        try:
            self.check_key(request)
            content = self._dispatch(request)
        except Refused as refusal:
            return self.refuse(refusal)
        except UNREADABLE as error:
            return self.refuse(Refused(400, self.unreadable.format(error=error)))
        response = content if isinstance(content, VendorResponse) else VendorResponse(content)
        return thinned(self.behavior.omits, response, request, self.shapes)

    def check_key(self, request: VendorRequest) -> None:
        """Refuse a request without the key."""
        for name, before in self.key_headers.items():
            if request.headers.get(name) == f"{before}{self.key}":
                return
        raise Refused(401, self.wrong_key)

    def refuse(self, refusal: Refused) -> VendorResponse:
        """Return the response to a refused request."""
        return VendorResponse(self.error(refusal), refusal.status)

    def error(self, refusal: Refused) -> JsonValue:
        """Return the body of a refusal."""
        return {"error": {"message": refusal.message}}

    def shapes(self) -> Sequence[Shape]:
        """Return the shapes of its responses; by default none."""
        return ()

    def _dispatch(self, request: VendorRequest) -> Any:
        for method, pattern, name in self._routes:
            match = re.fullmatch(self.prefix + pattern, request.path)
            if match and method == request.method:
                return getattr(self, name)(request, **match.groupdict())
        raise Refused(404, self.no_route.format(method=request.method, path=request.path))


def existing(resources: Mapping[str, Resource], name: str, kind: str) -> Resource:
    """Return a resource; raise `Refused` if it does not exist."""
    if name not in resources:
        raise Refused(404, f"{kind} {name!r} does not exist")
    return resources[name]
