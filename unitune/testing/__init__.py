"""Test backends: a scripted backend, and a contract for backends inside and outside of unitune.

Names are imported on first use, because the offer of the fake in this package is read without it.
"""

from unitune._lazy import lazy

__getattr__, __all__ = lazy(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
