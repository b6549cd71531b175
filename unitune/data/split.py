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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unitune.data.dataset import Dataset, Row
from unitune.data.spool import SpooledRows
from unitune.errors import DataError
from unitune.findings import Finding, error
from unitune.job.job import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_FRACTION = 0.1
HASH_BYTES = 16
"""128 bits of a hash tell inputs apart, and order them."""
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


def split(
    job: Job,
    train: Dataset | None,
    validation: Dataset | None,
    test: Dataset | None,
    inputs: Inputs | None = None,
) -> Splits:
    """Hold out validation rows from rows that are read already, unless they have a file.

    Args:
        job: Its `data` and seed decide the cut.
        train: All rows to learn from; None when the job names none.
        validation: Rows of a file of their own.
        test: Rows to judge by.
        inputs: Of the training rows, where they are known already.

    Raises:
        DataError: No choice leaves rows on both sides.
    """
    if train is None or validation is not None:
        return Splits(train or _nothing("train"), validation or _nothing("validation"), test)
    if inputs is None:
        inputs = Inputs(seed_of(job))
        inputs.extend(example.input_key for example in train)
    held = inputs.held_out(validation_rows(job, len(train)))
    if held is None:
        found = too_few_rows(job, inputs).at(file=str(job.path(job.data.train or "")))
        raise DataError(str(found), (found,))
    return Splits(
        Dataset(train.name, _picked(train.rows, ~held)),
        Dataset(f"{train.name} (held out)", _picked(train.rows, held)),
        test,
    )


def _picked(rows: Sequence[Row], chosen: NDArray[np.bool_]) -> Sequence[Row]:
    import numpy as np  # noqa: PLC0415 - a check of one file needs none

    places: list[int] = np.flatnonzero(chosen).tolist()
    if isinstance(rows, SpooledRows):
        return rows.picked(places)
    return tuple(rows[at] for at in places)


def _nothing(name: str) -> Dataset:
    return Dataset(name, ())


@dataclass(slots=True)
class Inputs:
    """What the rows of a file ask, 16 bytes a row.

    Args:
        seed: Of the cut; another seed gives another choice.
    """

    seed: int
    _hashes: bytearray = field(default_factory=bytearray)

    def extend(self, input_keys: Iterable[str]) -> None:
        """Take in the keys of the next rows (`Example.input_key`)."""
        for key in input_keys:
            told = f"{self.seed}:{key}".encode()
            self._hashes += hashlib.sha256(told).digest()[:HASH_BYTES]

    def __len__(self) -> int:
        return len(self._hashes) // HASH_BYTES

    @property
    def different(self) -> int:
        """How many different inputs there are."""
        return len(self._groups()[1])

    def held_out(self, rows: int) -> NDArray[np.bool_] | None:
        """Choose the rows to hold out.

        Whole groups of identical input are taken in the order of their hashes while they fit; if
        large groups leave a gap, the smallest of them closes it, so that at least `rows` rows are
        held out.

        Args:
            rows: How many rows to hold out.

        Returns:
            Of each row whether it is held out; None when no choice leaves a row for training.
        """
        import numpy as np  # noqa: PLC0415 - a check of one file needs none

        order, starts = self._groups()
        sizes = np.diff(np.append(starts, len(order)))
        chosen, room = np.zeros(len(sizes), np.bool_), rows
        for at, size in enumerate(sizes.tolist()):
            if not room:
                break
            if size <= room:
                chosen[at] = True
                room -= size
        rest = np.flatnonzero(~chosen)
        if room and len(rest):
            chosen[rest[np.argmin(sizes[rest])]] = True
        if chosen.all():
            return None
        held = np.zeros(len(order), np.bool_)
        held[order] = np.repeat(chosen, sizes)
        return held

    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows in the order of their hashes, and where each group begins in it."""
        import numpy as np  # noqa: PLC0415 - a check of one file needs none

        hashes = np.frombuffer(bytes(self._hashes), ">u8").reshape(len(self), 2)
        high, low = (hashes[:, at].astype(np.uint64) for at in range(2))
        order = np.lexsort((low, high))
        high, low = high[order], low[order]
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        return order, np.flatnonzero(begins)


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
