"""What values show in a notebook: `table`, and `live`, a line that is written anew as work goes on.

A table needs no style sheet, script or network, so it looks like the notebook around it, in a
browser, in VS Code and on GitHub; whatever stands in it is text. IPython is looked for, never
imported where it is not running.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from html import escape
from importlib import import_module
from typing import Any


def table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values as HTML, a heading above it."""
    cells = "".join(
        f'<tr><th scope="row" style="text-align:left;vertical-align:top">{escape(name)}</th>'
        f'<td style="text-align:left;white-space:pre-wrap">{escape(value)}</td></tr>'
        for name, value in rows
    )
    heading = f'<caption style="text-align:left"><b>{escape(title)}</b></caption>'
    return f"<table>{heading}{cells}</table>"


def live() -> Callable[[str], None] | None:
    """Return what writes a line below the running cell, each in the place of the one before.

    None where no notebook runs: a terminal and a script have their own progress, or want none.
    """
    ipython: Any = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):  # as of a notebook, not IPython's own prompt
        return None
    shown: Any = import_module("IPython.display")
    handle = shown.display(shown.HTML(""), display_id=True)

    def write(line: str) -> None:
        handle.update(shown.HTML(f"<pre>{escape(line)}</pre>"))

    return write
