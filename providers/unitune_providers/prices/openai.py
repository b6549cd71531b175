"""Read the end dates of OpenAI's models from its model list, which has no prices.

Source: openai 3.57.0, types/model.py: "The date when the model will shut down, or null if not
announced."
"""

from __future__ import annotations

from datetime import date

from unitune.backends.offer import ModelUpdate, Offer, PriceUpdate
from unitune_providers.openai.backend import OpenAIBackend

SOURCE = "OpenAI, shutdown_date of GET /v1/models"


class OpenAIPrices:
    """Reader of OpenAI's list of models."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Return the end dates of models; see `RefreshesPrices`."""
        page = OpenAIBackend().api.get("models", action="list the models")
        listed = {model.text("id"): model.text("shutdown_date") for model in page.items("data")}
        known = [model.name for model in offer.models if model.name in listed]
        gone = [model.name for model in offer.models if model.name not in listed]
        ends = {name: end for name in known if (end := listed[name])}
        return PriceUpdate(
            models=tuple(
                ModelUpdate(
                    backend=offer.name,
                    model=name,
                    retires_on=date.fromisoformat(end[:10]),
                    as_of=day,
                    source=SOURCE,
                )
                for name, end in ends.items()
            ),
            notes=(
                *(f"{name}: no end date announced" for name in known if name not in ends),
                *(f"{name}: not in the list for this key" for name in gone),
                "OpenAI does not publish machine-readable prices",
            ),
        )
