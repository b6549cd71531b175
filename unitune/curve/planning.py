"""Plan the runs of a learning curve: nested subsets of the training rows, each with several seeds.

All runs use the job's settings and are scored on its validation rows. The run with all rows and the
first seed is the job's own run.
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

# A power law has three parameters. With one seed per size the noise is unknown: in simulations the
# 80 % range for twice the rows then covered the truth in 48 to 100 % of cases, depending on the
# shape of the curve, and with three seeds in 77 to 100 % (`benchmarks/learning_curves.py`).
LEAST_POINTS, LEAST_SEEDS = 3, 2
LEAST_ROWS = 10  # in the smallest subset: about one or two training steps


def learning_curve_of(resolved: ResolvedJob, points: int, seeds: int) -> ResolvedJob:
    """Return the job as a sweep over `points` halved subsets of its rows and `seeds` per subset.

    Raises:
        UserError: The job is already a sweep, or there are too few points or seeds.
        DataError: The job has too few rows, or they cannot be used.
    """
    if resolved.is_sweep:
        raise UserError(
            f"job {resolved.job.name!r} is a sweep (lists of {', '.join(resolved.job.sweep)}), "
            "but a learning curve uses one setting. Give each setting one value, for example that "
            "of the best run."
        )
    if points < LEAST_POINTS or seeds < LEAST_SEEDS:
        raise UserError(
            f"a learning curve of {points} points and {seeds} seeds is not reliable: fitting the "
            f"curve takes at least {LEAST_POINTS} points, and measuring noise takes at least "
            f"{LEAST_SEEDS} seeds."
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
    """Return the job's own run as a learning curve with a single run."""
    own = _part(resolved, resolved.splits.train, seed_of(resolved.job))
    judged = judged_on_validation(resolved, [Tuned(name=own.setting, role="reference")])
    return replace(judged, parts=(own,))


def nested_subsets(train: Dataset, points: int, seed: int) -> list[Dataset]:
    """Return halved subsets of the training rows, smallest first. Raises DataError if too few."""
    inputs = Inputs(f"learning curve {seed}")
    for example in train:
        inputs.add(example.input_key)
    subsets, kept = [train], None
    for halvings in range(1, points):
        kept = inputs.held_out(len(train) >> halvings, kept)
        if kept is None:
            raise DataError(
                f"{train.name}: its {len(train):,} rows have {inputs.different():,} different "
                f"inputs, too few for {points} sizes, because rows of equal input stay together. "
                "Give fewer --points."
            )
        subsets.append(train.picked(np.flatnonzero(kept).tolist()))
    return subsets[::-1]


def curve_notes(resolved: ResolvedJob) -> Iterator[Finding]:
    """Yield a note for each setting that makes sizes differ in more than their rows."""
    tuning = resolved.job.tuning
    if tuning.epochs == "auto" and not resolved.offer.trains_here:
        yield note(
            "epochs-by-size",
            f"{resolved.offer.name} chooses the epochs of each size itself, and may use more for "
            "fewer rows.",
            "Set tuning.epochs so that every size makes the same number of passes.",
        )
    if tuning.max_steps != "auto":
        yield note(
            "steps-by-size",
            f"tuning.max_steps ends each training after {tuning.max_steps} steps, so larger sizes "
            "may make fewer passes over their rows.",
            "Leave it out.",
        )


def _check_sizes(resolved: ResolvedJob, points: int) -> None:
    rows, limits = len(resolved.splits.train), resolved.terms.limits
    smallest, least = rows >> (points - 1), max(LEAST_ROWS, limits.min_rows or 0)
    if smallest >= least:
        return
    who = (
        f"{resolved.offer.name} takes" if (limits.min_rows or 0) > LEAST_ROWS else "the minimum is"
    )
    raise DataError(
        f"{resolved.splits.train.name}: of {rows:,} rows to train on, the smallest of {points} "
        f"sizes has {smallest:,}, and {who} at least {least:,}. Give fewer --points, or collect "
        f"{(least << (points - 1)) - rows:,} more rows."
    )


def _part(resolved: ResolvedJob, subset: Dataset, seed: int) -> ResolvedJob:
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
    """Return the job with its validation rows as the test cases of these contenders."""
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
            "leaks": "allow",  # validation rows only warn of leaks; test rows refuse them
        }
    )
    job = resolved.job.model_copy(update={"evaluate": judged})
    return replace(resolved, job=job, rows=Rows(read, resolved.rows.counters))
