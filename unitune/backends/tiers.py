"""Describe a vendor's price tiers: which a job chooses, and where each keeps data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from unitune.documents import Spec

# Where a tier keeps data, the strictest last
Residency = Literal["none", "data-zone", "region"]
RESIDENCIES: tuple[Residency, ...] = get_args(Residency)


class Tier(Spec):
    """Facts about a price tier that are not prices."""

    residency: Residency | None = None  # where rows and models stay; None if unknown
    note: str = ""
    lifetime_hours: int | None = None  # age at which the vendor deletes a deployment


class Tiers(Spec):
    """Price tiers of a vendor and how a job chooses one for its training and its deployment."""

    usual: str  # default tier, the one of `Offer.prices`
    # Backend option that chooses the tier, such as ``options.azure.training_type``
    option: str = ""
    chosen: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    # Option of a job and of a deployment that chooses the deployment's tier; empty if it is that of
    # the training
    serving_option: str = ""
    serving: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    # Default tier of a deployment by that of the training, if they differ
    usual_serving: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    region_option: str = ""  # option that names the region; its prices have tier ``TIER/REGION``
    residency_option: str = ""  # option that demands a `Residency`
    facts: dict[str, Tier] = {}  # noqa: RUF012 - pydantic copies it
    source: str = ""

    @property
    def names(self) -> frozenset[str]:
        """All tiers; a price with another tier is that of a machine."""
        return frozenset({self.usual, *self.chosen.values(), *self.serving.values()})

    def facts_of(self, tier: str | None) -> Tier:
        """Return the facts about a tier."""
        return self.facts.get(without_region(tier), Tier())

    def value_of(self, what: Literal["training", "deployment"], tier: str) -> str | None:
        """Return the value of the option that chooses a tier, or None."""
        values = self.chosen if what == "training" else self.serving
        plain = without_region(tier)
        return next((value for value, each in values.items() if each == plain), None)

    def residency_refusal(self, options: Mapping[str, object], tier: str | None) -> str | None:
        """Return why a tier does not keep data where these options demand it, else None."""
        demanded = options.get(self.residency_option)
        if demanded not in RESIDENCIES:
            return None
        kept = self.facts_of(tier).residency
        if kept is not None and RESIDENCIES.index(kept) >= RESIDENCIES.index(demanded):
            return None
        to = {"none": "to any region", "data-zone": "within a data zone"}.get(
            kept or "", "elsewhere"
        )
        return f"tier {without_region(tier)} may move data {to}"


def without_region(tier: str | None) -> str:
    """Return a tier without its region: regional for regional/swedencentral."""
    return (tier or "").partition("/")[0]
