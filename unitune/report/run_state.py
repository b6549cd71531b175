"""Describe the state of a run, without the modules of its training and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unitune.backends.protocol import INTERRUPTED, State
from unitune.render.sections import Tone

if TYPE_CHECKING:
    from unitune.ledger import RunRecord
    from unitune.run.handle import Run

TONES: dict[State, Tone] = {
    State.SUCCEEDED: "good",
    State.FAILED: "bad",
    State.UNCERTAIN: "bad",
    State.CANCELLED: "quiet",
}


def is_interrupted(run: Run | RunRecord) -> bool:
    """Return whether a run was interrupted rather than paused."""
    return run.state is State.PAUSED and run.raw.startswith(INTERRUPTED)


def tone(run: Run | RunRecord, *, worse: bool) -> Tone:
    """Return the tone of a run's state; `worse` if its model is worse than before the training."""
    if is_interrupted(run):
        return "bad"
    return "doubtful" if worse else TONES.get(run.state, "")
