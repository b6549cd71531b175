"""Propose a base model for a backend when the job names none."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from unitune.backends.offer import OfferedModel
from unitune.cost.prices.book import PriceBook
from unitune.job.job import Job
from unitune.planning.feasibility import is_open, takes
from unitune.workspace.today import today

# Size in a model's name: 8B, 0.6B, 0p6b, 270m
BILLIONS = re.compile(r"(?<![a-z0-9])(\d+(?:[.p]\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
FAR = 5  # difference in doublings from which a base counts like one of unknown size


def proposed_bases(job: Job, book: PriceBook) -> tuple[str, ...]:
    """Return the base models of a job's backend that are closest to the job's model, closest first.

    Models that support the job come first, then those with a price, then the closest in size (read
    from names), then the cheapest: one for each row format. Empty if the job names a base of this
    backend.
    """
    offer = book.offer(job.backend)
    if isinstance(job.model, str):
        names, refusal = [job.model], offer.terms(job.model).refusal
        if offer.model(job.model) or refusal or is_open(job, offer):
            return ()
    else:
        names = [*job.model.values()]
        if job.backend in job.model:
            return ()
    if offer.hub_models and (on_hub := [name for name in names if name.count("/") == 1]):
        return tuple(on_hub[:1])
    size = next((size for name in names if (size := _billions(name))), None)
    tier = offer.tier(job.options.get(offer.name, {}))

    def distance(model: OfferedModel) -> tuple[bool, int, Decimal]:
        row = book.find(
            offer.name, model.name, "training", method=job.method, tier=tier, on=today()
        )
        sizes = (_billions(name) for name in (model.name, *model.aliases))
        theirs = next((each for each in sizes if each), None)
        doublings = round(abs(math.log2(theirs / size))) if theirs and size else FAR
        return row is None, min(doublings, FAR), row.usd if row else Decimal(0)

    usable = [model for model in offer.models if takes(job, offer, model.name, today())]
    ordered = sorted(usable or offer.models[:1], key=distance)
    formats = ((offer.terms(model.name).formats.get(job.method), model.name) for model in ordered)
    return tuple(dict(reversed([*formats])).values())[::-1]


def _billions(name: str) -> float | None:
    """Return the number of parameters in a model's name, in billions."""
    match = BILLIONS.search(name)
    return match and float(match[1].replace("p", ".")) / (1 if match[2] in "bB" else 1000)
