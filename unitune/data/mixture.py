"""Choose the training rows of a mixture by the weights and limits of its sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unitune.data.example import digest
from unitune.data.report import SourceRows
from unitune.job.data import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def mixed(
    sources: Sequence[Source],
    origins: Sequence[int],
    positions: NDArray[np.intp],
    seed: int,
) -> tuple[NDArray[np.intp], tuple[SourceRows, ...]]:
    """Choose rows so that each source has its share of them and none is repeated.

    The rows of a source are taken in the order of a hash of seed and place, so every machine
    chooses the same ones.

    Args:
        sources: Sources of the mixture.
        origins: Index of the source of every row of the files.
        positions: Rows to choose from, ascending.
        seed: Seed of the choice.

    Returns:
        The chosen rows, ascending, and the rows of each source.
    """
    import numpy as np  # noqa: PLC0415 - slow to import

    of = [list[int]() for _ in sources]
    for at in map(int, positions):
        of[origins[at]].append(at)
    counts = _counts(sources, [len(rows) for rows in of])
    places = _places(origins)
    chosen = list[int]()
    for number, (rows, count) in enumerate(zip(of, counts, strict=True)):
        ranked = rows
        if count < len(rows):
            ranked = sorted(rows, key=lambda at: digest([seed, number, places[at]]))
        chosen += ranked[:count]
    shares = tuple(
        SourceRows(name=source.label, rows=len(rows), used=count)
        for source, rows, count in zip(sources, of, counts, strict=True)
    )
    return np.array(sorted(chosen), np.intp), shares


def _counts(sources: Sequence[Source], rows: Sequence[int]) -> list[int]:
    """Return how many rows of each source are used."""
    most = [min(n, source.max_rows or n) for n, source in zip(rows, sources, strict=True)]
    weights = [source.weight for source in sources if source.weight is not None]
    if not weights or not all(most):
        return most
    total = min(n * sum(weights) / weight for n, weight in zip(most, weights, strict=True))
    wanted = [total * weight / sum(weights) for weight in weights]
    return [min(n, max(1, round(share))) for n, share in zip(most, wanted, strict=True)]


def _places(origins: Sequence[int]) -> list[int]:
    """Return the place of every row within its source."""
    before = Counter[int]()
    places = list[int]()
    for origin in origins:
        places.append(before[origin])
        before[origin] += 1
    return places
