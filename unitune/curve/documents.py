"""Document of a learning curve: `unitune data curve --json`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import Field

from unitune.curve.fit import LEVEL, Form
from unitune.documents import Frozen

FARTHEST = 16  # no number of rows above this multiple of the available rows is predicted


class Figure(Frozen):
    """Value with its 80 % range."""

    value: float | None
    """Expected value; None if unbounded, for example if no number of rows is enough."""
    low: float | None
    high: float | None


class CurveRun(Frozen):
    """One training."""

    run: str
    seed: int
    rows: int
    score: float
    errors: int
    """Cases without an answer, which count as wrong."""


class CurvePoint(Frozen):
    """Trainings of one size."""

    rows: int
    """Rows of a run; approximate if rows of equal input stay together."""
    score: Figure
    """Mean score of the runs."""
    runs: tuple[CurveRun, ...]


class Prediction(Frozen):
    """Predicted score."""

    rows: int
    score: Figure
    gain: Figure
    """Gain over the largest size used for the prediction, by the same curve."""
    measured: float | None = None
    """Measured score; only for the largest size, predicted from the others."""


class RowsForGoal(Frozen):
    """Number of rows that a score requires."""

    score: float
    reached: bool
    """True if the available rows reach the score."""
    rows: Figure | None = None
    """Predicted number; None if it is reached, or the curve does not predict one."""


class Law(Frozen):
    """Law of the error that is drawn."""

    form: Form
    floor: float
    scale: float
    shape: Figure
    """Exponent of a power law; rate of an exponential approach."""
    fitting: tuple[Form, ...]
    """Forms that fit the scores; every range is the union of theirs."""

    def score(self, rows: float) -> float:
        """Return the score with this many rows."""
        fall = float(self.form.fall(rows, self.shape.value or 0))
        return min(1.0, 1 - self.floor - self.scale * fall)


class LearningCurve(Frozen):
    """Scores by the number of training rows, with predictions for more rows."""

    schema_version: Literal[1] = 1
    job: str
    backend: str
    base_model: str
    created: str
    """ISO date and time in UTC."""
    metric: str
    cases: int
    """Validation rows that every run answered."""
    level: float = LEVEL
    """Confidence level of all ranges."""
    points: tuple[CurvePoint, ...]
    """Points by size, smallest first."""
    last_gain: Figure
    """Gain of the largest size over the second largest."""
    law: Law
    doubts: tuple[str, ...]
    """Reasons why the curve predicts nothing; empty if it does."""
    check: Prediction | None
    """Largest size predicted from the others; None if there are fewer than three others."""
    predictions: tuple[Prediction, ...]
    """Predictions for more rows; empty if there are doubts."""
    goal: RowsForGoal | None = None
    notes: tuple[str, ...] = ()
    spent_usd: Decimal | None = None
    """Cost of the answers over all calls."""
    folder: Path = Field(default=Path(), exclude=True)
    """Folder of the recorded answers."""

    @property
    def rows(self) -> int:
        """All available training rows."""
        return self.points[-1].rows
