"""What a learning curve says: the document of `unitune curve --json`, page and terminal."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import Field

from unitune.evaluate.statistics.learning_curve import LEVEL, Form
from unitune.security.spec import Frozen

FARTHEST = 16  # beyond so many times the rows there are, no number of rows is told


class Figure(Frozen):
    """A figure with the range in which it lies in four curves of five."""

    value: float | None
    """None: beyond all bounds, as rows that no number is enough for."""
    low: float | None
    high: float | None


class CurveRun(Frozen):
    """One training."""

    run: str
    seed: int
    rows: int
    score: float
    errors: int
    """Cases without an answer; they count as wrong."""


class CurvePoint(Frozen):
    """The trainings of one size."""

    rows: int
    """Of a run; where rows of equal input stay together, about as many in each."""
    score: Figure
    """Mean of the runs."""
    runs: tuple[CurveRun, ...]


class Prediction(Frozen):
    """A score that was not measured when it was predicted."""

    rows: int
    score: Figure
    gain: Figure
    """Beyond the largest size that it is predicted from, by the same curve."""
    measured: float | None = None
    """What was measured since: of the largest size, predicted from the others."""


class RowsForGoal(Frozen):
    """How many rows a score takes."""

    score: float
    reached: bool
    """Whether the rows there are reach it."""
    rows: Figure | None = None
    """By the curve; None where the curve does not say, or it is reached."""


class Law(Frozen):
    """The law of the error that is drawn."""

    form: Form
    floor: float
    scale: float
    shape: Figure
    """Exponent of a power law; rate of an exponential approach."""
    fitting: tuple[Form, ...]
    """Forms that fit the scores: every range is the union of theirs."""

    def score(self, rows: float) -> float:
        """Return the score with so many rows."""
        fall = float(self.form.fall(rows, self.shape.value or 0))
        return min(1.0, 1 - self.floor - self.scale * fall)


class LearningCurve(Frozen):
    """Scores by the number of training rows, and what more rows would bring."""

    schema_version: Literal[1] = 1
    job: str
    backend: str
    base_model: str
    created: str
    """ISO date and time, UTC."""
    metric: str
    cases: int
    """Validation rows that every run answered."""
    level: float = LEVEL
    """Of all ranges."""
    points: tuple[CurvePoint, ...]
    """By size, the smallest first."""
    last_gain: Figure
    """What the largest size scores beyond the one before."""
    law: Law
    doubts: tuple[str, ...]
    """Why the curve does not say what more rows would bring; none where it does."""
    check: Prediction | None
    """The largest size, predicted from the others; None where these are fewer than three."""
    predictions: tuple[Prediction, ...]
    """With more rows; none where there are doubts."""
    goal: RowsForGoal | None = None
    notes: tuple[str, ...] = ()
    spent_usd: Decimal | None = None
    """Of the answers, all calls together."""
    folder: Path = Field(default=Path(), exclude=True)
    """Where the recorded answers are."""

    @property
    def rows(self) -> int:
        """All rows that there are to train on."""
        return self.points[-1].rows
