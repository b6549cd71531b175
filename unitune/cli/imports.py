"""Implement `unitune import`: a vendor's job (``BACKEND:JOB``), a suite (``TOOL:FILE``), or traces.

The result is a job file with its rows or cases and recorded answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from unitune.cli.options import Quiet
from unitune.cli.output import aside, console, facts, print_finding_lines, print_findings
from unitune.errors import BackendError, UserError
from unitune.text import clip

if TYPE_CHECKING:
    from unitune.findings import Finding
    from unitune.importers.import_suite import ImportResult
    from unitune.importers.vendor_jobs import Imported

TRACES = "traces"
SHOWN_FINDINGS = 20  # unsupported items that are listed; the others are counted


def import_sources(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="BACKEND:JOB, promptfoo:, inspect: or lm-eval:FILE, or the word traces and FILEs.",
        ),
    ],
    *,
    directory: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the files.")
    ] = Path(),
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="CASES", help="Cases to send to the job's model, to record its answers."
        ),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Leave out unsupported items of a suite.")
    ] = False,
    feedback: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Scores in traces that rate the answers."),
    ] = None,
    good: Annotated[
        str | None,
        typer.Option(metavar="VALUE", help="Lowest good score, or the good label, in traces."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Import an existing training, a suite and results of another tool, or traces.

    Several files of one tool become contenders. `unitune compare` compares recorded answers
    without calling a model, at no cost. Traces of a running product (OpenTelemetry, Phoenix,
    Langfuse, LangSmith) become rows.

    [dim]$ unitune import openai:ftjob-abc123 --answers test.jsonl
    $ unitune import promptfoo:results.json --output evals
    $ unitune import inspect:base.eval inspect:tuned.eval --output evals
    $ unitune import traces spans.jsonl scores.jsonl --output support[/dim]
    """
    from unitune.importers.import_suite import is_suite
    from unitune.importers.vendor_jobs import import_job

    if sources[0] != TRACES and (feedback or good):
        raise UserError("--feedback and --good are for traces: unitune import traces FILE")
    if sources[0] == TRACES:
        if answers is not None or drop:
            raise UserError("--answers and --drop are not for traces; they have rows with answers.")
        _import_traces([Path(file) for file in sources[1:]], directory, feedback, good)
    elif any(map(is_suite, sources)):
        if answers is not None:
            raise UserError("--answers is for a vendor's job; a suite contains its answers.")
        _import_suite(sources, directory, drop=drop, quiet=quiet)
    elif len(sources) > 1:
        raise UserError(f"import one job at a time, not {', '.join(sources)}.")
    elif drop:
        raise UserError("--drop is for suites; a vendor's job is imported completely.")
    else:
        imported = import_job(sources[0], directory)
        _print_written(imported.files, imported.notes)
        if answers is not None:
            _record_answers(imported, answers, directory, quiet=quiet)
        console().print(
            "Next: choose another backend and model in unitune.yaml, then run: unitune plan "
            "unitune.yaml"
        )


def _import_traces(
    files: list[Path], directory: Path, feedback: str | None, good: str | None
) -> None:
    from unitune.importers.traces.rows import import_traces

    if not files:
        raise UserError("traces needs at least one file: unitune import traces FILE")
    imported = import_traces(files, directory, feedback=feedback, good=good)
    rows = imported.rows
    known = {what: f"{count:,}" for what, count in rows.counts.items()}
    known["rows"] = f"{len(rows.train):,} to train on, {len(rows.test):,} to test on"
    if rows.feedback is not None:
        known["feedback"] = (
            f"{clip(rows.feedback)}: {len(rows.ratings):,} rated answers, "
            f"{len(rows.pairs):,} pairs of a good and a bad one"
        )
    console().print(facts(known))
    _print_written(imported.files, ())
    print_findings(each for each in imported.findings if each.severity != "note")
    job = directory / "unitune.yaml"
    console().print(f"Next: read some rows, then run: unitune check {job}", soft_wrap=True)


def _import_suite(sources: list[str], directory: Path, *, drop: bool, quiet: bool) -> None:
    from unitune.importers.import_suite import ImportUnsupported, import_suite
    from unitune.render.typography import counted

    try:
        result = import_suite(sources, directory, drop=drop)
    except ImportUnsupported as refusal:
        _print_findings(refusal.findings)
        count = len(refusal.findings)
        aside().print(
            f"{'1 item is' if count == 1 else f'{count:,} items are'} not supported; nothing was "
            "written. Change them, or pass --drop to leave them out."
        )
        raise typer.Exit(refusal.exit_code) from None
    if not quiet:
        _print_findings(result.suite.findings)
    _print_written(result.files, () if quiet else result.suite.notes)
    count, left_out = counted(len(result.suite.cases), "case"), len(result.suite.findings)
    lost = f"; left out {counted(left_out, 'unsupported item')}" if left_out else ""
    console().print(f"{count}{lost}.")
    console().print(f"Next: {_next_step(result, directory / 'unitune.yaml')}", soft_wrap=True)


def _print_findings(findings: tuple[Finding, ...]) -> None:
    print_finding_lines(findings[:SHOWN_FINDINGS], more=len(findings) - SHOWN_FINDINGS)


def _print_written(files: tuple[Path, ...], notes: tuple[str, ...]) -> None:
    for file in files:
        console().print(f"wrote {file}")
    for note in notes:
        console().print(Text.assemble(("note", "yellow"), f" {note}"))


def _next_step(result: ImportResult, file: Path) -> str:
    match len(result.suite.answers):
        case 0:
            return f"set data.train in {file} to your training rows, then run: unitune plan {file}"
        case 1:
            return (
                f"import the other model's results, too, or add a contender to {file} and a scorer "
                "that does not read recorded scores"
            )
        case _:
            return f"unitune compare {file}"


def _record_answers(imported: Imported, cases: Path, directory: Path, *, quiet: bool) -> None:
    from unitune.data.load import load
    from unitune.importers.vendor_jobs import ANSWERS, record_answers

    if imported.model is None:
        raise UserError("the old job has no model, so no answers can be recorded.")
    rows = tuple(load(cases))
    file = directory / ANSWERS
    failures = record_answers(imported.model, rows, file)
    for failure in failures[:3] if not quiet else []:
        aside().print(failure)
    if failures:
        raise BackendError(
            f"{len(failures)} of {len(rows)} cases got no answer; the other answers are in {file}. "
            "Run the same command to request the missing ones."
        )
    console().print(f"wrote {file}: {len(rows)} answers of {imported.model.name}")
