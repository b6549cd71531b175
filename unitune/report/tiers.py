"""Describe the tiers of a backend as a table."""

from __future__ import annotations

from collections.abc import Sequence

from unitune.job.prices import PriceRow
from unitune.planning.tiers import TierChoice
from unitune.render.sections import Cell, Column, Section, Table

SHORT_UNITS = {"million-tokens": "M", "hour": "h", "gpu-hour": "GPU h", "month": "month"}
PLACES = {
    "region": "its region",
    "data-zone": "its data zone",
    "none": "any region",
    None: "unknown",
}
REGIONS_SHOWN = 3


def tiers_section(tiers: Sequence[TierChoice]) -> Section:
    """Return a table of tiers: how to choose each, its prices, and where it keeps data."""
    rows = [
        [
            Cell(each.tier, ", ".join(each.chosen), strong=bool(each.chosen)),
            each.training or "-",
            rate(each.training_price) if each.training else "",
            each.serving or "-",
            rate(each.hosting_price) if each.serving else "",
            PLACES[each.residency],
            _regions(each.regions),
        ]
        for each in tiers
    ]
    whole = [Column(name, whole=True) for name in ("tier", "train with", "deploy with")]
    columns = [whole[0], whole[1], "#training", whole[2], "#hosting", "data may be in", "trains in"]
    return Section("Tiers, US dollars", [Table(columns, rows)])


def rate(row: PriceRow | None) -> str:
    """Return a price in short form: 5.50-6.05 / M; ~ marks a price from a third party."""
    if row is None:
        return "unknown"
    if not row.usd:
        return "no charge"
    mark = "~" if row.source_kind == "third-party" else ""
    return f"{mark}{row.written} / {SHORT_UNITS.get(row.per, row.per)}"


def _regions(regions: Sequence[str]) -> str:
    return ", ".join(regions) if len(regions) <= REGIONS_SHOWN else f"{len(regions)} regions"
