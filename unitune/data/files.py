"""Data files that are read one behind another, as one: a list of them, or a pattern.

Their lines are counted on from file to file, so that every row has a number of its own by which its
duplicates and leaks are kept; `Files.place` gives the file and the line back for messages.
"""

from __future__ import annotations

import glob
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from unitune.data.dataset import Row
from unitune.data.hub import SCHEME, source_name
from unitune.data.load import read
from unitune.data.reading import Reading
from unitune.data.rows import Use
from unitune.findings import Finding
from unitune.job.data import FilePurpose
from unitune.job.job import Data, Job


class Place(NamedTuple):
    """Where a row stands."""

    file: str
    line: int


class Files:
    """Some data files, as far as they have been read."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._before = [0]  # lines of the files before, for each file that was begun

    @classmethod
    def of(cls, job: Job, purpose: FilePurpose) -> Files:
        """Return the files that a job uses for something."""
        return cls([path for name in job.data.files(purpose) for path in _fitting(job, name)])

    @property
    def places(self) -> Callable[[int], Place] | None:
        """`place` where there are several files; in a single one a row's line is its own."""
        return self.place if len(self._paths) > 1 else None

    @property
    def name(self) -> str:
        """The path of the first, and how many there are besides."""
        more = len(self._paths) - 1
        return f"{self._paths[0]} and {more:,} more" if more else self._paths[0]

    def read(self, data: Data | None, use: Use, reading: Reading) -> Iterator[Row | Finding]:
        """Read the rows of all, and findings with the file and line where each stands."""
        last = 0
        for at, path in enumerate(self._paths):
            before = last
            if at:
                self._before.append(before)
            for item in read(path, data, use, reading):
                if isinstance(item, Row):
                    last = before + item.line
                    yield replace(item, line=last) if before else item
                else:
                    yield item

    def place(self, line: int) -> Place:
        """Return where a row stands."""
        at = bisect_right(self._before, line - 1) - 1
        return Place(self._paths[max(at, 0)], line - self._before[max(at, 0)])

    def placed(self, finding: Finding) -> Finding:
        """Return a finding about a row, or about all, at its place."""
        if finding.line is None:
            return finding.at(file=self.name)
        file, line = self.place(finding.line)
        return finding.at(file=file, line=line)

    def words(self, line: int) -> str:
        """Return where a row stands, for the sentence of another: ``line 7 of b.jsonl``."""
        file, own = self.place(line)
        return f"line {own} of {Path(file).name}" if self.places else f"line {own}"


def _fitting(job: Job, name: str) -> list[str]:
    """Return the paths that a name or pattern means, sorted; it alone where none fits."""
    if source_name(name).startswith(SCHEME):
        return [name]
    path = job.path(name)
    shorter = Path(os.path.normpath(path))  # of a job beside its data's folder: no a/../b
    if shorter.exists() and path.exists() and shorter.samefile(path):
        path = shorter
    if glob.has_magic(name) and not path.exists():
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - it may be absolute
        return sorted(matches) or [str(path)]
    return [str(path)]
