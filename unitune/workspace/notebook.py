"""Rewrite a line of progress below a notebook's cell.

IPython is never imported unless it is running.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from importlib import import_module
from typing import Any


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
