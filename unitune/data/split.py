"""Which rows of a training file a job keeps from training: a share for the test, then validation.

The test is cut where `data.test` is a share; validation, where the job names no file for it, from
what is left: the given fraction, or a seeded tenth of at least 30 rows. A cut goes by groups of
equal input (case and white space aside), so that no input stands on both sides, and by whole
clusters where `evaluate.clusters` names some. The cut for validation keeps near duplicates together
too (`unitune.data.families`). That for the test does not, so that rows which are appended to a file
change it little. There, near duplicates are leaks.

Groups are chosen by the hash of their input, never by a random generator, so that the same file
gives the same cut on every machine and Python, wherever the rows stand. The test does not depend on
the seed: trainings that differ by it are judged alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from unitune.data.dataset import Dataset
from unitune.data.example import Example, digest
from unitune.data.families import Prompt, families_of
from unitune.data.number_table import NumberTable, by_hash
from unitune.data.questions import question_hash
from unitune.data.repeats import key
from unitune.data.report import Purpose
from unitune.findings import Finding, error
from unitune.job.job import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unitune.data.number_table import Hashes, Positions

DEFAULT_FRACTION = 0.1
# With fewer, choosing prompts on them would be chance; holds unless the job gives a fraction
MIN_VALIDATION_ROWS = 30
# Near duplicates within larger files are not looked for, so that those need little memory: what
# stands on both sides of the cut is then left out of validation
MOST_ROWS, MOST_CHARACTERS = 50_000, 1 << 24


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


class Inputs:
    """What the rows of a file ask, and which belong together.

    Args:
        salt: Of the hashes, such as a seed; another gives another choice.
        clustered: Whether rows have clusters.
    """

    def __init__(self, salt: int | str, *, clustered: bool = False) -> None:
        self._salt = salt
        self._table = NumberTable(2 if clustered else 1)
        self._hashes = self._table.column(0)
        self._clusters = self._table.column(1) if clustered else None

    def add(self, input_key: str, cluster: str | None = None) -> None:
        """Take in what the next row asks, hashed, and the name of its cluster if it has one.

        A row without a name is alone with those that ask the same.
        """
        own = key(f"{self._salt}:{input_key}")
        if self._clusters is None:
            self._table.append(own)
        else:
            name = input_key if cluster is None else cluster
            self._table.append(own, key(f"{self._salt}:{name}"))

    def __len__(self) -> int:
        return len(self._table)

    def different(self, among: NDArray[np.bool_] | None = None) -> int:
        """Return how many different inputs there are, in all rows or in those marked."""
        marks = repeat(True) if among is None else among.data
        return len({each for each, marked in zip(self._hashes, marks, strict=False) if marked})

    def held_out(
        self,
        rows: int,
        among: NDArray[np.bool_] | None = None,
        joined: Sequence[int] | None = None,
    ) -> NDArray[np.bool_] | None:
        """Choose the rows to hold out.

        Whole groups are taken in the order of their hashes while they fit; if large groups leave a
        gap, the smallest of the rest closes it, so that at least `rows` rows are held out.

        Args:
            rows: How many rows to hold out.
            among: Marks the rows to choose from; None: all.
            joined: Of each row another one that stays on its side; None: none does.

        Returns:
            Of each row whether it is held out; None when no choice leaves a row for training.
        """
        import numpy as np  # noqa: PLC0415 - slow to import

        chosen, missing = np.zeros(len(self), np.bool_), rows
        smallest: NDArray[np.intp] | None = None  # of the groups that were not taken
        for positions, hashes in self._groups(among, joined):
            _, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
            taken = np.zeros(len(sizes), np.bool_)
            for at, size in enumerate(sizes.tolist()):
                if not missing:
                    break
                if size <= missing:
                    taken[at] = True
                    missing -= size
            chosen[positions[taken[group]]] = True
            if not missing:
                break
            rest = np.flatnonzero(~taken)
            least = rest[np.argmin(sizes[rest])] if len(rest) else None
            if least is not None and (smallest is None or sizes[least] < len(smallest)):
                smallest = positions[group == least]
        if missing and smallest is not None:
            chosen[smallest] = True
        all_rows = len(self) if among is None else np.count_nonzero(among)
        return None if np.count_nonzero(chosen) == all_rows else chosen

    def _groups(
        self, among: NDArray[np.bool_] | None, joined: Sequence[int] | None
    ) -> Iterator[tuple[Positions, Hashes]]:
        """Yield rows with hashes that are equal for rows that hang together, hashes ascending."""
        import numpy as np  # noqa: PLC0415 - slow to import

        if self._clusters is None and joined is None:
            parts = by_hash(self._hashes)
        else:
            parts = [(np.arange(len(self)), self._cluster_hashes(joined))]
        for positions, hashes in parts:
            inside = slice(None) if among is None else among[positions]
            yield positions[inside], hashes[inside]

    def _cluster_hashes(self, joined: Sequence[int] | None) -> Hashes:
        """Return a hash of each row, equal for rows that hang together in any way."""
        import numpy as np  # noqa: PLC0415 - slow to import
        from scipy import sparse  # noqa: PLC0415 - slow to import
        from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 - likewise

        rows = len(self)
        hashes, names = (
            np.fromiter(each, np.uint64, rows)
            for each in (self._hashes, self._clusters or self._hashes)
        )
        inputs, own = (np.unique(some, return_inverse=True)[1] for some in (hashes, names))
        other = np.arange(rows) if joined is None else np.asarray(joined)
        ends = np.concatenate((rows + own, inputs[other]))
        edges = (np.ones(2 * rows, np.int32), (np.tile(inputs, 2), ends))
        _, part = connected_components(
            sparse.coo_array(edges, shape=(2 * rows, 2 * rows)), directed=False
        )
        least = np.full(2 * rows, np.iinfo(np.uint64).max)
        np.minimum.at(least, part[inputs], names)
        return least[part[inputs]]


class Cut:
    """Which rows of a training file are for what, when all of them have been taken in.

    Args:
        job: Says what is cut from the file, if anything.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rows = 0
        share, file = isinstance(job.data.test, float), bool(job.data.files("validation"))
        clustered = job.evaluate.clusters is not None
        self._test = Inputs("test", clustered=clustered) if share else None
        self._validation = None if file else Inputs(seed_of(job), clustered=clustered)
        self._prompts = list[Prompt]()
        self._characters = 0

    def add(self, example: Example) -> None:
        """Take in the next row."""
        self._rows += 1
        asked = question_hash(example)
        named = (example.model_extra or {}).get(self._job.evaluate.clusters or "")
        for inputs in (self._test, self._validation):
            if inputs is not None:
                inputs.add(asked, None if named is None else digest([named]))
        if self._validation is not None and self._is_small:
            self._prompts.append(prompt := Prompt.of(example))
            self._characters += sum(map(len, prompt.turns))
            if not self._is_small:
                self._prompts.clear()

    @property
    def _is_small(self) -> bool:
        return self._rows <= MOST_ROWS and self._characters <= MOST_CHARACTERS

    def parts(self) -> Parts | Finding:
        """Return the positions of the rows by what they are for, or why they cannot be cut."""
        import numpy as np  # noqa: PLC0415 - slow to import

        rest, nothing = np.ones(self._rows, np.bool_), np.zeros(self._rows, np.bool_)
        test, validation, share = nothing, nothing, self._job.data.test
        if self._test is not None and isinstance(share, float):
            held = self._test.held_out(wanted := share_of(share, self._rows))
            if held is None:
                return _too_few_rows(self._test, rest, wanted, "test")
            rest, test = ~held, held
        if self._validation is not None:
            wanted = validation_rows(self._job, int(np.count_nonzero(rest)))
            joined = families_of(self._prompts) if self._is_small else None
            if joined == list(range(self._rows)):
                joined = None
            held = self._validation.held_out(wanted, rest, joined)
            if held is None:
                return _too_few_rows(self._validation, rest, wanted, "validation")
            rest, validation = rest & ~held, held
        return Parts(*map(np.flatnonzero, (rest, validation, test)))


class Parts(NamedTuple):
    """The positions of a training file's rows by what they are for, each ascending."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]

    @property
    def not_test(self) -> NDArray[np.intp]:
        """The rows that a model or its prompt is made from."""
        import numpy as np  # noqa: PLC0415 - slow to import

        return np.sort(np.concatenate((self.train, self.validation)))


def validation_rows(job: Job, train_rows: int) -> int:
    """Return how many of the training rows a job holds out at least."""
    if isinstance(job.data.validation, float):
        return share_of(job.data.validation, train_rows)
    return max(MIN_VALIDATION_ROWS, math.ceil(train_rows * DEFAULT_FRACTION))


def share_of(share: float, rows: int) -> int:
    """Return how many rows a share of them is: at least one."""
    return max(1, math.floor(share * rows + 0.5))


def seed_of(job: Job) -> int:
    """Return the seed of the cut for validation."""
    return 0 if job.tuning.seed == "auto" else job.tuning.seed


def _too_few_rows(
    inputs: Inputs, among: NDArray[np.bool_], wanted: int, purpose: Purpose
) -> Finding:
    return error(
        "too-few-rows",
        f"{int(among.sum()):,} rows with {inputs.different(among):,} different inputs "
        f"cannot give {wanted:,} rows for {purpose} and leave any to train on; "
        "rows that ask the same stay on one side, and for validation near duplicates too.",
        f"Add rows, name a file under `data.{purpose}`, or give a fraction, e.g. 0.2.",
    )
