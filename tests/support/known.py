"""Tell the type checker, and the reader, that a value is there."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def known(value: T | None) -> T:
    """Return a value that a test expects to be known."""
    assert value is not None
    return value
