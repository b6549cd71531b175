"""Commands about models: base models here, checkpoints and weights at vendors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unitune.cli.options import NEWEST, Json, Quiet, RunId, backend_option
from unitune.cli.output import console, facts, new_table, print_json
from unitune.errors import Unsupported
from unitune.render.typography import gigabytes

base_models = typer.Typer(name="base-models", no_args_is_help=False, invoke_without_command=True)

BackendName = Annotated[str, backend_option("Whose models: a backend that keeps them.")]


@base_models.callback()
def list_base_models(
    context: typer.Context, *, backend: BackendName = "local", json: Json = False
) -> None:
    """List the base models that can be tuned here, and which are on this machine.

    [dim]$ unitune base-models
    $ unitune base-models pull smollm2-135m-instruct[/dim]
    """
    if context.invoked_subcommand is not None:
        return
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores

    keeper = registry.backend(backend)
    stored = list(keeper.stored()) if isinstance(keeper, Stores) else []
    offered = registry.offer(backend).models
    if json:
        lists = {"offered": offered, "stored": stored}
        print_json({"schema_version": 1, "backend": backend, **lists})
        return
    others = {model.name: model for model in stored}
    headings = ("model", "parameters", "licence", "on this machine", "note")
    table = new_table(*headings, fold=headings)
    for model in offered:
        here = others.pop(model.name, None)
        table.add_row(
            model.name,
            f"{model.parameters / 1e6:.0f} M" if model.parameters else "?",
            model.licence or "?",
            gigabytes(here.bytes) if here else "no",
            model.note,
        )
    for model in others.values():
        table.add_row(model.name, "", "", gigabytes(model.bytes), str(model.path))
    console().print(table)


@base_models.command()
def pull(
    name: Annotated[str, typer.Argument(help="An offered model, a hub name or a folder.")],
    *,
    backend: BackendName = "local",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fetch a base model once.

    [dim]$ unitune base-models pull smollm2-135m-instruct[/dim]
    """
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores
    from unitune.cli.progress import download_progress

    keeper = registry.backend(backend)
    if not isinstance(keeper, Stores):
        raise Unsupported(f"backend {backend!r} keeps no models on this machine.")
    with download_progress(quiet=quiet or json):
        stored = keeper.pull(name)
    if json:
        print_json(stored)
    else:
        console().print(f"{stored.name}: {gigabytes(stored.bytes)} in {stored.path}")


def checkpoints(run: RunId = NEWEST, *, json: Json = False) -> None:
    """List the models that were saved during a run's training.

    [dim]$ unitune checkpoints r2611[/dim]
    """
    from unitune.run.run import find_run

    saved = find_run(run).checkpoints()
    if json:
        rows = [
            {"step": point.step, "model": point.model.name, "metrics": point.metrics}
            for point in saved
        ]
        print_json({"schema_version": 1, "checkpoints": rows})
        return
    if not saved:
        console().print("No checkpoints.")
        return
    lines: dict[str, str] = {}
    for point in saved:
        metrics = [f"{key} {value}" for key, value in point.metrics.items() if key != "step"]
        lines[f"step {point.step}"] = "  ".join([point.model.name, *metrics])
    console().print(facts(lines))


def download(
    run: RunId = NEWEST,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the weights go.")
    ] = Path(),
    step: Annotated[
        int | None, typer.Option(help="Those of a checkpoint: unitune checkpoints RUN.")
    ] = None,
) -> None:
    """Download the weights of a run's model, where its vendor hands them out.

    [dim]$ unitune download r2611 -o weights[/dim]
    """
    from unitune.run.run import find_run

    file = find_run(run).download(output, step=step)
    console().print(f"{file}  {file.stat().st_size:,} bytes", soft_wrap=True)
