"""Let documents draw themselves as text and in notebooks."""

from __future__ import annotations


def renderer(document: object, *, html: bool) -> str:
    """Draw a document.

    The renderers come later in the import order, so ``unitune/__init__.py`` replaces this function.
    """
    raise NotImplementedError(document, html)


class Shown:
    """A document that a notebook shows as its sections."""

    def _repr_html_(self) -> str:
        return renderer(self, html=True)


class Printed(Shown):
    """A document that also prints as its sections."""

    def __str__(self) -> str:
        return renderer(self, html=False)
