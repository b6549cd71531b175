"""Register models, promote them by their gates, and roll back.

The stub ``__init__.pyi`` lists the public names, which are imported on first use.
"""

from unitune._lazy import lazy

__getattr__, __all__ = lazy(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
