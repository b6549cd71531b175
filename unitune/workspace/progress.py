"""Report the progress of long steps to the command that shows it (`unitune.cli.progress`).

    with shown_by(show):              # a command that draws bars
        ...
        for row in counted(rows, "counting tokens", len(rows)):    # the step

Without `shown_by`, as in a script, nothing is counted.
A line below a notebook's cell is rewritten here, too, without importing IPython.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from importlib import import_module
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
# Function of the name of a step, the amount that is done, and the total; 0: unknown
Show: TypeAlias = Callable[[str, int, int], None]
MOST_ITEMS = 256  # between updates, as updates take time
_show: ContextVar[Show | None] = ContextVar("progress", default=None)


@contextmanager
def shown_by(show: Show) -> Generator[None]:
    """Show the progress of the steps in the body."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


def report(what: str, done: int = 0, total: int = 0) -> None:
    """Show the amount of a step that is done."""
    if (show := _show.get()) is not None:
        show(what, done, total)


def counter(what: str, total: int) -> Callable[[int], None] | None:
    """Return a function that adds to the amount that is done; None if nothing is shown."""
    show, done = _show.get(), 0
    if show is None:
        return None

    def add(amount: int) -> None:
        nonlocal done
        done += amount
        show(what, done, total)

    return add


def counted(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Return items that are counted while they are consumed."""
    add = counter(what, total)
    stride = max(1, min(MOST_ITEMS, total // 100))
    return items if add is None else _counted(items, add, stride)


def _counted(items: Iterable[T], add: Callable[[int], None], stride: int) -> Iterator[T]:
    number = 0
    for number, item in enumerate(items, start=1):
        yield item
        if not number % stride:
            add(stride)
    add(number % stride)


def counted_file(file: io.BufferedReader, what: str) -> io.BufferedReader:
    """Return an open, unread file that shows the progress of reading it."""
    show = _show.get()
    return file if show is None else io.BufferedReader(_CountedFile(file.fileno(), what, show))


class _CountedFile(io.FileIO):
    def __init__(self, handle: int, what: str, show: Show) -> None:
        super().__init__(handle, closefd=False)
        self._total, self._taken = os.fstat(handle).st_size, 0
        self._what, self._show = what, show

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self._taken += count
        done = self.tell() if self._total else self._taken  # a pipe has neither size nor position
        self._show(self._what, done, self._total)
        return count


def live() -> Callable[[str], None] | None:
    """Return a function that replaces a line below the running cell; None outside a notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):  # a notebook's, not IPython's prompt
        return None
    shown: Any = import_module("IPython.display")
    handle = shown.display(shown.HTML(""), display_id=True)

    def write(line: str) -> None:
        handle.update(shown.HTML(f"<pre>{escape(line)}</pre>"))

    return write
