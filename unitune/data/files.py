"""Read a list of data files, or the files of a pattern, as one with continuous line numbers."""

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
from unitune.data.load import Reading, read
from unitune.data.rows import Use
from unitune.findings import Finding
from unitune.job.data import FilePurpose
from unitune.job.job import Data, Job


class Place(NamedTuple):
    """File and line of a row."""

    file: str
    line: int


class Files:
    """Data files read as one."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._before = [0]  # lines before each opened file

    @classmethod
    def of(cls, job: Job, purpose: FilePurpose) -> Files:
        """Return the files that a job uses for a purpose."""
        return cls([path for name in job.data.files(purpose) for path in _fitting(job, name)])

    @property
    def places(self) -> Callable[[int], Place] | None:
        """`place` if there are several files, otherwise None."""
        return self.place if len(self._paths) > 1 else None

    @property
    def name(self) -> str:
        """The path of the first file and the number of the others."""
        more = len(self._paths) - 1
        return f"{self._paths[0]} and {more:,} more" if more else self._paths[0]

    def read(self, data: Data | None, use: Use, reading: Reading) -> Iterator[Row | Finding]:
        """Read the rows of all files, and findings with file and line."""
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
        """Return the file and line of a row."""
        at = bisect_right(self._before, line - 1) - 1
        return Place(self._paths[max(at, 0)], line - self._before[max(at, 0)])

    def placed(self, finding: Finding) -> Finding:
        """Return a finding with its file, and its line if it is about a row."""
        if finding.line is None:
            return finding.at(file=self.name)
        file, line = self.place(finding.line)
        return finding.at(file=file, line=line)

    def words(self, line: int) -> str:
        """Return the place of a row in words: ``line 7 of b.jsonl``."""
        file, own = self.place(line)
        return f"line {own} of {Path(file).name}" if self.places else f"line {own}"


def _fitting(job: Job, name: str) -> list[str]:
    if source_name(name).startswith(SCHEME):
        return [name]
    path = job.path(name)
    shorter = Path(os.path.normpath(path))  # no a/../b
    if shorter.exists() and path.exists() and shorter.samefile(path):
        path = shorter
    if glob.has_magic(name) and not path.exists():
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - it may be absolute
        return sorted(matches) or [str(path)]
    return [str(path)]
