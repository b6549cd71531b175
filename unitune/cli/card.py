"""The command `unitune card`: a model's card, training summary, data set and provenance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.options import NEWEST, Json, Quiet, RunId
from unitune.cli.output import console, facts, print_json

if TYPE_CHECKING:
    from unitune.card.card import Card

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR", help="An export's folder, or another; default JOB-card."
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
    """Write what a model is published with: model card, training summary, data set, provenance.

    README.md is a card of the Hugging Face Hub with the measured results, training-summary.md
    follows the European Commission's template, croissant.json describes the rows, and
    provenance.intoto.json ties the model's files to base, rows and settings by their hashes. In an
    export's folder they lie beside the model. Nothing is invented: what no one has said is "not
    stated".

    [dim]$ unitune card
    $ unitune card triage@production -o triage-merged --sign signing.pem[/dim]
    """
    from unitune.card.card import write_card
    from unitune.cli.progress import working
    from unitune.run.run import find_run

    chosen = find_run(run)
    with working("hashing the model's files", quiet=quiet or json):
        done = write_card(chosen, output, sign_key=sign)
    if json:
        print_json({"schema_version": 1, **done.model_dump(mode="json")})
    elif quiet:
        console().print(str(done.folder), soft_wrap=True)
    else:
        _print(done)


def _print(done: Card) -> None:
    results = f"results of {done.comparison}" if done.comparison else "no results: not compared"
    kept = f"{len(done.model_files)} files of the model" if done.model_files else "the model's name"
    rows = {
        "folder": str(done.folder),
        "  README.md": f"model card, {results}",
        "  training-summary.md": "what it was trained on, by the Commission's template",
        "  croissant.json": "its rows: files, fields, hashes",
        "  provenance.intoto.json": f"by the hashes of {kept}",
    }
    if done.signature:
        rows[f"  {done.signature}"] = "signature of all files"
    console().print(facts(rows | {"not stated": ", ".join(done.not_stated)}))
