"""The command `unitune cost`: the total cost of ownership of a tuned model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from unitune.cli.options import JobFile, Json, OwnPrices, parse_prices
from unitune.cli.output import console, print_json
from unitune.cli.output_files import Kind, check_output, replacing

MAX_REQUESTS = 10**10
"""As of `unitune.job.usage`, which ``--help`` need not load."""


def cost(
    file: JobFile,
    *,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="Of this backend; may be given again."),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option("--requests", metavar="N", min=1, max=MAX_REQUESTS, help="Requests a month."),
    ] = None,
    price: OwnPrices,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write a page with the plot."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what a tuned model costs in total, and from which volume it beats prompting.

    Training, hosting and requests over the months that the model lives, against the prompted base
    and the newest untuned model. How it will be used stands in the job (`usage`), or is measured
    in its newest comparison, or counted. A training of the same job that has been billed counts as
    billed. No vendor is called.

    [dim]$ unitune cost unitune.yaml
    $ unitune cost unitune.yaml --backend azure --backend together --requests 250000
    $ unitune cost unitune.yaml -o cost.html[/dim]
    """
    from unitune.job.job import Job
    from unitune.report.tco.terminal import total_cost_view
    from unitune.tco.total_cost import total_costs

    job = Job.load(file)
    names = backend or [job.backend]
    job = job.with_prices(parse_prices(price, names[0] if len(names) == 1 else job.backend))
    check_output(output, Kind.PAGE, [file])
    costs = total_costs(job, names, requests_month=requests)
    if output is not None:
        from unitune.report.tco.page import render  # brings jinja

        with replacing(output) as page:
            page.write(render(costs).encode())
    if json:
        print_json(costs)
        return
    for number, total_cost in enumerate(costs.backends):
        console().print(*([Text()] if number else []), total_cost_view(total_cost), sep="\n")
    for skipped in costs.left_out:
        console().print(f"\n{skipped.backend} is left out: {skipped.reason}")
    if output is not None:
        console().print(f"\n{output} has the plot.")
