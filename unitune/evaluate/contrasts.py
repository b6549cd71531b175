"""Differences between a candidate and a baseline: by a score, a measure, or what tuning cost."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from unitune.documents import Closed
from unitune.job.evaluate import RETENTION_METRICS

if TYPE_CHECKING:
    from unitune.evaluate.statistics.paired import PairedResult

# Fields of a paired result that have another meaning in documents
OWN_MEANING = {"baseline", "candidate", "verdict"}


class Difference(Closed):
    """Figures of a paired result that all documents share."""

    n: int
    """Number of cases."""
    difference: float
    """Candidate minus baseline, or now minus then."""
    interval: tuple[float, float]
    """Interval at the comparison's level."""
    p_value: float
    """Two-sided p-value, not corrected for multiple tests."""

    @classmethod
    def figures(cls, result: PairedResult) -> dict[str, Any]:
        """Return the figures of a result that this document has under the same names."""
        shared = {each.name for each in fields(result)} & cls.model_fields.keys() - OWN_MEANING
        known = {name: getattr(result, name) for name in shared}
        return known | {"interval": result.interval.ends}


class Contrast(Difference):
    """Candidate compared with a baseline by another metric, on some cases, or with a reference.

    Its interval is not adjusted for other contrasts.
    """

    name: str
    """Name of the metric, of the slice, such as ``language = de``, or of a reference."""
    baseline: float
    candidate: float
    p_adjusted: float
    """P-value adjusted within its kind: Benjamini-Hochberg for slices, Holm for the others."""


class MeasureContrast(Contrast):
    """Candidate compared with a baseline by a measure, in its own unit."""

    type: str
    """Type of the measure; `stability` for those of `evaluate.robustness`."""


class Retention(Closed):
    """What tuning cost a model: general questions and a general text, compared with its base.

    The p-values are adjusted for the number of these comparisons (Holm).
    """

    contender: str
    base_model: str
    questions: Contrast | None = None
    """Share of general questions answered right, candidate minus untuned base; None if unknown."""
    gained: int = 0
    lost: int = 0
    """Questions that only the untuned base got right."""
    categories: dict[str, tuple[int, int, int]] = {}  # noqa: RUF012 - pydantic copies it
    """Number of questions, and of right answers of base and tuned model, by category."""
    text: Contrast | None = None
    """Loss on the general text in nats per token, over its passages; None if unknown."""
    problem: str = ""
    """Reason why not all questions were answered; else empty."""

    @property
    def contrasts(self) -> dict[str, Contrast]:
        """Known comparisons, by field."""
        both = {"questions": self.questions, "text": self.text}
        return {name: contrast for name, contrast in both.items() if contrast}

    @property
    def metrics(self) -> dict[str, float]:
        """Known values of `gate.constraints`."""
        both = zip(RETENTION_METRICS, (self.questions, self.text), strict=True)
        return {name: contrast.difference for name, contrast in both if contrast}
