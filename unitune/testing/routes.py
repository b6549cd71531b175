"""Define test vendors by routes with `RoutedVendor` and its decorator `route`.

    class MyVendor(RoutedVendor):
        @route("GET", "/jobs/{job_id}")
        def job(self, request: VendorRequest, job_id: str) -> JsonValue:
            return existing(self.jobs, job_id, "job").as_json()

A path must match completely; the first matching route answers. Parts in braces are passed as
arguments and contain no slash, unless they have a regular expression: ``/jobs/{job_id:.+}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import JsonValue

from unitune.testing.loopback import UNREADABLE, VendorRequest, VendorResponse, thinned
from unitune.testing.omissions import Shape
from unitune.testing.vendor_setup import ServerBehavior

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
    no_route: ClassVar[str] = "there is no {method} {path}"
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
        raise Refused(404, f"there is no {kind} {name!r}")
    return resources[name]
