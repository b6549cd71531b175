"""How far work has come: a comparison's answers, a download.

On a terminal a live bar; in a pipe or a CI log a plain line now and then; with ``quiet`` nothing.
Everything here goes to standard error. Not here: a training (`unitune.cli.following`), which takes
the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn

from unitune.cli.output import aside
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.security.printable import one_line


@contextmanager
def asking(*, quiet: bool) -> Generator[Callable[[EvaluationProgress], None] | None]:
    """Yield a callback that shows how far each contender has been asked."""
    if quiet:
        yield None
    elif aside().is_terminal:
        with _bars(TextColumn("{task.completed:.0f}/{task.total:.0f}", markup=False)) as show:
            yield (
                lambda asked: (
                    _stopping()
                    if asked.phase == "stopping"
                    else show(f"{asked.phase:<6}{_who(asked)}", asked.done, asked.total)
                )
            )
    else:
        yield _saying()


def _stopping() -> None:
    aside().print("stopping…")


def _who(asked: EvaluationProgress) -> str:
    who = f"{asked.contender}: {asked.prompt}" if asked.phase == "dev" else asked.contender
    return one_line(who)


def _saying() -> Callable[[EvaluationProgress], None]:
    """Return a callback that prints what is done, and of a batch each tenth of it once."""
    said: set[tuple[str, int]] = set()

    def say(asked: EvaluationProgress) -> None:
        if asked.phase == "stopping":
            _stopping()
            return
        if asked.phase != "batch":
            if asked.done == asked.total:
                aside().print(f"{asked.phase}: {_who(asked)}, {asked.total} cases answered")
            return
        tenth = (asked.contender, 10 * asked.done // asked.total)
        if tenth not in said:
            said.add(tenth)
            aside().print(f"batch: {_who(asked)}, {asked.done} of {asked.total} cases done")

    return say


@contextmanager
def fetching(*, quiet: bool) -> Generator[Callable[[str, int, int], None]]:
    """Yield a callback that shows a download: what, the amount done, the total."""
    said: set[str] = set()

    def say(what: str, *_: int) -> None:
        if not quiet and what not in said:
            said.add(what)
            aside().print(what)

    if quiet or not aside().is_terminal:
        yield say
    else:
        with _bars(TextColumn("{task.percentage:.0f} %", markup=False)) as show:
            yield show


@contextmanager
def _bars(figures: ProgressColumn) -> Generator[Callable[[str, int, int], None]]:
    """Yield a callback that moves the bar of a name, which is drawn when it is first heard of."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), figures)
    with Progress(*columns, console=aside(), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total or None)
            progress.update(tasks[name], completed=done)

        yield show
