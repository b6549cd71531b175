"""Which training rows a job holds out for validation, where it names no file for it.

By the given fraction, or a seeded tenth of at least 30 rows. The cut goes by groups of identical
input, so that no input stands on both sides. Groups are chosen by the hash of seed and input, never
by a random generator, so that the same file and seed give the same cut on every machine and Python,
wherever the rows stand.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unitune.data.dataset import Dataset
from unitune.data.repeats import key
from unitune.findings import Finding, error
from unitune.job.job import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


@dataclass(slots=True)
class Inputs:
    """What the rows of a file ask, 8 bytes a row.

    Args:
        seed: Of the cut; another seed gives another choice.
    """

    seed: int
    _hashes: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, input_key: str) -> None:
        """Take in the next row's `Example.input_key`."""
        self._hashes.append(key(f"{self.seed}:{input_key}"))

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def different(self) -> int:
        """How many different inputs there are."""
        return len(set(self._hashes))

    def held_out(self, rows: int) -> NDArray[np.bool_] | None:
        """Choose the rows to hold out.

        Whole groups of identical input are taken in the order of their hashes while they fit; if
        large groups leave a gap, the smallest of the rest closes it, so that at least `rows` rows
        are held out.

        Args:
            rows: How many rows to hold out.

        Returns:
            Of each row whether it is held out; None when no choice leaves a row for training.
        """
        import numpy as np  # noqa: PLC0415 - slow to import

        _, group, sizes = np.unique(np.array(self._hashes), return_inverse=True, return_counts=True)
        chosen, missing = np.zeros(len(sizes), np.bool_), rows
        for at, size in enumerate(sizes.tolist()):
            if not missing:
                break
            if size <= missing:
                chosen[at] = True
                missing -= size
        rest = np.flatnonzero(~chosen)
        if missing and len(rest):
            chosen[rest[np.argmin(sizes[rest])]] = True
        return None if chosen.all() else chosen[group]


def validation_rows(job: Job, train_rows: int) -> int:
    """Return how many of the training rows a job holds out at least."""
    if isinstance(job.data.validation, float):
        return max(1, math.floor(job.data.validation * train_rows + 0.5))
    return max(MIN_VALIDATION_ROWS, math.ceil(train_rows * DEFAULT_FRACTION))


def seed_of(job: Job) -> int:
    """Return the seed of the cut."""
    return 0 if job.tuning.seed == "auto" else job.tuning.seed


def too_few_rows(job: Job, inputs: Inputs) -> Finding:
    """Return the error about a training file that cannot be cut.

    Args:
        job: Says how many rows are wanted.
        inputs: Of the rows of its training file.
    """
    return error(
        "too-few-rows",
        f"{len(inputs):,} rows with {inputs.different:,} different inputs cannot give "
        f"{validation_rows(job, len(inputs)):,} rows for validation and leave any to train on; "
        "rows with the same input stay on one side.",
        "Add rows, name a file under `data.validation`, or give a fraction, e.g. 0.2.",
    )
