"""When OpenAI's models stop, from its list of models (``shutdown_date``); it has no prices.

Source: openai 3.57.0, types/model.py: "The date when the model will shut down, or null if not
announced."
"""

from __future__ import annotations

from datetime import date

from unitune.backends.offer import ModelUpdate, Offer, PriceUpdate
from unitune_providers.openai.backend import OpenAIBackend

SOURCE = "OpenAI, shutdown_date of GET /v1/models"


class OpenAIPrices:
    """Reads OpenAI's list of models."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Return when models stop; see `RefreshesPrices`."""
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
                *(f"{name}: no end announced" for name in known if name not in ends),
                *(f"{name}: not in the list that this key sees" for name in gone),
                "OpenAI publishes no prices for machines",
            ),
        )
