"""Files of rows, the job that trains on them, and what reading them gives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unitune.data.dataset import Row
from unitune.data.load import read
from unitune.data.rows import Use
from unitune.findings import Finding
from unitune.job.job import Data, Job


def write_rows(file: Path, rows: Iterable[Any]) -> Path:
    """Write rows as JSON Lines; a text is a line by itself."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def job_on(folder: Path, data: Any, **fields: Any) -> Job:
    """Return a job at the fake backend with data in a folder."""
    given = {"name": "job", "model": "any", "backend": "fake", "data": data, "folder": folder}
    return Job.model_validate(given | fields)


def findings_in(file: Path | str, data: Data | None = None, use: Use = "case") -> list[Finding]:
    """Return the findings about a file that is read."""
    return [item for item in read(file, data, use) if isinstance(item, Finding)]


def rows_in(file: Path | str, data: Data | None = None, use: Use = "case") -> list[Row]:
    """Return the usable rows of a file."""
    return [item for item in read(file, data, use) if isinstance(item, Row)]
