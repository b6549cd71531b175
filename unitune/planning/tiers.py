"""Compare the price tiers that a backend offers for a base model, and check a job's choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Literal

from unitune.backends.offer import Offer, OfferedModel
from unitune.backends.tiers import Residency, without_region
from unitune.cost.prices.book import PriceBook
from unitune.documents import Frozen
from unitune.findings import Finding, error, note, warning
from unitune.job.job import Job
from unitune.job.prices import PriceRow


class TierChoice(Frozen):
    """Tier of a backend for training or serving a base model, with its prices."""

    tier: str
    training: str | None = None
    """Option that trains in it, with its value; None if a job cannot train the model in it."""
    serving: str | None = None
    """Option that deploys in it; None if a model tuned from it cannot be deployed in it."""
    chosen: tuple[str, ...] = ()
    """"training" or "deployment" if the job uses it for that."""
    training_price: PriceRow | None = None
    hosting_price: PriceRow | None = None
    residency: Residency | None = None
    regions: tuple[str, ...] = ()
    """Regions of trainings, in the vendor's names; empty if unknown."""


def tier_findings(job: Job, offer: Offer) -> Iterator[Finding]:
    """Yield errors if a job's tiers do not support its model or move its data, else notes."""
    tiers, options, model = offer.tiers, job.options.get(offer.name, {}), job.base_model
    if tiers is None:
        return
    trains, serves = offer.tier(options, model), offer.serving_tier(options, model)
    offered = offer.model(model) or OfferedModel(name=model)
    yield from _use_findings(job, offer, "train", trains, tuple(offered.tiers))
    plain, _, region = (trains or "").partition("/")
    if region and (regions := offered.tiers.get(plain)) and region not in regions:
        what = f"{offer.name} does not train {model} in tier {plain} in region {region}."
        yield error("unsupported-region", what, f"Regions: {', '.join(regions)}.")
    if offered.serving_tiers != ():
        yield from _use_findings(job, offer, "deploy", serves, offered.serving_tiers or ())
    else:
        what = f"unitune cannot deploy a model tuned from {model} at {offer.name}."
        yield warning("no-deployment", what, "It answers only if you deploy it there yourself.")
    for tier in dict.fromkeys((trains, serves)):
        if said := tiers.facts_of(tier).note:
            yield note("tier", f"{offer.name}, tier {without_region(tier)}: {said}.")
    if offer.idle_deletion:
        yield note("idle-deletion", offer.idle_deletion)


def _use_findings(
    job: Job, offer: Offer, verb: str, tier: str | None, allowed: Sequence[str]
) -> Iterator[Finding]:
    tiers, options = offer.tiers, job.options.get(offer.name, {})
    assert tiers is not None, "called only for an offer with tiers"
    trains = verb == "train"
    option = tiers.option if trains else tiers.serving_option
    given = tiers.chosen if trains else tiers.serving
    first = {each: value for value, each in reversed([*given.items()])}
    values = {
        value: each
        for value, each in given.items()
        if first[each] == value and (not allowed or each in allowed)
    }
    refusal = tiers.residency_refusal(options, tier)
    if allowed and without_region(tier) not in allowed:
        what = f"{offer.name} does not {verb} {job.base_model} in tier {without_region(tier)}."
        fix = f"Set options.{offer.name}.{option} to {' or '.join(values)}."
        yield error("unsupported-tier", what, fix)
    elif refusal:
        kept = [each for each in values if not tiers.residency_refusal(options, values[each])]
        name, demanded = tiers.residency_option, options.get(tiers.residency_option)
        demand = f"options.{offer.name}.{name} is {demanded}"
        fix = f"Set options.{offer.name}.{option} to {' or '.join(kept)}."
        otherwise = f"{offer.name} cannot {verb} it there. Choose another model or backend."
        yield error("residency", f"{demand}, but to {verb}, {refusal}.", fix if kept else otherwise)


def tier_choices(job: Job, book: PriceBook, day: date) -> tuple[TierChoice, ...]:
    """Return the tiers that a backend offers for a job's base model; empty if unknown."""
    offer, model, options = (
        book.offer(job.backend),
        job.base_model,
        job.options.get(job.backend, {}),
    )
    tiers, offered = offer.tiers, offer.model(model)
    if tiers is None or offered is None:
        return ()
    serves = offered.serving_tiers or ()
    used = {
        "training": offer.tier(options, model),
        "deployment": offer.serving_tier(options, model),
    }

    def choice(tier: str) -> TierChoice:
        trains, facts = tier in offered.tiers, tiers.facts_of(tier)
        here = next((each for each in used.values() if without_region(each) == tier), tier)
        training = book.find(offer.name, model, "training", method=job.method, tier=here, on=day)
        hosting = book.find(offer.name, model, "hosting", tier=here, on=day)
        return TierChoice(
            tier=tier,
            training=_chosen_by(tiers.option, trains and tiers.value_of("training", tier)),
            serving=_chosen_by(
                tiers.serving_option, tier in serves and tiers.value_of("deployment", tier)
            ),
            chosen=tuple(what for what, each in used.items() if without_region(each) == tier),
            training_price=training if trains else None,
            hosting_price=hosting if tier in serves else None,
            residency=facts.residency,
            regions=offered.tiers.get(tier, ()),
        )

    choices = map(choice, dict.fromkeys((*offered.tiers, *serves)))
    return tuple(each for each in choices if each.training or each.serving)


def _chosen_by(option: str, value: str | Literal[False] | None) -> str | None:
    return f"{option}: {value}" if value else None
