"""The command `unitune cost`: the total cost of ownership of a tuned model."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from unitune.cli.options import JobFile, Json, OwnPrices, parse_prices
from unitune.cli.output import console, print_json

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
    json: Json = False,
) -> None:
    """Say what a tuned model costs in total, and from which volume it beats prompting.

    Training, hosting and requests over the months that the model lives, against the prompted base
    and the newest untuned model. How it will be used stands in the job (`usage`), or is measured
    in its newest comparison, or counted. No vendor is called.

    [dim]$ unitune cost unitune.yaml
    $ unitune cost unitune.yaml --backend azure --backend together --requests 250000[/dim]
    """
    from unitune.job.job import Job
    from unitune.report.total_cost import total_cost_view
    from unitune.tco.total_cost import total_costs

    job = Job.load(file)
    names = backend or [job.backend]
    job = job.with_prices(parse_prices(price, names[0] if len(names) == 1 else job.backend))
    costs = total_costs(job, names, requests_month=requests)
    if json:
        print_json(costs)
        return
    for number, total_cost in enumerate(costs.backends):
        console().print(*([Text()] if number else []), total_cost_view(total_cost), sep="\n")
    for skipped in costs.left_out:
        console().print(f"\n{skipped.backend} is left out: {skipped.reason}")
