"""Read Hugging Face's machine prices from its public hardware list, without a key or an SDK.

Source: ``GET /api/jobs/hardware`` (huggingface/hub-docs, docs/hub/jobs-pricing.md, 2026-08-22), in
the format read by huggingface_hub 2.4.0 (JobHardwareInfo).
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
from unitune_providers.prices import get

URL = "https://huggingface.co"
URL_VARIABLE = "HF_ENDPOINT"  # the SDK's own variable for another address
SOURCE = "Hugging Face, /api/jobs/hardware"
AN_HOUR = {"second": 3600, "minute": 60, "hour": 1}
CENT = Decimal("0.01")


class HuggingFacePrices:
    """Reader of Hugging Face's hardware list."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Return today's machine prices; see `RefreshesPrices`."""
        listed = get(offer.name, f"{environment_address(URL_VARIABLE) or URL}/api/jobs/hardware")
        if not isinstance(listed, list):
            raise BackendError(f"{SOURCE} did not answer in its documented format.")
        machines = cast("list[Mapping[str, object]]", listed)
        return PriceUpdate(rows=tuple(_row(machine, offer.name, day) for machine in machines))


def _row(machine: Mapping[str, object], backend: str, day: date) -> PriceRow:
    """Return the row of a machine; its hourly price is rounded to the cent as on the page."""
    micros, unit = machine.get("unitCostMicroUSD"), machine.get("unitLabel")
    if not isinstance(micros, int) or unit not in AN_HOUR:
        raise BackendError(f"{SOURCE} has no price in a known unit for {machine.get('name')!r}.")
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
