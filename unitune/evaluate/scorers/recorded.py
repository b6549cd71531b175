"""The scorer `recorded_score`: what another tool gave to a recorded answer."""

from __future__ import annotations

from unitune.evaluate.scorers.interface import (
    Attempt,
    Kind,
    Scorer,
    Setting,
    Unscorable,
    share,
)
from unitune.job.scorers import RecordedScore


def make_recorded_score(spec: RecordedScore, _: Setting) -> Scorer:
    """Return a scorer that looks up the score that stands beside a recorded answer.

    Why: what a team has measured already, by a judge or by code that runs nowhere else, gets its
    paired verdict without being measured again. It leaves out everything: whether the other tool
    scored well, and every answer that it has not seen.
    """

    def judge(attempt: Attempt) -> float:
        if spec.key not in attempt.given:
            raise Unscorable(_missing(spec.key, attempt))
        return share(attempt.given[spec.key], f"{spec.key} is")

    return Scorer(spec, Kind.GRADED, judge)


def _missing(key: str, attempt: Attempt) -> str:
    there = ", ".join(attempt.given) or "none"
    return f"no score {key!r} stands beside the recorded answer; there: {there}"
