"""`unitune check`: what is wrong with a job and its data, and what is worth a look."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unitune.cli.options import JOB_FILE, Json
from unitune.cli.output import aside, console, exit_for_errors, print_findings, print_json
from unitune.cli.output_files import Kind, check_output, replacing

if TYPE_CHECKING:
    from unitune.data.quality.findings import Quality, ShownRow
    from unitune.data.report import DataReport

HISTOGRAM_WIDTH = 30
SHOWN_ISSUES = 2
"""Of each cause; the page has them all."""
SHOWN_LETTERS = 80
"""Of a question, where the line is that long; of an answer half as many."""
MIN_LETTERS = 8
INDENT = " " * 8


def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A job file or a data file.")
    ] = JOB_FILE,
    *,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with all rows that are worth a look."),
    ] = None,
    json: Json = False,
) -> None:
    """Find what is wrong with a job and its data, or with one data file.

    What plan, run and compare would refuse; then what is worth a look in the rows to train on: near
    duplicates, contradictions, doubtful labels, odd answers. No model is called, and nothing is
    paid or run.

    [dim]$ unitune check unitune.yaml
    $ unitune check unitune.yaml --html check.html
    $ unitune check train.jsonl --json[/dim]
    """
    from unitune.cli.progress import working
    from unitune.evaluate.readiness import check

    check_output(html, Kind.PAGE, [file])
    with working("reading rows, looking for leaks", quiet=json):
        report = check(file)
    print_json(report) if json else _print_report(report, file, html)
    if html:
        from unitune.report.quality import render

        with replacing(html) as page:
            page.write(render(report, file.name).encode())
        aside().print(f"Page: {html}")
    exit_for_errors(report.findings)


def _print_report(report: DataReport, file: Path, html: Path | None) -> None:
    _print_files(report)
    print_findings(report.findings)
    causes = report.quality.causes if report.quality else ()
    if report.quality and causes:
        _print_quality(report.quality, None if html else file)
    if report.errors:
        return
    if any(finding.severity == "warning" for finding in report.findings):
        console().print("No errors; look at the warnings.", style="yellow")
    else:
        words = "No errors; some rows are worth a look." if causes else "Nothing wrong."
        console().print(words, style="green")


def _print_files(report: DataReport) -> None:
    from unitune.data.overlap import by_kind
    from unitune.report.typography import counted

    train = next((file.name for file in report.files if file.purpose == "train"), None)
    for file in report.files:
        is_part = file.purpose == "test" and file.name == train
        purpose = " of these, for the test" if is_part else ""
        rows = f"  {counted(file.rows, 'row')}{purpose}"
        console().print(Text.assemble((file.name, "bold"), rows))
        if file.read_as:
            console().print(Padding(Text(f"read as {file.read_as}"), (0, 0, 0, 2), expand=False))
        peak = max((count for _, count in file.histogram), default=0)
        for label, count in file.histogram:
            bar = "█" * round(HISTOGRAM_WIDTH * count / peak) if peak else ""
            line = Text.assemble((f"  {label:>15} characters", "dim"), f" {bar} {count:,}")
            console().print(line)
        if file.shared:
            kinds = by_kind(Counter(file.shared).elements())
            where = "the rows to train on" if is_part else "an earlier file of the job"
            console().print(f"  also in {where}: {kinds}")


def _print_quality(quality: Quality, file: Path | None) -> None:
    """Print the first rows of each cause.

    Args:
        quality: What is worth a look.
        file: What was checked; None where the page is written anyway.
    """
    which = "all" if quality.is_whole else "the first"
    heading = f"Worth a look, of {which} {quality.rows:,} rows to train on"
    console().print(Text.assemble("\n", (heading, "bold")))
    for cause in quality.causes:
        head = Table.grid(padding=(0, 1))
        head.add_column(width=7, justify="right", style="cyan")
        head.add_column(overflow="fold")
        head.add_row(f"{cause.total:,}", Text.assemble((cause.title, "bold"), f"\n{cause.fix}"))
        console().print(head)
        for issue in cause.issues[:SHOWN_ISSUES]:
            console().print(_line(issue.row))
            console().print(Padding(Text(issue.why, style="dim"), (0, 0, 0, 10), expand=False))
            for other in issue.beside[:1]:
                console().print(_line(other, "beside "))
    if file:
        console().print(f"All of them: unitune check {file} --html check.html", style="dim")
    console().print()


def _line(row: ShownRow, before: str = "") -> Text:
    """Return a row on one line: where it stands, and the beginnings of its texts."""
    where = f"{INDENT}{'  ' if before else ''}{before}{Path(row.file).name}:{row.line} "
    left = console().width - len(where) - len(" → ")
    answer = _beginning(row.answer, min(SHOWN_LETTERS, left) // 2)
    question = _beginning(row.question, min(SHOWN_LETTERS, left - len(answer)))
    return Text.assemble((where, "dim"), question, (f" → {answer}" if answer else "", "cyan"))


def _beginning(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: max(letters, MIN_LETTERS) - 1].rstrip()}…"
