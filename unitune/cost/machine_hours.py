"""Estimate the hours of a training on a rented machine from the peak rate of its processor."""

from __future__ import annotations

import re
from decimal import Decimal

from unitune.cost.prices.book import PriceLookup
from unitune.cost.spread import Spread
from unitune.cost.tokens import Count
from unitune.job.job import Job

# Operations for each token and parameter: 2 forward, 2 for the gradient of the inputs and 2 either
# for recomputed activations or for the gradient of trained weights
FLOPS = 6
# Share of the peak rate that a training reaches (expected), and the range of the time around it:
# those of the local forecast on a GPU that was not measured
PEAK_SHARE = Decimal("0.3")
BAND = (Decimal("0.2"), Decimal(5))
# Minutes to start the machine, install packages and load the base model
START_MINUTES = (Decimal(1), Decimal(4), Decimal(12))
# Model size in a name: ``8B``, ``270m``; for mixtures of experts also the active part: ``A3B``
SIZE = re.compile(
    r"(?<![\w.])(?P<active>a)?(?P<count>\d+([.p]\d+)?)(?P<unit>[bm])(?![a-z0-9])", re.IGNORECASE
)


def parameters_in(name: str, *, active: bool = True) -> int | None:
    """Return the number of parameters in a model's name, by default of the active part if named."""
    sizes = {bool(match["active"]): match for match in SIZE.finditer(name)}
    if not (match := (active and sizes.get(True)) or sizes.get(False)):
        return None
    count = float(match["count"].replace("p", "."))
    return round(count * (10**9 if match["unit"] in "bB" else 10**6)) or None


def machine_hours(parameters: int, tokens: Count, teraflops: Decimal) -> Spread:
    """Return the hours that a machine is paid for to train on so many tokens in all.

    Args:
        parameters: Parameters that compute each token.
        tokens: Tokens of all epochs.
        teraflops: Peak rate of the machine in 16 bits without sparsity, in 10^12 operations a
            second.
    """
    second = teraflops * 10**12 * PEAK_SHARE
    counts = (tokens.low, tokens.expected, tokens.high)
    factors = (BAND[0], Decimal(1), BAND[1])
    return Spread(
        *(
            minutes / 60 + factor * FLOPS * parameters * count / second / 3600
            for count, factor, minutes in zip(counts, factors, START_MINUTES, strict=True)
        )
    )


def hours_of(job: Job, prices: PriceLookup, tokens: Count | None) -> Spread | None:
    """Return the hours of a training: as forecast, and at most those of budget and time limit."""
    offer, limit = prices.book.offer(prices.backend), job.options.get(job.backend, {})
    given = (job.budget and job.budget.hours, limit.get("timeout_hours"))
    limits = [Decimal(str(each)) for each in given if isinstance(each, int | float | Decimal)]
    most = min(limits, default=None)
    model, speed = offer.model(job.base_model), offer.machines.get(prices.tier or "")
    parameters = (model and model.parameters) or parameters_in(job.base_model)
    if speed is None or parameters is None or tokens is None or job.method == "rft":
        return None if most is None else Spread(Decimal(0), most, most)
    hours = machine_hours(parameters, tokens, speed)
    if most is None:
        return hours
    return Spread(*(min(end, most) for end in (hours.low, hours.expected, hours.high)))
