"""Data in a vendor's format: each row through a `Format`, with a finding for each that will not go.

What a format cannot carry is an error finding with file and line; rows are only left out when the
caller asks for it, and counted. The formats themselves stand beside their vendors' backends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from unitune import registry
from unitune.data.dataset import Dataset
from unitune.data.findings import Finding, error
from unitune.errors import DataError
from unitune.job import Job
from unitune.wire import CannotCarry, WireRow


@dataclass(frozen=True, slots=True)
class Encoded:
    """A dataset in a vendor's format.

    Args:
        rows: Those that could be carried, in order.
        findings: One error for each that could not.
    """

    rows: tuple[WireRow, ...]
    findings: tuple[Finding, ...]

    @property
    def jsonl(self) -> str:
        """The rows as JSON Lines."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)


def encode(dataset: Dataset, format_name: str) -> Encoded:
    """Write a dataset's rows in a format.

    Args:
        dataset: Canonical rows.
        format_name: As `registry.format_names` lists them.

    Raises:
        UnknownName: No installed package brings the format.
    """
    form = registry.wire_format(format_name)
    rows: list[WireRow] = []
    findings: list[Finding] = []
    for row in dataset.rows:
        try:
            rows.append(form.encode(row.example))
        except CannotCarry as problem:
            finding = error(
                "cannot-carry",
                f"{form.name} cannot carry this row: {problem}.",
                "Change the row, leave it out, or choose a backend that can.",
            )
            findings.append(finding.at(file=dataset.name, line=row.line))
    return Encoded(tuple(rows), tuple(findings))


def wire_text(job: Job, dataset: Dataset) -> str:
    """Return rows as the job's backend takes them: canonical, unless its offer names a format.

    Raises:
        DataError: A row cannot be carried.
    """
    name = registry.offer(job.backend).format_name(job.method, job.base_model)
    if name is None:
        return dataset.jsonl
    encoded = encode(dataset, name)
    if encoded.findings:
        raise DataError(
            f"{dataset.name} has {len(encoded.findings)} rows that {job.backend} cannot take; the "
            f"first: {encoded.findings[0]}",
            encoded.findings,
        )
    return encoded.jsonl
