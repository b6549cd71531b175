"""Commands about the models that a run has left: checkpoints, download."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.options import Json, RunId

if TYPE_CHECKING:
    from pydantic import JsonValue


def checkpoints(run: RunId, *, json: Json = False) -> None:
    """List the models that were saved during a run's training.

    [dim]$ unitune checkpoints r2611[/dim]
    """
    from unitune.cli.output import console, facts, print_json
    from unitune.run.run import find_run
    from unitune.run.weights import checkpoints as saved_by

    saved = saved_by(find_run(run))
    if json:
        rows: list[JsonValue] = [
            {"step": one.step, "model": one.model.name, "metrics": dict(one.metrics)}
            for one in saved
        ]
        print_json({"schema_version": 1, "checkpoints": rows})
    elif saved:
        console().print(
            facts({f"step {one.step}": _line(one.model.name, one.metrics) for one in saved})
        )
    else:
        console().print("No checkpoints.")


def _line(model: str, metrics: Mapping[str, JsonValue]) -> str:
    return "  ".join(
        [model, *(f"{key} {value}" for key, value in metrics.items() if key != "step")]
    )


def download(
    run: RunId,
    *,
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the weights go.")
    ] = Path(),
    step: Annotated[
        int | None, typer.Option(help="Those of a checkpoint: unitune checkpoints RUN.")
    ] = None,
) -> None:
    """Download the weights of a run's model, where its vendor hands them out.

    [dim]$ unitune download r2611 -o weights[/dim]
    """
    from unitune.cli.output import console
    from unitune.run.run import find_run
    from unitune.run.weights import download as fetch

    file = fetch(find_run(run), out, step=step)
    console().print(f"{file}  {file.stat().st_size:,} bytes", soft_wrap=True)
