"""The command of the total cost of ownership: cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unitune.cli.options import GivenPrices, JobFile, Json, prices_given
from unitune.job.usage import MOST_REQUESTS


def cost(
    file: JobFile,
    *,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="Of this backend; may be given again."),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option("--requests", metavar="N", min=1, max=MOST_REQUESTS, help="Requests a month."),
    ] = None,
    price: GivenPrices,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write a page with the plot."),
    ] = None,
    json: Json = False,
) -> None:
    """Show the total cost of ownership of a tuned model, and from which volume it beats prompting.

    Training, hosting and requests over the months that the model lives, against the prompted base
    and the newest untuned model. How it will be used stands in the job (`usage`), or is measured
    in its newest comparison, or counted. A training of the same job that has been billed counts as
    billed. Nobody is called.

    [dim]$ unitune cost unitune.yaml
    $ unitune cost unitune.yaml --backend azure --backend together --requests 250000
    $ unitune cost unitune.yaml -o cost.html[/dim]
    """
    from rich.text import Text

    from unitune.cli.outfile import PAGE, check_place, replacing
    from unitune.cli.output import console, print_json
    from unitune.job.job import Job
    from unitune.report.tco.terminal import total_cost_view
    from unitune.tco.total_cost import total_costs

    job = Job.load(file)
    job = job.with_prices(
        prices_given(price, backend[0] if backend and len(backend) == 1 else job.backend)
    )
    if out is not None:
        check_place(out, PAGE, [file])
    found = total_costs(job, backend or [job.backend], requests_month=requests)
    if out is not None:
        from unitune.report.tco.html import render

        with replacing(out) as page:
            page.write(render(found).encode())
    if json:
        print_json(found)
        return
    for at, one in enumerate(found.backends):
        console().print(*([Text()] if at else []), total_cost_view(one), sep="\n")
    for one in found.left_out:
        console().print(Text(f"\n{one.backend} is left out: {one.reason}"))
    if out is not None:
        console().print(f"\n{out} has the plot.")
