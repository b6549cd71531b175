"""When OpenAI's models stop, from its list of models (``shutdown_date``); it tells no prices there.

Source: openai 3.57.0, types/model.py: "The date when the model will shut down, or null if not
announced."
"""

from __future__ import annotations

from datetime import date

from unitune.backends.offer import ModelUpdate, Offer, PriceUpdate
from unitune_providers.openai.backend import OpenAIBackend
from unitune_providers.openai.server import client

SOURCE = "OpenAI, shutdown_date of GET /v1/models"


class OpenAIPrices:
    """Reads OpenAI's list of models."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Return when models stop; see `RefreshesPrices`."""
        server = OpenAIBackend().server()
        with server.errors("list the models"):
            listed = {model.id: model.shutdown_date for model in client(server).models.list()}
        known = [model.name for model in offer.models if model.name in listed]
        gone = [model.name for model in offer.models if model.name not in listed]
        ends = {name: told for name in known if (told := listed[name])}
        return PriceUpdate(
            models=tuple(
                ModelUpdate(
                    backend=offer.name,
                    model=name,
                    retires_on=date.fromisoformat(told[:10]),
                    as_of=day,
                    source=SOURCE,
                )
                for name, told in ends.items()
            ),
            notes=(
                *(f"{name}: no end announced" for name in known if name not in ends),
                *(f"{name}: not in the list that this key sees" for name in gone),
                "OpenAI tells no prices by machine",
            ),
        )
