"""Hold the settings of a `unitune.Client`, which replace environment variables and the price file.

They are in a context variable. asyncio tasks and `asyncio.to_thread` inherit it, and child
processes get the variables (`environment`). Other threads do not inherit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property, wraps
from inspect import iscoroutine, isgenerator
from types import FunctionType
from typing import Any

from unitune.errors import UserError


@dataclass(frozen=True, eq=False)
class Settings:
    """Settings of a client, or of a process without one."""

    # Values of environment variables; an empty value unsets the variable
    variables: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    prices: object = None  # content of the user's prices file; None to read the usual file
    # Backends made under these settings, by name
    backends: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function under these settings; a returned generator or coroutine keeps them."""
        with self._active():
            result = function(*arguments, **named)
        if isgenerator(result):
            return self._items(result)
        return self._result(result) if iscoroutine(result) else result

    def _items(self, items: Any) -> Generator[Any]:
        try:
            while True:
                with self._active():
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item
        finally:
            with self._active():
                items.close()

    async def _result(self, work: Coroutine[Any, Any, Any]) -> Any:
        with self._active():
            return await work

    @contextmanager
    def _active(self) -> Generator[None]:
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)


_CURRENT = ContextVar("unitune.settings", default=Settings())  # noqa: B039 - shared on purpose


def current() -> Settings:
    """Return the settings of the client whose function runs, or of the process."""
    return _CURRENT.get()


def variable(name: str, default: str = "") -> str:
    """Return a value of the client, or of the environment variable, or else the default."""
    given = current().variables
    return given[name] if name in given else os.environ.get(name, default)


def environment() -> dict[str, str]:
    """Return the environment for a child process, with the client's variables."""
    return {**os.environ, **current().variables}


class Bound:
    """An object whose methods and properties run under the settings that it was made under."""

    def __init_subclass__(cls) -> None:
        """Replace each function and property of the class and its other bases."""
        super().__init_subclass__()
        kinds = [kind for kind in reversed(cls.__mro__) if kind not in (object, Bound)]
        for name, member in [item for kind in kinds for item in vars(kind).items()]:
            if isinstance(member, cached_property):
                member.func = _within(member.func)
            elif isinstance(member, property) and member.fget:
                setattr(cls, name, property(_within(member.fget), doc=member.__doc__))
            elif isinstance(member, FunctionType):
                setattr(cls, name, _within(member))


def _within(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: object, *arguments: Any, **named: Any) -> Any:
        own: dict[str, Any] = vars(self)
        settings: Settings = own.setdefault("_settings", current())  # the first call is __init__
        return settings.run(method, self, *arguments, **named)

    return call


def today() -> date:
    """Return today's date (UTC), or that of ``UNITUNE_TODAY=YYYY-MM-DD`` if set."""
    given = os.environ.get("UNITUNE_TODAY", "").strip()
    if not given:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(given)
    except ValueError as error:
        raise UserError(f"UNITUNE_TODAY is {given!r}. Write it as YYYY-MM-DD.") from error
