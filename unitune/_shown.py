"""Let documents draw themselves as text and in notebooks.

The renderers come later in the import order, so ``unitune/__init__.py`` sets `Shown.renderer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar


class Shown:
    """A document that a notebook shows as its sections."""

    renderer: ClassVar[Callable[[object, bool], str]]
    """Draws a document, as HTML or as text."""

    def _repr_html_(self) -> str:
        return Shown.renderer(self, True)


class Printed(Shown):
    """A document that also prints as its sections."""

    def __str__(self) -> str:
        return Shown.renderer(self, False)
