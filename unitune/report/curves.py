"""Draw the learning curve of a training, with what it shows."""

from __future__ import annotations

from collections.abc import Iterator

from unitune.render.charts import drawn_curve, drawn_rates
from unitune.render.sections import Figure
from unitune.run.curves import Curve


def training_figures(curve: Curve, of: str = "") -> Iterator[Figure]:
    """Yield the losses or rewards of a training, and its learning rates if they are known.

    Args:
        curve: Figures of a training.
        of: Name of the model, for the beginning of the caption; may be empty.
    """
    if (drawn := drawn_curve(curve)) is None:
        return
    better, other = ("higher", "does not rise") if curve.figure == "reward" else ("lower", "rises")
    what = "Mean reward (as the grader gives it)" if curve.figure == "reward" else "Loss"
    kept = " The ring marks the step whose adapter is the model." if drawn.kept else ""
    yield Figure(
        drawn,
        f"{of}{what} by optimiser step; {better} is better. Where the "
        f"validation {curve.figure} {other} although that of the training improves, rows are being "
        f"memorised.{kept}",
    )
    if rates := drawn_rates(curve):
        yield Figure(rates, "Learning rate by optimiser step.")
