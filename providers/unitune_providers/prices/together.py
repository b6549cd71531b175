"""What Together's models take at most, from its list of limits; it tells no prices there.

Its own price of one training, a quote, needs the uploaded file: that is asked for at a launch
(`unitune.backends.capabilities.Quotes`), and no row of a price list.

Source: together 3.1.1, ``GET /fine-tunes/models/limits`` (types/finetune_model_limits.py).
"""

from __future__ import annotations

from datetime import date

from unitune.backends.offer import Limits, ModelUpdate, Offer, PriceUpdate
from unitune.errors import BackendError
from unitune_providers.together.client import Connection, is_gone, translated

SOURCE = "Together, GET /fine-tunes/models/limits"


class TogetherPrices:
    """Reads Together's limits."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        """Return what models take; see `RefreshesPrices`."""
        connection = Connection()
        updates: list[ModelUpdate] = []
        gone: list[str] = []
        for model in offer.models:
            try:
                limits = _limits(connection, model.name)
            except BackendError as error:
                if not is_gone(error):
                    raise
                gone.append(model.name)
                continue
            updates.append(
                ModelUpdate(
                    backend=offer.name, model=model.name, limits=limits, as_of=day, source=SOURCE
                )
            )
        notes = (f"{name}: not among the models that Together tunes now" for name in gone)
        return PriceUpdate(
            models=tuple(updates),
            notes=(*notes, "Together tells no price list by machine; a launch asks for its quote"),
        )


def _limits(connection: Connection, model: str) -> Limits:
    with translated(f"tell the limits of {model}"):
        told = connection.reads.fine_tuning.model_limits(model_name=model)
    return Limits(epochs_most=told.max_num_epochs, row_tokens=told.max_seq_length_sft)
