"""Show the progress of comparisons and other long steps on standard error.

A terminal shows a live bar, a pipe or a CI log a plain line now and then, ``quiet`` nothing. Steps
report their progress through `unitune.workspace.progress`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from unitune.cli.output import aside
from unitune.security.redaction import one_line
from unitune.workspace.progress import shown_by

if TYPE_CHECKING:
    from unitune.evaluate.inference.engine import EvaluationProgress

LOG_SECONDS = 10.0  # between two lines without a live bar
DRAW_SECONDS = 0.05  # minimum time between two updates of a bar
# A refresh takes 0.8 ms: rich's default of ten per second took 7 % of the processor time of reading
# rows when eight processes shared a core.
REFRESHES_PER_SECOND = 3
WIDE = 100  # minimum columns of a terminal for all figures


@contextmanager
def evaluation_progress(*, quiet: bool) -> Generator[Callable[[EvaluationProgress], None]]:
    """Yield a callback that shows each contender's progress; other steps are shown, too."""
    if quiet:
        yield lambda _: None
    elif not aside().is_terminal:
        yield _line_printer()
    else:
        with _bars() as show:

            def show_bar(progress: EvaluationProgress) -> None:
                done, total = progress.done, progress.total
                if progress.phase == "stopping":
                    aside().print("stopping…")
                else:
                    show(f"{progress.phase:<6}{_title(progress)}", done, total, f"{done}/{total}")

            def show_step(step: str, done: int, total: int) -> None:
                share = f"{done / total:.0%}" if total else ""
                show(step, done, total, None if 0 < total <= done else share)

            with shown_by(show_step):
                yield show_bar


def _title(progress: EvaluationProgress) -> str:
    is_dev = progress.phase == "dev"
    title = f"{progress.contender}: {progress.prompt}" if is_dev else progress.contender
    return one_line(title)


def _line_printer() -> Callable[[EvaluationProgress], None]:
    """Return a callback that prints progress now and then, for a batch at each tenth."""
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
def download_progress(*, quiet: bool) -> Generator[None]:
    """Show a download; without a live bar, print the name of each step."""
    printed: set[str] = set()

    def print_once(name: str, *_: int) -> None:
        if name not in printed:
            printed.add(name)
            aside().print(name)

    if quiet or aside().is_terminal:
        with working("looking for the model", quiet=quiet):
            yield
    else:
        with shown_by(print_once):
            yield


@contextmanager
def working(what: str, *, quiet: bool) -> Generator[None]:
    """Show a running task: bars for counted steps, otherwise the elapsed time."""
    if quiet or not aside().is_terminal:
        yield
        return
    words = text_column("{task.description}", folds=True)
    columns = (SpinnerColumn(), words, bar_column(), _PaceColumn())
    with _progress(*columns) as progress:
        waiting = f"{what} …"
        task, shown, drawn = progress.add_task(waiting, total=None), waiting, 0.0

        def turn_to(step: str, total: int) -> None:
            nonlocal task, shown
            progress.remove_task(task)
            task, shown = progress.add_task(step, total=total or None), step

        def show(step: str, done: int, total: int) -> None:
            nonlocal drawn
            is_done, now = 0 < total <= done, time.monotonic()
            if is_done and step == shown:
                turn_to(waiting, 0)
            if is_done or (step == shown and now - drawn < DRAW_SECONDS):
                return
            if step != shown:
                turn_to(step, total)
            progress.update(task, completed=done)
            drawn = now

        with shown_by(show):
            yield


def _progress(*columns: ProgressColumn, speed_estimate_period: float = 30) -> Progress:
    return Progress(
        *columns,
        console=aside(),
        transient=True,
        refresh_per_second=REFRESHES_PER_SECOND,
        speed_estimate_period=speed_estimate_period,
    )


class _PaceColumn(TimeRemainingColumn):
    """Column with the share done and the time left, or the elapsed time if nothing is counted."""

    def __init__(self) -> None:
        super().__init__(compact=True)
        self._elapsed = TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        if task.total is None:
            return self._elapsed.render(task)
        left = super().render(task)
        return Text.assemble(f"{task.percentage:.0f} %  ", left, " left")


def text_column(form: str, *, folds: bool = False) -> TextColumn:
    """Return a text column; one that folds is wrapped so that the others keep their width."""
    return TextColumn(form, markup=False, table_column=Column(no_wrap=not folds, overflow="fold"))


def is_narrow() -> bool:
    """Return whether the terminal is too narrow for all figures."""
    return aside().width < WIDE


def bar_column() -> BarColumn:
    """Return a bar of fixed width."""
    return BarColumn(bar_width=12 if is_narrow() else 24, table_column=Column(no_wrap=True))


@contextmanager
def _bars() -> Generator[Callable[[str, int, int, str | None], None]]:
    """Yield a callback that draws or moves the bar of a name; figures of None hide it."""
    columns = (
        text_column("{task.description}", folds=True),
        bar_column(),
        text_column("{task.fields[figures]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with _progress(*columns, speed_estimate_period=120) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int, figures: str | None) -> None:
            is_drawn = figures is not None
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=None, figures="", visible=is_drawn)
            task = tasks[name]
            progress.update(
                task, total=total or None, completed=done, visible=is_drawn, figures=figures or ""
            )

        yield show
