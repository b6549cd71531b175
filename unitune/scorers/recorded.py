"""The scorer `recorded_score`: what another tool gave to a recorded answer."""

from __future__ import annotations

from typing import Literal

from unitune.scorers.interface import Attempt, Kind, Scorer, Unscorable, share


class RecordedScore(Scorer):
    """The score that another tool gave to a recorded answer, kept beside it.

    Why: what a team has measured already, by a judge or by code that runs nowhere else, gets its
    paired verdict without being measured again. It leaves out everything: whether the other tool
    scored well, and every answer that it has not seen.
    """

    kind = Kind.GRADED
    needs_expected = False
    type: Literal["recorded_score"] = "recorded_score"
    name: str = "recorded_score"
    key: str
    """Which of the answer's `scores`, such as `match` or ``acc,none``."""

    def judge(self, attempt: Attempt) -> float:
        if self.key not in attempt.given:
            there = ", ".join(attempt.given) or "none"
            raise Unscorable(
                f"no score {self.key!r} stands beside the recorded answer; there: {there}"
            )
        return share(attempt.given[self.key], f"{self.key} is")
