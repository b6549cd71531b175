"""Implement the commands for base models, checkpoints and downloaded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unitune.cli.options import NEWEST, Json, Quiet, RunId, backend_option
from unitune.cli.output import console, facts, new_table, print_json
from unitune.errors import Unsupported
from unitune.render.typography import gigabytes

BackendName = Annotated[str, backend_option("Backend that stores base models on this machine.")]


def base_models(*, backend: BackendName = "local", json: Json = False) -> None:
    """List the base models that can be tuned here and those already downloaded.

    [dim]$ unitune models base
    $ unitune models pull smollm2-135m-instruct[/dim]
    """
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


def pull(
    name: Annotated[str, typer.Argument(help="Offered model, name on the hub, or folder.")],
    *,
    backend: BackendName = "local",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Download a base model, unless it is already stored.

    [dim]$ unitune models pull smollm2-135m-instruct[/dim]
    """
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores
    from unitune.cli.progress import download_progress

    keeper = registry.backend(backend)
    if not isinstance(keeper, Stores):
        raise Unsupported(f"backend {backend!r} does not store models on this machine.")
    with download_progress(quiet=quiet or json):
        stored = keeper.pull(name)
    if json:
        print_json(stored)
    else:
        console().print(f"{stored.name}: {gigabytes(stored.bytes)} in {stored.path}")


def checkpoints(run: RunId = NEWEST, *, json: Json = False) -> None:
    """List the models saved during a run's training.

    [dim]$ unitune models checkpoints r2611[/dim]
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
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the weights.")
    ] = Path(),
    step: Annotated[
        int | None,
        typer.Option(help="Step of a checkpoint (see `unitune models checkpoints RUN`)."),
    ] = None,
) -> None:
    """Download the weights of a run's model, if its vendor provides them.

    [dim]$ unitune models download r2611 -o weights[/dim]
    """
    from unitune.run.run import find_run

    file = find_run(run).download(output, step=step)
    console().print(f"{file}  {file.stat().st_size:,} bytes", soft_wrap=True)
