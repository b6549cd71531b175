"""Rewrite a line below a notebook's cell while work goes on.

IPython is looked up, and never imported where it is not running.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from importlib import import_module
from typing import Any


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
