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
from unitune.render.typography import counted

if TYPE_CHECKING:
    from unitune.data.quality.findings import Quality, ShownRow
    from unitune.data.report import DataReport, FileReport

# Causes worth a look, each with the code of the findings that it lists again
LISTED_AS = {"near-duplicates": "duplicate", "contradictions": "contradiction"}
SHOWN_ISSUES = 2  # of each cause; the page has them all
SHOWN_LETTERS = 80  # of a question, where the line is that long; of an answer half as many
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
    causes = report.quality.causes if report.quality else ()
    listed = {LISTED_AS[cause.code] for cause in causes if cause.code in LISTED_AS}
    listed.add("test-cut")  # the first lines have its numbers
    others = [finding for finding in report.findings if finding.code not in listed]
    print_findings(finding for finding in others if finding.severity != "error")
    if report.quality and causes:
        _print_quality(report.quality, None if html else file)
    print_findings(report.errors)
    counts = Counter(finding.severity for finding in others)
    rows = sum(cause.total for cause in causes)
    closing = [counted(counts[each], each) for each in ("error", "warning") if counts[each]]
    if rows:
        closing.append(f"{counted(rows, 'row')} worth a look")
    if closing:
        style = "red" if report.errors else "yellow" if counts["warning"] else "green"
        errors = "" if report.errors else "No errors, "
        console().print(f"{errors}{', '.join(closing)}.", style=style)
    else:
        console().print("Nothing wrong.", style="green")


def _print_files(report: DataReport) -> None:
    from unitune.data.overlap import by_kind

    train = next((file for file in report.files if file.purpose == "train"), None)
    for file in report.files:
        is_part = file.purpose == "test" and train is not None and file.name == train.name
        if not is_part:
            _print_file(file)
        if file.shared:
            kinds = by_kind(Counter(file.shared).elements())
            where = "other rows of the file" if is_part else "an earlier file of the job"
            console().print(f"  {'test cases ' if is_part else ''}also in {where}: {kinds}")


def _print_file(file: FileReport) -> None:
    words = {"train": "to train on", "validation": "to choose prompts on", "test": "for the test"}
    kept = [f"{count:,} {words[purpose]}" for purpose, count in file.parts.items() if count]
    parts = f": {', '.join(kept)}" if len(kept) > 1 else ""
    rows = f"  {counted(file.rows, 'row')}{parts}"
    console().print(Text.assemble((file.name, "bold"), rows))
    if file.read_as:
        console().print(Padding(Text(f"read as {file.read_as}"), (0, 0, 0, 2), expand=False))
    if lengths := file.characters:
        line = f"  characters in a row: median {lengths.median:,}, longest {lengths.longest:,}"
        console().print(line, style="dim")


def _print_quality(quality: Quality, file: Path | None) -> None:
    """Print the first rows of each cause.

    Args:
        quality: What is worth a look.
        file: What was checked; None where the page is written anyway.
    """
    which = "" if quality.is_whole else "first "
    apart = f" ({quality.cases:,} of them for the test)" if quality.cases else ""
    heading = f"Worth a look, in the {which}{counted(quality.rows, 'row')}{apart}"
    console().print(Text.assemble("\n", (heading, "bold")))
    for cause in quality.causes:
        head = Table.grid(padding=(0, 1))
        head.add_column(width=7, justify="right", style="cyan")
        head.add_column(overflow="fold")
        apart = f" ({cause.cases:,} in the test)" if cause.cases else ""
        title = Text.assemble((cause.title, "bold"), apart, f"\n{cause.fix}")
        head.add_row(f"{cause.total:,}", title)
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
