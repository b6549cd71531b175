"""p-values of two contenders on the same cases: how often chance alone gives such a difference.

McNemar's tests for one right or wrong answer a case; for everything else permutation: were both
contenders equally good, the two answers to a case might as well have been exchanged. The draws
are seeded, and exchanging the contenders leaves every p-value as it is, bit for bit.

Letters in shapes: U units (`unitune.evaluate.statistics.units`), R exchanges, S sufficient
statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from unitune.evaluate.statistics.units import FloatArray

MOST_UNITS_IN_FULL = 15
"""Up to as many units every exchange is gone through: 2^15 are done in milliseconds."""

DRAWS = 10_000
"""Beyond that so many exchanges are drawn; at p = 0.05 the standard error is then 0.002."""

SEED = 0
"""Of the draws."""

ROUNDING = 1e-12
"""Statistics that differ by less, relative to their scale, are equal."""

_AT_ONCE = 500
"""Exchanges held in memory together: 20 MB of them at 5,000 cases."""


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact conditional McNemar p-value.

    Conservative: printed for readers who know it, decides nothing.

    Returns:
        The p-value; 1 without discordant cases.

    Source:
        Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91.
    """
    return min(1.0, 2 * _fair_coin_tail(min(gained, lost), gained + lost))


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """Two-sided McNemar mid-p value: twice the smaller one-sided mid-p.

    It never broke the nominal level in the 9,595 scenarios of the source, where the exact and the
    continuity-corrected tests did poorly.

    Returns:
        The p-value; 1 without discordant cases and for a tie. For a tie the source has 1 - f/2,
        f the probability of that tie; no decision differs.

    Source:
        Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91.
    """
    fewer, discordant = min(gained, lost), gained + lost
    return min(1.0, _fair_coin_tail(fewer, discordant) + _fair_coin_tail(fewer - 1, discordant))


def sign_flip_p(sums: FloatArray) -> float:
    """Two-sided p-value of the sign-flip test of paired differences.

    Returns:
        Share of the exchanges whose total is at least as far from 0 as the one seen.

    Source:
        Fisher 1935, The Design of Experiments, section 21. Drawn: (1 + #) / (1 + R), Phipson and
        Smyth 2010, Stat Appl Genet Mol Biol 9:39.
    """
    moved = sums[sums != 0]  # (U,); exchanging equal answers changes nothing
    total = float(moved.sum())
    return _as_extreme(
        observed=total,
        permuted=(total - 2 * (swaps @ moved) for swaps in _swaps(len(moved))),
        scale=float(np.abs(moved).sum()),
        units=len(moved),
    )


def randomisation_p(
    baseline: FloatArray, candidate: FloatArray, score: Callable[[FloatArray], FloatArray]
) -> float:
    """Two-sided p-value of approximate randomisation, for a statistic of a whole corpus.

    Args:
        baseline: Its sufficient statistics, summed over each unit, (U, S).
        candidate: Those of the candidate on the same units, (U, S).
        score: The statistic from totals: (R, S) to (R,).

    Source:
        Noreen 1989, Computer-Intensive Methods for Testing Hypotheses; Riezler and Maxwell 2005,
        ACL workshop on evaluation measures, W05-0908.
    """
    change = baseline - candidate  # (U, S)
    old, new = baseline.sum(0), candidate.sum(0)  # (S,)

    def permuted() -> Iterator[FloatArray]:
        for swaps in _swaps(len(change)):
            moved = swaps @ change  # (R, S)
            yield score(new + moved) - score(old - moved)

    ends = score(np.stack([old, new]))  # (2,)
    observed, scale = float(ends[1] - ends[0]), float(np.abs(ends).max())
    return _as_extreme(observed, permuted(), scale, len(change))


def how_permuted(sums: FloatArray) -> str:
    """Say how the exchanges of these units were gone through: in full, or drawn with which seed.

    Args:
        sums: One a unit, (U,) or (U, S); units of zeros are not exchanged.
    """
    units = int(np.count_nonzero(sums)) if sums.ndim == 1 else len(sums)
    return f"{DRAWS:,} draws, seed {SEED}" if _drawn(units) else "in full"


def _drawn(units: int) -> bool:
    return units > MOST_UNITS_IN_FULL


def _swaps(units: int) -> Iterator[FloatArray]:
    """Yield exchanges by the (R, U): 1 where a unit's two answers change places, else 0."""
    if not _drawn(units):
        yield np.array(list(product((0.0, 1.0), repeat=units))).reshape(2**units, units)
        return
    random = np.random.default_rng(SEED)
    for start in range(0, DRAWS, _AT_ONCE):
        rows = min(_AT_ONCE, DRAWS - start)
        packed = random.integers(0, 256, (rows, -(-units // 8)), dtype=np.uint8)
        yield np.unpackbits(packed, axis=1, count=units).astype(np.float64)


def _as_extreme(observed: float, permuted: Iterator[FloatArray], scale: float, units: int) -> float:
    bound = abs(observed) - ROUNDING * scale
    extreme = sum(int((np.abs(some) >= bound).sum()) for some in permuted)
    return (1 + extreme) / (1 + DRAWS) if _drawn(units) else extreme / 2**units


def _fair_coin_tail(most: int, tosses: int) -> float:
    """Probability of at most so many heads, exactly: a quotient of whole numbers."""
    ways, term = 0, 1
    for heads in range(most + 1):
        ways += term
        term = term * (tosses - heads) // (heads + 1)
    return ways / 2**tosses
