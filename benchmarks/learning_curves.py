"""Measure how often learning curves are right, on simulated trainings and on real ones.

    python benchmarks/learning_curves.py [--trials 100] [--seed 0]     (some minutes on one core)
    python benchmarks/learning_curves.py --data DATA --out DIR         (an hour on two cores)

Simulated: cases differ in difficulty, and trainings in luck. For each cell, the table shows how
many curves make a statement about more rows, and how many of their 80 % ranges hold the true score
at two and four times the rows, and the score of the largest size as predicted from the smaller
ones.

Real: banking77 (DATA as in `benchmarks/ladders.py`), ten intents, 300 rows, the embedded default
model, three seeds. The prediction for 300 rows from 37, 75 and 150 is compared with the score.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ladders
import numpy as np

from unitune import Job, learning_curve
from unitune.curve import fit as statistics
from unitune.curve.fit import FittedCurve, Form, Laws, Range
from unitune.scorers.formulas import Sums, mean_of

SIZES = (37, 75, 150, 300)
LUCK = 0.04
"""Standard deviation of a training's score with 75 rows; it falls with the root of the rows."""
SPREAD, NOISE = 3.0, 0.5
"""Difficulty of the cases (uniform), and share of an answer that depends on the training."""
REAL_ROWS, REAL_CASES = 300, 200


@dataclass(frozen=True)
class Cell:
    """A law of the error, and its measurement."""

    form: Form
    floor: float
    scale: float
    shape: float
    seeds: int
    cases: int

    @property
    def law(self) -> Laws:
        """Law of the error."""
        return Laws(self.form, *map(np.array, (self.floor, self.scale, self.shape)))


LAWS = (
    (Form.POWER, 0.05, 3, 0.5),
    (Form.POWER, 0, 2, 0.4),
    (Form.POWER, 0.15, 8, 0.8),
    (Form.POWER, 0.1, 0.6, 0.1),
    (Form.POWER, 0.4, 0, 0),
    (Form.EXPONENTIAL, 0.1, 0.5, 1 / 200),
    (Form.EXPONENTIAL, 0.1, 0.5, 1 / 60),
    (Form.LOGARITHMIC, 0.7, 0.08, 1),
)
CELLS = [Cell(*law, seeds, cases) for law in LAWS for seeds in (1, 3) for cases in (100, 400)]


def measured(cell: Cell, draw: np.random.Generator) -> FittedCurve:
    """Return a curve whose cases are wrong where difficulty and luck pass a threshold."""
    hardness = (draw.random(cell.cases) - 0.5) * SPREAD
    scale = NOISE * draw.normal(size=20_000) + (draw.random(20_000) - 0.5) * SPREAD
    trainings: list[list[Sums]] = []
    for size in SIZES:
        luck = LUCK * np.sqrt(75 / size) * draw.normal(size=cell.seeds)
        rights = np.clip(float(cell.law.score(size)) + luck, 0, 1)
        noise = NOISE * draw.normal(size=(cell.seeds, cell.cases))
        passed = hardness + noise < np.quantile(scale, rights)[:, None]
        trainings.append([mean_of(each.astype(float).tolist()) for each in passed])
    return FittedCurve.of(SIZES, trainings)


def simulate(trials: int, seed: int) -> None:
    """Print a line for each cell."""
    print("form        floor scale   shape seeds cases  shown   2x held  4x held  last size held")
    for cell in CELLS:
        draw = np.random.default_rng(seed)
        curves = (measured(cell, draw) for _ in range(trials))
        held = [list(_held(cell, curve)) for curve in curves if not curve.doubts]
        shares = np.mean(held, axis=0) if held else np.full(3, np.nan)
        print(
            f"{cell.form:11} {cell.floor:5} {cell.scale:5} {cell.shape:7.4f} "
            f"{cell.seeds:5} {cell.cases:5}  "
            f"{len(held) / trials:5.2f}   " + "  ".join(f"{share:7.2f}" for share in shares),
            flush=True,
        )


def _held(cell: Cell, curve: FittedCurve) -> Iterator[bool]:
    for rows in (2 * SIZES[-1], 4 * SIZES[-1]):
        yield _is_in(curve.score(rows), float(cell.law.score(rows)))
    yield _is_in(curve.before_last.score(SIZES[-1]), float(curve.scores[-1]))


def _is_in(found: Range, value: float) -> bool:
    return found.low <= value <= found.high


def measure(data: Path, folder: Path) -> None:
    """Train and evaluate the real curve, and print it."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, intents = random.Random(0), ladders.of_banking77(data, "train")
    rows = draw.sample(intents, REAL_ROWS + REAL_CASES)
    parts = {"train": rows[:REAL_ROWS], "validation": rows[REAL_ROWS:]}
    for name, pairs in parts.items():
        ladders.write(pairs, ladders.CLASSIFY, folder / f"{name}.jsonl")
    job = Job.model_validate(
        {
            "name": "banking77-curve",
            "model": "smollm2-135m-instruct",
            "backend": "local",
            "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
            "tuning": {"epochs": 3, "evaluate_every": 1000},
            "evaluate": {"scorers": ["exact"], "max_tokens": 16, "leaks": "drop"},
            "folder": folder,
        }
    )
    print(learning_curve(job, goal=0.9).model_dump_json(indent=1))


def main() -> None:
    """Read the arguments, and simulate or measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("banking77-curve"))
    arguments = parser.parse_args()
    if arguments.data is not None:
        measure(arguments.data, arguments.out)
        return
    statistics.RESAMPLES = 400
    simulate(arguments.trials, arguments.seed)


if __name__ == "__main__":
    main()
