"""Implement `unitune init`: write a job for a data file, or copy the example project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from unitune.cli.job_files import BESIDE, EDITOR_LINE, write_beside
from unitune.cli.options import JOB_FILE, Json, backend_option
from unitune.cli.output import (
    console,
    exit_for_errors,
    facts,
    print_findings,
    print_json,
    replacing,
)
from unitune.errors import UserError

if TYPE_CHECKING:
    from unitune.data.columns import Guess
    from unitune.importers.new_job import Draft


EXAMPLE = "bank-intents"
EXAMPLE_FILES = ("unitune.yaml", "train.jsonl", "test.jsonl", "README.md")

# Codes of the findings about reading the file: the guessed columns depend on them
OF_READING = ("title-lines", "total-lines", "rows-left-out", "windows-1252", "other-sheets")
MOST_OTHERS = 3

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the example.")]
ExampleDirectory = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help=f"Folder for the example (default: {EXAMPLE})."),
]
DataFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Data file to write a job for.")
]
TestShare = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of rows held out for the test (default: 0.2, at most 500 rows).",
    ),
]
JobOutput = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Job file to write (default: unitune.yaml)."
    ),
]
Question = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column with the question."),
]
Answer = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column with the expected answer.")
]
System = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column with the system prompt.")
]
Drop = Annotated[bool, typer.Option("--drop", help="Leave out unusable rows and count them.")]
KeepSpellings = Annotated[
    bool,
    typer.Option(
        "--keep-spellings", help="Treat labels that differ only in case or spaces as different."
    ),
]
Backend = Annotated[str | None, backend_option("Backend that trains (default: local).")]
Model = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Base model (default: a small one).")
]


def init(
    directory: ExampleDirectory = None,
    *,
    data: DataFile = None,
    test: TestShare = None,
    user: Question = None,
    assistant: Answer = None,
    system: System = None,
    backend: Backend = None,
    model: Model = None,
    drop: Drop = False,
    keep_spellings: KeepSpellings = False,
    output: JobOutput = None,
    json: Json = False,
) -> None:
    """Write a job for a data file; without --data, copy the example project.

    unitune detects the format of the file and guesses which columns hold question and answer. It
    holds out part of the rows for the test and chooses scorers that fit the answers. The job is
    commented. No existing file is overwritten.

    [dim]$ unitune init --data tickets.csv
    $ unitune init --data chats.json --test 0.1 --output chats.yaml
    $ unitune init my-intents[/dim]
    """
    wishes = {"test": test, "user": user, "assistant": assistant, "system": system}
    wishes |= {"backend": backend, "model": model, "output": output}
    wishes |= {"drop": drop or None, "keep-spellings": keep_spellings or None}
    if data is None:
        if given := [name for name, value in wishes.items() if value is not None]:
            raise UserError(f"--{given[0]} needs a data file: unitune init --data FILE")
        _init_example(directory or Path(EXAMPLE), json=json)
        return
    if directory is not None:
        raise UserError(
            f"{directory} is a folder for the example, which --data does not write. Pass the path "
            f"of the job file instead: --output {directory / JOB_FILE}"
        )
    if test is not None and not 0 < test < 1:
        raise UserError(f"--test is {test:g}. Pass a share between 0 and 1, such as 0.2.")
    from unitune.cli.progress import working
    from unitune.importers.new_job import Wishes, draft_job

    target = output or JOB_FILE
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists; nothing was written. Pass another: --output FILE")
    columns = {"user": user, "assistant": assistant, "system": system}
    chosen = {role: name for role, name in columns.items() if name is not None}
    with working("reading the rows", quiet=json):
        draft = draft_job(data, target, Wishes(chosen, test, backend, model, drop, keep_spellings))
    errors = [finding for finding in draft.findings if finding.severity == "error"]
    if not errors:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file:
            file.write((EDITOR_LINE + draft.text).encode())
        write_beside(target)
    if json:
        print_json(
            {
                "schema_version": 1,
                "directory": target.parent,
                "files": [] if errors else [target, target.parent / BESIDE],
                "read_as": draft.read_as,
                "answers": draft.answers.kind,
                "findings": [each.model_dump(exclude_none=True) for each in draft.findings],
            }
        )
    else:
        _print_draft(draft, data)
        print_findings(each for each in draft.findings if each.code in OF_READING)
        print_findings(errors)
        _print_next(target, written=not errors)
    exit_for_errors(errors)


def _print_draft(draft: Draft, data: Path) -> None:
    splits, guess = draft.rows.splits, draft.guess
    rows = {
        "read": f"{data} as {draft.read_as}",
        "question": " and ".join(guess.question) if guess else "",
        "answer": _answer(guess) if guess else "",
        "rows": f"{len(splits.train):,} for training, {len(splits.validation):,} for choosing "
        f"prompts, {len(splits.test or ()):,} for the test",
        "answers": draft.answers.kind,
        "scorers": ", ".join(scorer.name for scorer in draft.job.evaluate.scorers),
        "caution": draft.answers.caution,
        "model": f"{draft.job.base_model} on {draft.job.backend}",
        "base": draft.caution,
    }
    console().print(facts({name: text for name, text in rows.items() if text}))


def _answer(guess: Guess) -> str:
    if not guess.others:
        return guess.answer
    others = " or ".join(map(repr, guess.others[-MOST_OTHERS:]))
    return f"{guess.answer} (could also be {others}: --assistant COLUMN)"


def _print_next(target: Path, *, written: bool) -> None:
    if not written:
        console().print("Nothing was written. Try another backend: --backend NAME --model MODEL")
        return
    job = "" if target == JOB_FILE else f" {target}"
    console().print(f"Wrote {target}. Review it, then run:", style="bold")
    commands = Table.grid(padding=(0, 2))
    for command, purpose in (
        (f"unitune plan{job}", "show cost, time and memory; starts nothing"),
        (f"unitune run{job}", "train"),
        (f"unitune compare{job} --limit 20", "preview on 20 cases"),
        (f"unitune compare{job}", "get the verdict"),
    ):
        commands.add_row(Text(f"  {command}", no_wrap=True), Text(purpose, "dim"))
    console().print(commands)


def _init_example(directory: Path, *, json: bool) -> None:
    files = write_example(directory)
    if json:
        print_json({"schema_version": 1, "directory": directory, "files": files})
        return
    console().print(f"Wrote {', '.join(map(str, files))}.")
    console().print(f"Next: unitune plan {directory / 'unitune.yaml'}")


def write_example(directory: Path) -> list[Path]:
    """Copy the example from the installed package or a checkout into a folder.

    Raises `UserError` before anything is written if a file there has other content.
    """
    package = Path(__file__).parents[1]
    source = package / "examples" / EXAMPLE
    if not source.is_dir():
        source = package.parent / "examples" / EXAMPLE
    content = {name: (source / name).read_bytes() for name in EXAMPLE_FILES}
    content[JOB_FILE.name] = EDITOR_LINE.encode() + content[JOB_FILE.name]
    for name in EXAMPLE_FILES:
        target = directory / name
        if target.exists() and target.read_bytes() != content[name]:
            raise UserError(
                f"{target} exists and differs from the example. Nothing was written. "
                "Choose another folder: unitune init DIR"
            )
    directory.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLE_FILES:
        with replacing(directory / name) as file:
            file.write(content[name])
    return [*(directory / name for name in EXAMPLE_FILES), write_beside(directory / JOB_FILE)]
