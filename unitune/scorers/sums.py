"""A score over many cases, in the form that makes resampling cheap: `Sums`.

Every score here, from a mean to BLEU, is a formula over sums that run over cases. So a row of
summands is computed once for each case, and a resample only adds rows up again: it never looks at a
text twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"
Formula: TypeAlias = Callable[["Floats"], "Floats"]
"""From sums (…, k) to scores (…)."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a score over cases is made of."""

    rows: Floats
    formula: Formula

    def __len__(self) -> int:
        return len(self.rows)

    def statistic(self) -> float:
        """Return the score of all cases."""
        return float(self.formula(self.rows.sum(axis=0)))


def mean_of(scores: Sequence[float]) -> Sums:
    """Return the mean of scores, one a case, as `Sums`."""
    from unitune.scorers.formulas import mean, mean_rows  # noqa: PLC0415 - brings numpy

    return Sums(mean_rows(scores), mean)
