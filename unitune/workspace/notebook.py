"""Show tables and a line of progress in a notebook.

Tables need no style sheet or script, so they look like the notebook around them. IPython is never
imported unless it is running.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from html import escape
from importlib import import_module
from typing import Any


def table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values as HTML with a heading."""
    cells = "".join(
        f'<tr><th scope="row" style="text-align:left;vertical-align:top">{escape(name)}</th>'
        f'<td style="text-align:left;white-space:pre-wrap">{escape(value)}</td></tr>'
        for name, value in rows
    )
    heading = f'<caption style="text-align:left"><b>{escape(title)}</b></caption>'
    return f"<table>{heading}{cells}</table>"


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
