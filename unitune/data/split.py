"""Train, validation and test rows of a job, apart from one another.

Validation is a file of its own, or is cut from train: by the given fraction, or a seeded tenth of
at least 30 rows. The cut goes by groups of identical input, so that no input stands on both sides.
Groups are chosen by the hash of seed and input, never by a random generator, so that the same file
and seed give the same cut on every machine and Python, wherever the rows stand. Overlaps between
files are the business of `unitune.data.check`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from unitune.data.dataset import Dataset
from unitune.data.findings import Finding, error
from unitune.data.load import load
from unitune.errors import DataError
from unitune.job import Job

DEFAULT_FRACTION = 0.1
MIN_VALIDATION_ROWS = 30
"""With fewer, choosing prompts on them would be chance; holds unless the job gives a fraction."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The rows of a job by what they are for.

    Args:
        train: Learned from; empty when the job names none.
        validation: Never learned from; prompts, shots and checkpoints are chosen on it.
        test: Judged on, and nothing else; None when the job names none.
    """

    train: Dataset
    validation: Dataset
    test: Dataset | None


def load_splits(job: Job) -> Splits:
    """Read a job's files and hold out validation rows.

    Args:
        job: Its `data` names the files, its `tuning.seed` decides the cut (auto: 0).

    Raises:
        DataError: A file cannot be used, or train is too small to leave rows on both sides.
    """
    data = job.data
    use = "case" if job.evaluate.needs_expected else "any"
    test = load(job.path(data.test), data, use) if data.test else None
    validation = (
        load(job.path(data.validation), data, job.method)
        if isinstance(data.validation, str)
        else None
    )
    train = None if data.train is None else load(job.path(data.train), data, job.method)
    return split(job, train, validation, test)


def split(
    job: Job,
    train: Dataset | None,
    validation: Dataset | None,
    test: Dataset | None,
    input_keys: Sequence[str] | None = None,
) -> Splits:
    """Hold out validation rows, where they are not in a file of their own.

    Args:
        job: Says how many are held out, and by which seed.
        train: All rows of its training file.
        validation: Rows of its validation file.
        test: Rows of its test file.
        input_keys: `Example.input_key` of all rows of train, where they are known already.

    Raises:
        DataError: No choice leaves rows on both sides.
    """
    if train is None or validation is not None:
        return Splits(train or _nothing("train"), validation or _nothing("validation"), test)
    keys = input_keys or [example.input_key for example in train]
    held = held_out(keys, validation_rows(job, len(train)), seed_of(job))
    if held is None:
        found = too_few_rows(job, len(train), len(set(keys)))
        problem = found.at(file=str(job.path(job.data.train or "")))
        raise DataError(str(problem), (problem,))
    marked = [(row, key in held) for row, key in zip(train.rows, keys, strict=True)]
    return Splits(
        Dataset(train.name, tuple(row for row, out in marked if not out)),
        Dataset(f"{train.name} (held out)", tuple(row for row, out in marked if out)),
        test,
    )


def _nothing(name: str) -> Dataset:
    return Dataset(name, ())


def held_out(input_keys: Sequence[str], rows: int, seed: int) -> frozenset[str] | None:
    """Choose the inputs to hold out.

    Whole groups of identical input are taken in the order of their hashes while they fit; if large
    groups leave a gap, the smallest of them closes it, so that at least `rows` rows are held out.

    Args:
        input_keys: `Example.input_key` of every row.
        rows: How many rows to hold out.
        seed: Another seed gives another choice.

    Returns:
        The chosen keys, or None when no choice leaves a row for training.
    """
    sizes = Counter(input_keys)
    order = sorted(sizes, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    chosen: set[str] = set()
    room = rows
    for key in order:
        if sizes[key] <= room:
            chosen.add(key)
            room -= sizes[key]
    rest = [key for key in order if key not in chosen]
    if room and rest:
        chosen.add(min(rest, key=lambda key: sizes[key]))
    return frozenset(chosen) if len(chosen) < len(sizes) else None


def validation_rows(job: Job, train_rows: int) -> int:
    """Return how many of the training rows a job holds out at least."""
    if isinstance(job.data.validation, float):
        return max(1, math.floor(job.data.validation * train_rows + 0.5))
    return max(MIN_VALIDATION_ROWS, math.ceil(train_rows * DEFAULT_FRACTION))


def seed_of(job: Job) -> int:
    """Return the seed of the cut."""
    return 0 if job.tuning.seed == "auto" else job.tuning.seed


def too_few_rows(job: Job, rows: int, inputs: int) -> Finding:
    """Return the error about a training file that cannot be cut.

    Args:
        job: Says how many rows are wanted.
        rows: Rows of its training file.
        inputs: Different inputs among them.
    """
    return error(
        "too-few-rows",
        f"{rows:,} rows with {inputs:,} different inputs cannot give "
        f"{validation_rows(job, rows):,} rows for validation and leave any to train on; rows with "
        "the same input stay on one side.",
        "Add rows, name a file under `data.validation`, or give a fraction, e.g. 0.2.",
    )
