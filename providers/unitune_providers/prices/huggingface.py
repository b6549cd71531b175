"""Hugging Face's machines by the minute, from its public hardware list: no key, no SDK.

Source: ``GET /api/jobs/hardware`` (huggingface/hub-docs, docs/hub/jobs-pricing.md, 2026-08-22), in
the shape that huggingface_hub 2.4.0 reads it (JobHardwareInfo).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import cast

from unitune.backends.credentials import environment_address
from unitune.backends.offer import Offer, PriceUpdate
from unitune.errors import BackendError
from unitune.job.prices import PriceRow
from unitune_providers.prices.reading import get

URL = "https://huggingface.co"
URL_VARIABLE = "HF_ENDPOINT"  # the SDK's own variable for another address
SOURCE = "Hugging Face, /api/jobs/hardware"
AN_HOUR = {"second": 3600, "minute": 60, "hour": 1}
CENT = Decimal("0.01")


class HuggingFacePrices:
    """Reads Hugging Face's hardware list."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Return today's prices of machines; see `RefreshesPrices`."""
        listed = get("huggingface", f"{environment_address(URL_VARIABLE) or URL}/api/jobs/hardware")
        if not isinstance(listed, list):
            raise BackendError(f"{SOURCE} answered in another shape than it describes.")
        machines = cast("list[Mapping[str, object]]", listed)
        return PriceUpdate(rows=tuple(_row(machine, offer.name, day) for machine in machines))


def _row(machine: Mapping[str, object], backend: str, day: date) -> PriceRow:
    """Return the row of a machine.

    Its price is given in whole micro-dollars a minute, so that an hour is right to a hundredth of a
    cent; it is rounded to the cent, as the price page has it.
    """
    micros, unit = machine.get("unitCostMicroUSD"), machine.get("unitLabel")
    if not isinstance(micros, int) or unit not in AN_HOUR:
        raise BackendError(
            f"{SOURCE} says no price for {machine.get('name')!r} that is known here."
        )
    return PriceRow(
        backend=backend,
        kind="machine",
        tier=str(machine.get("name")),
        usd=(Decimal(micros) * AN_HOUR[cast("str", unit)] / 1_000_000).quantize(CENT),
        per="hour",
        as_of=day,
        source=SOURCE,
        source_kind="first-party-api",
        origin="project",
    )
