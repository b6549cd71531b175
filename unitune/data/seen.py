"""What stood before in a file, remembered in 20 bytes a key: `FirstSeen`.

A Python dict takes some 200 bytes for each key and its line. Here a small dict takes what is new,
and is emptied, whenever it has grown, into sorted arrays, of which there are never more than a few.
Rows are looked up some hundred at a time, since numpy takes as long to begin as for so many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEY_BYTES = 16
"""128 bits of a hash: two of 10⁹ rows meet by chance once in 10²⁰ such files."""

BATCH_ROWS = 128
"""Rows to look up together; they are kept meanwhile, and may be long."""

MOST_RECENT = 1 << 15
"""Keys that the dict holds, some 5 MB; a smaller file needs nothing but the dict."""


class _Sorted(NamedTuple):
    """Keys in order, cut in halves because numpy has no numbers of 128 bits."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    numbers: NDArray[np.uint32]


class FirstSeen:
    """Says of keys, which come in some order, where each stood first."""

    def __init__(self) -> None:
        self._recent: dict[bytes, int] = {}
        self._sorted: list[_Sorted] = []

    def firsts(self, keys: Sequence[bytes], numbers: Sequence[int]) -> list[int]:
        """Return for each key the number that it came with when it came first.

        Args:
            keys: Of `KEY_BYTES`.
            numbers: From 0 to 2³² - 1.
        """
        if not keys:
            return []
        found: list[int] = []
        for key, number, before in zip(keys, numbers, self._before(keys), strict=True):
            found.append(self._recent.setdefault(key, number) if before < 0 else before)
        if len(self._recent) > MOST_RECENT:
            self._put_away()
        return found

    def _before(self, keys: Sequence[bytes]) -> list[int]:
        """Return the numbers of the keys that are put away, and -1 for the others."""
        if not self._sorted:
            return [-1] * len(keys)
        import numpy as np  # noqa: PLC0415 - small files need none

        high, low = _halves(keys)
        found = np.full(len(keys), -1)
        for one in self._sorted:
            at = np.searchsorted(one.high, high)
            while True:  # past keys that share but the first half
                there = np.minimum(at, len(one.high) - 1)
                same = (at < len(one.high)) & (one.high[there] == high)
                hit = same & (one.low[there] == low)
                found[hit] = one.numbers[there[hit]]
                if (same == hit).all():
                    break
                at += same & ~hit
        return found.tolist()

    def _put_away(self) -> None:
        import numpy as np  # noqa: PLC0415 - small files need none

        made = [
            _Sorted(*_halves(list(self._recent)), np.array([*self._recent.values()], np.uint32))
        ]
        # Of like sizes two are made one, so that for n keys there are log n of them.
        while self._sorted and len(self._sorted[-1].high) <= sum(len(one.high) for one in made):
            made.append(self._sorted.pop())
        high = np.concatenate([one.high for one in made])
        order = np.argsort(high, kind="stable")
        low = np.concatenate([one.low for one in made])[order]
        numbers = np.concatenate([one.numbers for one in made])[order]
        self._sorted.append(_Sorted(high[order], low, numbers))
        self._recent = {}


def _halves(keys: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    import numpy as np  # noqa: PLC0415 - small files need none

    both = np.frombuffer(b"".join(keys), np.uint64).reshape(len(keys), 2)
    return both[:, 0].copy(), both[:, 1].copy()
