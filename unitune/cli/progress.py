"""How far work has come: a comparison's answers, a download.

On a terminal a live bar; in a pipe or a CI log a plain line now and then; with ``quiet`` nothing.
Everything here goes to standard error. Not here: a training (`unitune.cli.watch`), which takes the
ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn

from unitune.cli.output import aside
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.security.printable import one_line


@contextmanager
def evaluation_progress(*, quiet: bool) -> Generator[Callable[[EvaluationProgress], None] | None]:
    """Yield a callback that shows how far each contender has come."""
    if quiet:
        yield None
    elif not aside().is_terminal:
        yield _line_printer()
    else:
        with _bars(TextColumn("{task.completed:.0f}/{task.total:.0f}", markup=False)) as show:

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
    """Return a callback that prints what is done, and of a batch each tenth of it once."""
    printed: set[tuple[str, int]] = set()

    def print_line(progress: EvaluationProgress) -> None:
        done, total = progress.done, progress.total
        if progress.phase == "stopping":
            aside().print("stopping…")
        elif progress.phase != "batch":
            if done == total:
                aside().print(f"{progress.phase}: {_title(progress)}, {total} cases answered")
        elif (tenth := (progress.contender, 10 * done // total)) not in printed:
            printed.add(tenth)
            aside().print(f"batch: {_title(progress)}, {done} of {total} cases done")

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
        with _bars(TextColumn("{task.percentage:.0f} %", markup=False)) as show:
            yield show


@contextmanager
def _bars(figures: ProgressColumn) -> Generator[Callable[[str, int, int], None]]:
    """Yield a callback that moves the bar of a name, which is drawn at its first call."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), figures)
    with Progress(*columns, console=aside(), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total or None)
            progress.update(tasks[name], completed=done)

        yield show
