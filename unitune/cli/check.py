"""Implement `unitune check`: report errors in a job and its data, and rows to review."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unitune.cli.options import JOB_FILE, Json
from unitune.cli.output import (
    Kind,
    aside,
    check_output,
    console,
    exit_for_errors,
    print_json,
    replacing,
)


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Job file or data file.")] = JOB_FILE,
    *,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML page with all rows to review."),
    ] = None,
    json: Json = False,
) -> None:
    """Check a job and its data, or one data file.

    Reports what plan, run and compare would refuse, then training rows to review: near duplicates,
    contradictions, doubtful labels, odd answers. No model is called, and nothing is run or paid.

    [dim]$ unitune check unitune.yaml
    $ unitune check unitune.yaml --html check.html
    $ unitune check train.jsonl --json[/dim]
    """
    from unitune.cli.progress import working
    from unitune.evaluate.readiness import check
    from unitune.render.terminal import view
    from unitune.report.checked import describe

    check_output(html, Kind.PAGE, [file])
    with working("reading rows, looking for leaks", quiet=json):
        report = check(file)
    if json:
        print_json(report)
    else:
        more = "" if html else f"All of them: unitune check {file} --html check.html"
        console().print(view(describe(report, file.name, more)))
    if html:
        from unitune.report.checked import render

        with replacing(html) as page:
            page.write(render(report, file.name).encode())
        aside().print(f"Page: {html}")
    exit_for_errors(report.findings)
