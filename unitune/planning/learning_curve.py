"""The runs of a learning curve: nested subsets of a job's training rows, each with several seeds.

The largest subset is all rows, and each other one about half of the next; rows of equal input stay
together. A seed draws its own subsets, so that they differ in rows as well as in training, and all
learn with the settings of the job, so that each row is passed over as often. The runs are ordinary
ones: that with all rows and the first seed is the job's own, and none is trained twice.

They are judged on the validation rows, on which every one of them answers the same cases; the test
stays unused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from unitune.data.dataset import Dataset
from unitune.data.split import Inputs, Splits, seed_of
from unitune.errors import DataError, UserError
from unitune.findings import Finding, note
from unitune.job.contenders import ContenderSpec, Tuned
from unitune.planning.preflight import ResolvedJob, refuse
from unitune.planning.rows import Rows

# A power law has three parts. Of one training a size nobody knows what chance does: in simulations
# the 80 % range of twice the rows then held the truth in 48 to 100 %, by the form of the curve, and
# with three seeds in 77 to 100 % (`benchmarks/learning_curves.py`).
LEAST_POINTS, LEAST_SEEDS = 3, 2
LEAST_ROWS = 10  # of the smallest subset: about a step or two of training


def learning_curve_of(resolved: ResolvedJob, points: int, seeds: int) -> ResolvedJob:
    """Return the job as a sweep over subsets of its rows and seeds, judged on its validation rows.

    Args:
        resolved: The job.
        points: How many sizes, each half of the next.
        seeds: How many trainings of each size.

    Raises:
        UserError: It is a sweep already, or these are too few points or seeds.
        DataError: It has too few rows, or they cannot be used.
    """
    if resolved.is_sweep:
        raise UserError(
            f"job {resolved.job.name!r} is a sweep (lists of {', '.join(resolved.job.sweep)}), and "
            "a learning curve is that of one setting. Give each setting one value, such as that "
            "of the best run."
        )
    if points < LEAST_POINTS or seeds < LEAST_SEEDS:
        raise UserError(
            f"a learning curve of {points} points and {seeds} seeds says nothing: it takes at "
            f"least {LEAST_POINTS} points, to which a curve is fitted, and {LEAST_SEEDS} seeds, "
            "which show what chance does."
        )
    refuse(resolved.offer_findings)
    splits = resolved.splits
    _check_sizes(resolved, points)
    first = seed_of(resolved.job)
    drawn = [
        [_part(resolved, subset, seed) for subset in nested_subsets(splits.train, points, seed)]
        for seed in range(first, first + seeds)
    ]
    parts = tuple(part for size in zip(*drawn, strict=True) for part in size)
    tuned = (Tuned(name=part.setting, role="reference") for part in parts)
    return replace(judged_on_validation(resolved, tuned), parts=parts)


def whole_training_of(resolved: ResolvedJob) -> ResolvedJob:
    """Return the run of a learning curve that is the job's own, as a curve of it alone."""
    own = _part(resolved, resolved.splits.train, seed_of(resolved.job))
    judged = judged_on_validation(resolved, [Tuned(name=own.setting, role="reference")])
    return replace(judged, parts=(own,))


def nested_subsets(train: Dataset, points: int, seed: int) -> list[Dataset]:
    """Return subsets of training rows, the smallest first, each about half of the next.

    Raises:
        DataError: Too many rows have the same input.
    """
    inputs = Inputs(f"learning curve {seed}")
    for example in train:
        inputs.add(example.input_key)
    subsets, kept = [train], None
    for halvings in range(1, points):
        kept = inputs.held_out(len(train) >> halvings, kept)
        if kept is None:
            raise DataError(
                f"{train.name}: its {len(train):,} rows have {inputs.different():,} different "
                f"inputs, too few for {points} sizes, as rows of equal input stay together. "
                "Give fewer --points."
            )
        subsets.append(train.picked(np.flatnonzero(kept).tolist()))
    return subsets[::-1]


def curve_notes(resolved: ResolvedJob) -> Iterator[Finding]:
    """Yield what makes sizes of a learning curve differ in more than their rows."""
    tuning = resolved.job.tuning
    if tuning.epochs == "auto" and not resolved.offer.trains_here:
        yield note(
            "epochs-by-size",
            f"{resolved.offer.name} chooses the epochs of each size itself, perhaps more for fewer "
            "rows.",
            "Set tuning.epochs, so that each row is passed over as often.",
        )
    if tuning.max_steps != "auto":
        yield note(
            "steps-by-size",
            f"tuning.max_steps ends each training after {tuning.max_steps} steps, so that larger "
            "sizes may pass over their rows less often.",
            "Leave it out.",
        )


def _check_sizes(resolved: ResolvedJob, points: int) -> None:
    rows, limits = len(resolved.splits.train), resolved.terms.limits
    smallest, least = rows >> (points - 1), max(LEAST_ROWS, limits.min_rows or 0)
    if smallest >= least:
        return
    who = f"{resolved.offer.name} takes" if (limits.min_rows or 0) > LEAST_ROWS else "there must be"
    raise DataError(
        f"{resolved.splits.train.name}: of {rows:,} rows to train on, the smallest of {points} "
        f"sizes has {smallest:,}, and {who} at least {least:,}. Give fewer --points, or collect "
        f"{(least << (points - 1)) - rows:,} more rows."
    )


def _part(resolved: ResolvedJob, subset: Dataset, seed: int) -> ResolvedJob:
    """Return one run; that of all rows keeps what is known of them."""
    job, read = resolved.job, resolved.rows.read
    if seed != seed_of(job):
        tuning = job.tuning.model_copy(update={"seed": seed})
        job = job.model_copy(update={"tuning": tuning})
    rows = resolved.rows
    if subset is not resolved.splits.train:
        usable = replace(resolved.splits, train=subset)
        rows = Rows(replace(read, usable=usable), resolved.rows.counters)
    return replace(resolved, job=job, rows=rows, settings={"rows": len(subset), "seed": seed})


def judged_on_validation(resolved: ResolvedJob, contenders: Iterable[ContenderSpec]) -> ResolvedJob:
    """Return the job with its validation rows as the cases of these contenders."""
    splits, evaluate = resolved.splits, resolved.job.evaluate
    cases = {row.example.case_id: row for row in splits.validation.rows}
    dev = replace(splits.validation, rows=tuple(cases.values()))
    read = replace(
        resolved.rows.read, usable=Splits(splits.train, splits.validation, dev), leaks=()
    )
    named = evaluate.clusters is not None and all(
        evaluate.clusters in (example.model_extra or {}) for example in dev
    )
    judged = evaluate.model_copy(
        update={
            "contenders": tuple(contenders),
            "clusters": evaluate.clusters if named else None,
            "slices": (),
            "gate": None,
            "leaks": "allow",  # of validation rows, which warns of them; those of the test refuse
        }
    )
    job = resolved.job.model_copy(update={"evaluate": judged})
    return replace(resolved, job=job, rows=Rows(read, resolved.rows.counters))
