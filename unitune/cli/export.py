"""Implement the commands that pass on a run's model: export, push, card and track."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unitune.cli.options import NEWEST, Json, Quiet, RunId
from unitune.cli.output import aside, console, facts, print_json
from unitune.errors import BackendError, UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from unitune.tracking.interface import Outcome

SHOWN_FILES = 6
# Copied from `unitune.backends.local_capabilities`, which is slow to import
FormName = Literal["adapter", "merged", "gguf", "gguf-lora", "ollama", "mlx", "vllm"]


def export(
    run: RunId = NEWEST,
    *,
    to: Annotated[
        FormName,
        typer.Option(
            metavar="FORM", help="Format: adapter, merged, gguf, gguf-lora, ollama, mlx or vllm."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder (default: ./JOB-FORM)."),
    ] = None,
    quantization: Annotated[
        Literal["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"] | None,
        typer.Option(
            metavar="TYPE",
            help="Number format: F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1 or Q4_0.",
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Export a run's model for llama.cpp, Ollama, vLLM, mlx-lm or transformers.

    The export is verified: the target program, if it is installed, loads it and answers the run's
    validation rows, and the share of answers equal to the run's own is printed. An export that
    answers differently is refused and deleted. The default number format has 16 bits; merged
    weights keep that of the base model.

    [dim]$ unitune models export --to gguf --quantization Q8_0
    $ unitune models export r2611 --to ollama -o triage-ollama[/dim]
    """
    from unitune.cli.progress import working
    from unitune.run.run import find_run

    exported_run = find_run(run)
    with working("exporting", quiet=quiet or json):
        done = exported_run.export(to, output, quantization=quantization)
    largest = sorted(done.files, key=lambda name: -done.files[name])
    rows = {
        "folder": f"{done.folder}  {megabytes(sum(done.files.values()))}, {done.seconds:.0f} s",
        **{f"  {name}": megabytes(done.files[name]) for name in largest[:SHOWN_FILES]},
        "verified": "no",
    }
    if done.rows:
        share = f"{done.equal} of {done.rows} greedy answers equal the run's own"
        rows["verified"] = f"{share} ({done.equal / done.rows:.0%}), in {done.program}"
    if done.notes:
        rows["note"] = "\n".join(done.notes)
    _print_done(done, str(done.folder), rows, quiet=quiet, json=json)
    if done.use and not (quiet or json):
        console().print(f"Use it: {done.use}", soft_wrap=True)


def _print_done(
    done: BaseModel, name: str, rows: dict[str, str], *, quiet: bool, json: bool
) -> None:
    if json:
        print_json({"schema_version": 1, **done.model_dump(mode="json")})
    elif quiet:
        console().print(name, soft_wrap=True)
    else:
        console().print(facts(rows))


def megabytes(count: int) -> str:
    """Return a number of bytes in MB (10⁶ bytes), or in kB if it is small."""
    return f"{count / 10**6:,.1f} MB" if count >= 10**5 else f"{count / 1000:.1f} kB"


To = Annotated[Literal["hub"], typer.Option(metavar="hub", help="Target: the Hugging Face Hub.")]
Repository = Annotated[
    str | None,
    typer.Option("--repo", metavar="OWNER/NAME", help="Repository (default: YOU/JOB)."),
]
Public = Annotated[
    bool, typer.Option("--public/--private", help="Make the repository public or private.")
]
Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder written by `unitune models export`."),
]
Form = Annotated[
    FormName,
    typer.Option(metavar="FORM", help="Format to export without --folder."),
]
AllFiles = Annotated[
    bool,
    typer.Option(
        "--all-files", help="Also publish files not written by the export.", show_default=False
    ),
]


def push(
    run: RunId = NEWEST,
    *,
    to: To,
    repository: Repository = None,
    public: Public = False,
    folder: Folder = None,
    form: Form = "adapter",
    all_files: AllFiles = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Push a run's model and its card to the Hugging Face Hub in one commit.

    Without a folder, the model is exported and verified first. A new repository is private. Files
    that are already there are not sent again, so an interrupted push can be repeated. The token is
    HF_TOKEN or that of `hf auth login`.

    [dim]$ unitune models push triage@production --to hub --repo acme/support-triage
    $ unitune models push --to hub --folder triage-merged --public[/dim]
    """
    from unitune.cli.progress import working
    from unitune.publish import push
    from unitune.run.run import find_run

    del to  # there is only one target
    if folder is not None and form != "adapter":
        raise UserError("--form is for a new export, --folder for an existing one. Pass one.")
    with working("pushing", quiet=quiet or json):
        done = push(
            find_run(run),
            repository,
            public=public,
            folder=folder,
            form=form,
            all_files=all_files,
        )
    news = "" if done.is_new else "  unchanged: the same files are already there"
    rows = {
        "repository": f"{done.url}  {'private' if done.is_private else 'public'}",
        "commit": f"{done.commit[:8]}{f' ({done.tag})' if done.tag else ''}{news}",
        "files": f"{len(done.files)} files, {megabytes(sum(done.files.values()))}",
    }
    if done.notes:
        rows["note"] = "\n".join(done.notes)
    _print_done(done, done.url, rows, quiet=quiet, json=json)


Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR", help="Folder, e.g. of an export (default: JOB-card)."
    ),
]
SignKey = Annotated[
    Path | None,
    typer.Option("--sign", metavar="KEY", help="Sign the folder's files with this private key."),
]


def card(
    run: RunId = NEWEST,
    *,
    output: Output = None,
    sign: SignKey = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a model's card, training summary, data description and provenance.

    README.md is a Hugging Face model card with the measured results. training-summary.md follows
    the European Commission's template. croissant.json describes the rows. provenance.intoto.json
    links the hashes of the model's files to base model, rows and settings. In the folder of an
    export, the files are written next to the model. Missing information is marked "not stated".

    [dim]$ unitune models card
    $ unitune models card triage@production -o triage-merged --sign signing.pem[/dim]
    """
    from unitune.card.card import write_card
    from unitune.cli.progress import working
    from unitune.run.run import find_run

    chosen = find_run(run)
    with working("hashing the model's files", quiet=quiet or json):
        done = write_card(chosen, output, sign_key=sign)
    results = f"results of {done.comparison}" if done.comparison else "no results: not compared"
    kept = f"{len(done.model_files)} files of the model" if done.model_files else "the model's name"
    rows = {
        "folder": str(done.folder),
        "  README.md": f"model card, {results}",
        "  training-summary.md": "training data, in the European Commission's template",
        "  croissant.json": "its rows: files, fields, hashes",
        "  provenance.intoto.json": f"hashes of {kept}",
    }
    if done.signature:
        rows[f"  {done.signature}"] = "signature of all files"
    rows["not stated"] = ", ".join(done.not_stated)
    _print_done(done, str(done.folder), rows, quiet=quiet, json=json)


class TrackerName(StrEnum):
    """Trackers, as in `unitune.tracking.interface.SOURCES`, which is slow to import."""

    MLFLOW = "mlflow"
    WANDB = "wandb"
    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"


Trackers = Annotated[
    list[TrackerName] | None,
    typer.Option("--to", metavar="TRACKER", help="Tracker (repeatable; default: the job's)."),
]


def track(run: RunId = NEWEST, *, to: Trackers = None, json: Json = False) -> None:
    """Send a run's metrics and its comparison to experiment trackers.

    MLflow's registry also gets the versions and aliases of its registered model.

    Use it for runs that were not watched, or after a tracker was unavailable. A job that lists
    trackers (`track: [mlflow]`) sends its metrics while it is watched. Nothing is sent twice.

    [dim]$ unitune runs track
    $ unitune runs track r261128 --to mlflow --to tensorboard[/dim]
    """
    from unitune.report.tracking import track as track_run
    from unitune.run.run import find_run

    chosen = find_run(run)
    names = tuple(map(str, to or ())) or chosen.job.track
    if not names:
        raise UserError(
            f"the job of run {chosen.id} lists no trackers. Pass one: unitune runs track "
            f"{chosen.id} --to mlflow ({', '.join(TrackerName)})"
        )
    outcomes = track_run(chosen, names)
    if json:
        print_json({"schema_version": 1, "run": chosen.id, "trackers": outcomes})
    for outcome in outcomes:
        if outcome.problem:
            raise BackendError(f"{outcome.tracker} received nothing: {outcome.problem}")
        if not json:
            console().print(f"{outcome.tracker}  {outcome.where}", soft_wrap=True)


def print_outcomes(outcomes: Iterable[Outcome]) -> None:
    """Print the trackers' outcomes to standard error."""
    for outcome in outcomes:
        what = f"received nothing: {outcome.problem}" if outcome.problem else outcome.where
        aside().print(f"{outcome.tracker}  {what}", soft_wrap=True)
