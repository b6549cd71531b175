"""What `unitune check` found in a job's files, for a person."""

from __future__ import annotations

from collections import Counter

from rich.text import Text

from unitune.cli.output import console, print_findings
from unitune.data.check import DataReport
from unitune.data.leaks import by_kind


def print_report(report: DataReport) -> None:
    """Print a data report for a person."""
    for file in report.files:
        console().print(Text.assemble((file.name, "bold"), f"  {file.rows:,} rows"))
        peak = max((count for _, count in file.histogram), default=0)
        for label, count in file.histogram:
            bar = "█" * round(30 * count / peak) if peak else ""
            console().print(
                Text.assemble((f"  {label:>15} characters", "dim"), f" {bar} {count:,}")
            )
        if file.shared:
            kinds = by_kind(Counter(file.shared).elements())
            console().print(f"  also in an earlier file of the job: {kinds}")
    print_findings(report.findings)
    if not report.findings:
        console().print("Nothing wrong.", style="green")
