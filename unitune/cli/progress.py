"""How far work has come and how long it still takes: a comparison's answers, a download.

Steps without a measure, such as reading large files, show how long they have been at it.

On a terminal a live bar; in a pipe or a CI log a plain line now and then; with ``quiet`` nothing.
Everything here goes to standard error. Not here: a training (`unitune.cli.watch`), which takes the
ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from unitune.cli.output import aside
from unitune.security.printable import one_line

if TYPE_CHECKING:
    from unitune.evaluate.inference.engine import EvaluationProgress

LOG_SECONDS = 10.0
"""Where no live bar can be drawn, a line is printed this often."""
WIDE = 100
"""Columns of a terminal that has room for every figure."""


@contextmanager
def evaluation_progress(*, quiet: bool) -> Generator[Callable[[EvaluationProgress], None] | None]:
    """Yield a callback that shows how far each contender has come."""
    if quiet:
        yield None
    elif not aside().is_terminal:
        yield _line_printer()
    else:
        with _bars("{task.completed:.0f}/{task.total:.0f}") as show:

            def show_bar(progress: EvaluationProgress) -> None:
                if progress.phase == "stopping":
                    aside().print("stopping…")
                else:
                    show(f"{progress.phase:<6}{_title(progress)}", progress.done, progress.total)

            yield show_bar


def _title(progress: EvaluationProgress) -> str:
    is_dev = progress.phase == "dev"
    title = f"{progress.contender}: {progress.prompt}" if is_dev else progress.contender
    return one_line(title)


def _line_printer() -> Callable[[EvaluationProgress], None]:
    """Return a callback that prints now and then what is done, of a batch each tenth once."""
    tenths: set[tuple[str, int]] = set()
    printed = time.monotonic()

    def print_line(progress: EvaluationProgress) -> None:
        nonlocal printed
        done, total = progress.done, progress.total
        if progress.phase == "stopping":
            aside().print("stopping…")
        elif progress.phase == "batch":
            if (tenth := (progress.contender, 10 * done // total)) not in tenths:
                tenths.add(tenth)
                aside().print(f"batch: {_title(progress)}, {done} of {total} cases done")
        elif done == total:
            aside().print(f"{progress.phase}: {_title(progress)}, {total} cases answered")
        elif time.monotonic() - printed >= LOG_SECONDS:
            printed = time.monotonic()
            aside().print(f"{progress.phase}: {_title(progress)}, {done} of {total} cases answered")

    return print_line


@contextmanager
def download_progress(*, quiet: bool) -> Generator[Callable[[str, int, int], None]]:
    """Yield a callback that shows a download: its name, the amount done, the total."""
    printed: set[str] = set()

    def print_once(name: str, *_: int) -> None:
        if not quiet and name not in printed:
            printed.add(name)
            aside().print(name)

    if quiet or not aside().is_terminal:
        yield print_once
    else:
        with _bars("{task.percentage:.0f} %") as show:
            yield show


@contextmanager
def working(what: str, *, quiet: bool) -> Generator[None]:
    """Show on a terminal what is being done, and for how long already; gone at its end."""
    columns = (SpinnerColumn(), text_column("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=aside(), transient=True, disable=is_hidden(quiet)) as progress:
        progress.add_task(f"{what} …", total=None)
        yield


def is_hidden(quiet: bool) -> bool:  # noqa: FBT001 - the flag itself
    """Whether nothing live is drawn."""
    return quiet or not aside().is_terminal


def text_column(form: str, *, folds: bool = False) -> TextColumn:
    """Return a column of a bar's line; one that folds leaves the others their width."""
    return TextColumn(form, markup=False, table_column=Column(no_wrap=not folds, overflow="fold"))


def is_narrow() -> bool:
    """Whether words beside a bar are to be few."""
    return aside().width < WIDE


def bar_column() -> BarColumn:
    """Return a bar that keeps its width, however long the words beside it are."""
    return BarColumn(bar_width=12 if is_narrow() else 24, table_column=Column(no_wrap=True))


@contextmanager
def _bars(figures: str) -> Generator[Callable[[str, int, int], None]]:
    """Yield a callback that moves the bar of a name, which is drawn at its first call."""
    columns = (
        text_column("{task.description}", folds=True),
        bar_column(),
        text_column(figures),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=aside(), transient=True, speed_estimate_period=120) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total or None)
            progress.update(tasks[name], completed=done)

        yield show
