"""Commands about this machine: models, doctor, trust, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from unitune.cli.options import Json, Quiet
from unitune.errors import Unsupported

models = typer.Typer(
    name="models",
    no_args_is_help=False,
    invoke_without_command=True,
)

READ = ("job", "offer", "prices")
"""Documents that people write; the others are printed."""

BackendName = Annotated[
    str, typer.Option("--backend", metavar="NAME", help="Whose models: a backend that keeps them.")
]


@models.callback()
def list_models(
    context: typer.Context, *, backend: BackendName = "local", json: Json = False
) -> None:
    """List the base models that can be tuned here, and which are on this machine.

    [dim]$ unitune models
    $ unitune models pull smollm2-135m-instruct[/dim]
    """
    if context.invoked_subcommand is not None:
        return
    from unitune.cli.modellist import ModelList, models_table
    from unitune.cli.output import console, print_json

    found = ModelList.of(backend)
    print_json(found) if json else console().print(models_table(found))


@models.command()
def pull(
    name: Annotated[str, typer.Argument(help="An offered model, a hub name or a folder.")],
    *,
    backend: BackendName = "local",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fetch a base model once.

    [dim]$ unitune models pull smollm2-135m-instruct[/dim]
    """
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores
    from unitune.cli.output import console, gigabytes, print_json
    from unitune.cli.progress import fetching

    keeper = registry.backend(backend)
    if not isinstance(keeper, Stores):
        raise Unsupported(f"backend {backend!r} keeps no models on this machine.")
    with fetching(quiet=quiet or json) as progress:
        stored = keeper.pull(name, progress)
    if json:
        print_json(stored)
    else:
        console().print(f"{stored.name}: {gigabytes(stored.bytes)} in {stored.path}")


def doctor(*, json: Json = False) -> None:
    """Say what unitune found here: Python, ledger, backends, devices.

    [dim]$ unitune doctor[/dim]
    """
    from unitune.cli.diagnosis import examine, print_diagnosis
    from unitune.cli.output import print_json

    found = examine()
    print_json(found) if json else print_diagnosis(found)


def trust(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder, here or wherever it is.")
    ] = Path(".unitune"),
) -> None:
    """Use a .unitune folder that was moved, or came from elsewhere; look at it first.

    What stands in it says which jobs and deployments are ended with your keys.

    [dim]$ unitune trust .unitune[/dim]
    """
    from unitune.cli.output import console
    from unitune.workspace.trust import accept

    accept(folder)
    console().print(f"{folder.absolute()} is used from now on.")


def schema(
    name: Annotated[
        Literal[
            "job",
            "plan",
            "check",
            "run",
            "verdict",
            "cost",
            "budget",
            "offer",
            "prices",
            "price-list",
        ],
        typer.Argument(help="Which document."),
    ],
) -> None:
    """Print the JSON Schema of a document that unitune reads or writes.

    [dim]$ unitune schema job > unitune.schema.json[/dim]
    """
    from unitune.cli.output import print_json
    from unitune.cli.schemas import document_model

    mode = "validation" if name in READ else "serialization"
    print_json(document_model(name).model_json_schema(mode=mode))
