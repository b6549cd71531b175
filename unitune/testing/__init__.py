"""For tests of unitune and of backends written elsewhere: a scripted backend and the contract.

Imported on first use: the fake's offer stands in this package, and is read without the fake.
"""

from unitune._lazy import lazy

__getattr__, __all__ = lazy(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
