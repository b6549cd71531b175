"""Choose the rows of a training file to hold out for the test and for validation.

Rows with equal inputs or of one cluster stay together; validation also keeps near duplicates
together. Groups are chosen by a hash of their input, so every machine gives the same cut, and
appended rows hardly change it.
Findings report the effects: few rows, repeated rows, missing labels. Of a mixture's rows, those are
chosen that the weights and limits of its sources allow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from unitune.data.columns import may_be_labels
from unitune.data.dataset import Dataset, NumberTable, Row, SpooledRows, by_hash
from unitune.data.example import Example, digest
from unitune.data.families import Prompt, families_of, key
from unitune.data.overlap import Search, by_kind
from unitune.data.questions import normal, question_hash
from unitune.data.report import Purpose, SourceRows
from unitune.findings import Finding, error, note, warning
from unitune.job.data import Source
from unitune.job.job import Job
from unitune.workspace.progress import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unitune.data.dataset import Hashes, Positions


DEFAULT_FRACTION = 0.1
# A smaller validation set would choose prompts by chance; a fraction in the job overrides this
MIN_VALIDATION_ROWS = 30
# Near duplicates are not searched within larger files, to save memory. Rows that are then on both
# sides of the cut are left out of validation
MOST_ROWS, MOST_CHARACTERS = 50_000, 1 << 24


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows of a job by purpose.

    Args:
        train: Rows to learn from; empty if the job names none.
        validation: Rows to choose prompts, shots and checkpoints on; never trained on.
        test: Rows used for evaluation only; None if the job names none.
    """

    train: Dataset
    validation: Dataset
    test: Dataset | None


class Inputs:
    """Hashed inputs of a file's rows; another `salt`, such as a seed, gives another choice."""

    def __init__(self, salt: int | str, *, clustered: bool = False) -> None:
        self._salt = salt
        self._table = NumberTable(2 if clustered else 1)
        self._hashes = self._table.column(0)
        self._clusters = self._table.column(1) if clustered else None

    def add(self, input_key: str, cluster: str | None = None) -> None:
        """Add the next row's input and its cluster, by default the input."""
        own = key(f"{self._salt}:{input_key}")
        if self._clusters is None:
            self._table.append(own)
        else:
            name = input_key if cluster is None else cluster
            self._table.append(own, key(f"{self._salt}:{name}"))

    def __len__(self) -> int:
        return len(self._table)

    def different(self, among: NDArray[np.bool_] | None = None) -> int:
        """Return the number of different inputs in all rows or in the marked ones."""
        marks = repeat(True) if among is None else among.data
        return len({each for each, marked in zip(self._hashes, marks, strict=False) if marked})

    def held_out(
        self,
        rows: int,
        among: NDArray[np.bool_] | None = None,
        joined: Sequence[int] | None = None,
    ) -> NDArray[np.bool_] | None:
        """Choose the rows to hold out.

        Whole groups are taken in hash order while they fit. If large groups leave a gap, the
        smallest of the rest closes it.

        Args:
            rows: Minimum number of rows to hold out.
            among: Marks of the rows to choose from; None for all.
            joined: For each row, another row that must stay on its side; None for no ties.

        Returns:
            A mark per row, True if held out; None if no row would be left for training.
        """
        import numpy as np  # noqa: PLC0415 - slow to import

        chosen, missing = np.zeros(len(self), np.bool_), rows
        smallest: NDArray[np.intp] | None = None  # of the groups not taken
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
        """Yield rows with hashes, ascending, that are equal for rows that belong together."""
        import numpy as np  # noqa: PLC0415 - slow to import

        if self._clusters is None and joined is None:
            parts = by_hash(self._hashes)
        else:
            parts = [(np.arange(len(self)), self._cluster_hashes(joined))]
        for positions, hashes in parts:
            inside = slice(None) if among is None else among[positions]
            yield positions[inside], hashes[inside]

    def _cluster_hashes(self, joined: Sequence[int] | None) -> Hashes:
        """Return a hash per row, equal for rows that belong together in any way."""
        import numpy as np  # noqa: PLC0415 - slow to import
        from scipy import sparse  # noqa: PLC0415 - slow to import
        from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 - slow to import

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
    """Assignment of a training file's rows to their purposes, once all are added."""

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
        """Add the next row."""
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
        """Return the positions of the rows by purpose, or a finding if they cannot be cut."""
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
    """Positions of a training file's rows by purpose, ascending."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]

    @property
    def not_test(self) -> NDArray[np.intp]:
        """Rows that may be used for training or prompting."""
        import numpy as np  # noqa: PLC0415 - slow to import

        return np.sort(np.concatenate((self.train, self.validation)))


def validation_rows(job: Job, train_rows: int) -> int:
    """Return the minimum number of training rows that a job holds out."""
    if isinstance(job.data.validation, float):
        return share_of(job.data.validation, train_rows)
    return max(MIN_VALIDATION_ROWS, math.ceil(train_rows * DEFAULT_FRACTION))


def share_of(share: float, rows: int) -> int:
    """Return the number of rows in a share, at least one."""
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
        f"cannot give {wanted:,} rows for {purpose} and leave any for training; "
        "rows with equal inputs stay together, and for validation near duplicates too.",
        f"Add rows, name a file under `data.{purpose}`, or give a fraction, e.g. 0.2.",
    )


MOST_LABELS, SHOWN_LABELS = 1000, 5


def cut_findings(job: Job, file: str, parts: Parts | Finding | None) -> Iterator[Finding]:
    """Report the number of rows by purpose, or why they cannot be cut."""
    if isinstance(parts, Finding):
        yield parts.at(file=file)
    if not isinstance(parts, Parts):
        return
    left, out, cases = len(parts.train), len(parts.validation), len(parts.test)
    rows = left + out + cases
    if cases:
        yield note(
            "test-cut",
            f"{cases:,} of {rows:,} rows are reserved for the test (data.test: "
            f"{job.data.test:g}), {out:,} are held out to choose prompts and checkpoints, and "
            f"{left:,} are trained on.",
        ).at(file=file)
    if out > left:
        yield warning(
            "small-train",
            f"{out:,} of {rows:,} rows are held out to choose prompts and checkpoints, which "
            f"leaves {left:,} to train on.",
            "Add rows, or set `data.validation` to a file or a smaller fraction.",
        ).at(file=file)


def without_repeated(
    job: Job, file: str, rows: SpooledRows, parts: Parts
) -> tuple[Parts, list[Finding]]:
    """Remove validation rows that are also in the training rows, with a warning, not an error."""
    if not len(parts.validation) or job.evaluate.leaks == "allow":
        return parts, []
    held, left = rows.picked(parts.validation.data), rows.picked(parts.train.data)
    search = Search(held)
    search.compare_rows(counted(left, "looking for leaks", len(left)), file)
    shared = search.shared_cases()
    if not shared:
        return parts, []
    lines = {case.line for case in shared}
    kept = [row.line not in lines for row in held]
    finding = (note if any(kept) else error)(
        "overlap",
        f"{len(shared):,} of {len(held):,} rows held out for validation are also in the training "
        f"rows ({by_kind(case.kind for case in shared)}) and are left out.",
        "If rows of one customer or document belong together, name that key in "
        "`evaluate.clusters`. Or name a file under `data.validation`.",
    )
    return parts._replace(validation=parts.validation[kept]), [finding.at(file=file)]


def missing_labels(file: str, answers: Counter[str], cases: Sequence[Row]) -> Iterator[Finding]:
    """Report labels of the training file that no test case has."""
    missing = answers.keys() - {normal(case.example.answer or "") for case in cases}
    is_labels = len(answers) <= MOST_LABELS and may_be_labels([*answers.elements()], len(answers))
    if not is_labels or not missing:
        return
    first = sorted(missing, key=lambda label: (-answers[label], label))[:SHOWN_LABELS]
    named = ", ".join(f"{label!r} ({answers[label]:,} rows)" for label in first)
    yield warning(
        "missing-labels",
        f"the test has no case of {len(missing):,} of {len(answers):,} labels: {named}"
        f"{', …' if len(missing) > SHOWN_LABELS else ''}.",
        "Add rows with these labels, raise `data.test`, or set it to a file of test cases.",
    ).at(file=file)


def mixed(
    sources: Sequence[Source],
    origins: Sequence[int],
    positions: NDArray[np.intp],
    seed: int,
) -> tuple[NDArray[np.intp], tuple[SourceRows, ...]]:
    """Choose rows so that each source has its share of them and none is repeated.

    The rows of a source are taken in the order of a hash of seed and place, so every machine
    chooses the same ones.

    Args:
        sources: Sources of the mixture.
        origins: Index of the source of every row of the files.
        positions: Rows to choose from, ascending.
        seed: Seed of the choice.

    Returns:
        The chosen rows, ascending, and the rows of each source.
    """
    import numpy as np  # noqa: PLC0415 - slow to import

    of = [list[int]() for _ in sources]
    for at in map(int, positions):
        of[origins[at]].append(at)
    counts = _counts(sources, [len(rows) for rows in of])
    places = _places(origins)
    chosen = list[int]()
    for number, (rows, count) in enumerate(zip(of, counts, strict=True)):
        ranked = rows
        if count < len(rows):
            ranked = sorted(rows, key=lambda at: digest([seed, number, places[at]]))
        chosen += ranked[:count]
    shares = tuple(
        SourceRows(name=source.label, rows=len(rows), used=count)
        for source, rows, count in zip(sources, of, counts, strict=True)
    )
    return np.array(sorted(chosen), np.intp), shares


def _counts(sources: Sequence[Source], rows: Sequence[int]) -> list[int]:
    """Return how many rows of each source are used."""
    most = [min(n, source.max_rows or n) for n, source in zip(rows, sources, strict=True)]
    weights = [source.weight for source in sources if source.weight is not None]
    if not weights or not all(most):
        return most
    total = min(n * sum(weights) / weight for n, weight in zip(most, weights, strict=True))
    wanted = [total * weight / sum(weights) for weight in weights]
    return [min(n, max(1, round(share))) for n, share in zip(most, wanted, strict=True)]


def _places(origins: Sequence[int]) -> list[int]:
    """Return the place of every row within its source."""
    before = Counter[int]()
    places = list[int]()
    for origin in origins:
        places.append(before[origin])
        before[origin] += 1
    return places
