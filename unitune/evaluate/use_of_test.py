"""How often a test was used, as a comparison shows it; `unitune.evaluate.looks` counts."""

from __future__ import annotations

from unitune.security.spec import Closed


class UseOfTest(Closed):
    """How often the test was used, and how the claim is corrected for it."""

    known: bool = True
    """Whether a ledger could be read; where not, nothing is known of earlier comparisons."""
    comparison: int
    """Which comparison on these cases it is, counted from 1."""
    comparisons: int
    """How many there are so far. Recorded answers of a known candidate make no new one."""
    candidate: int
    """Which candidate on these cases it is, counted from 1."""
    candidates: int
    divisor: int
    """The number by which Holm's procedure divides the error rate."""
    sizes: tuple[int, ...]
    """Cases at each comparison of this candidate by this job, while the test grew."""
    planned: int = 1
    """How many of them were planned (`gate.looks`)."""
    level: float
    """Level of the difference's interval. Over all uses it amounts to that of the comparison."""
    p_adjusted: float
    """The p-value, corrected likewise."""
    new_answers: str | None = None
    """Why a known candidate was given new answers (`--new-answers`)."""

    @property
    def is_first(self) -> bool:
        """Whether no other use is known, and none is planned."""
        return self.known and self.comparisons == self.planned == len(self.sizes) == 1

    def __str__(self) -> str:
        """Return which use of the test it is, and what follows, in sentences."""
        if not self.known:
            return "Not known how often these cases were used before: no ledger could be read."
        if self.comparisons == 1:
            text = "First comparison on these cases that this ledger knows of."
        else:
            text = (
                f"Comparison {self.comparison} of {self.comparisons} on these cases, candidate "
                f"{self.candidate} of {self.candidates}."
            )
        if self.divisor > 1:
            text += f" Interval and p-value are adjusted for {self.divisor} of them (Holm)."
        if self.new_answers:
            text += f" Answered anew because: {self.new_answers}"
        looks, before = len(self.sizes), ", ".join(f"{size:,}" for size in self.sizes[:-1])
        if self.planned > 1:
            level = f"{100 * self.level:.5g} %"
            text += f" Look {looks} of {self.planned} planned, so the interval is one of {level}."
        elif looks > 1:
            text += (
                f" This candidate was compared on {before} cases before. If the test grows until "
                "one comparison is good enough, plan the looks: evaluate.gate.looks."
            )
        return text
