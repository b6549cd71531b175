"""Base models that a backend can tune on this machine, as `unitune models list` prints them."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel
from rich.table import Table

from unitune.backends import registry
from unitune.backends.capabilities import StoredModel, Stores
from unitune.backends.offer import OfferedModel
from unitune.cli.output import gigabytes


class ModelList(BaseModel):
    """Base models that a backend can tune here."""

    schema_version: int = 1
    backend: str
    offered: tuple[OfferedModel, ...]
    stored: tuple[StoredModel, ...]

    @classmethod
    def of(cls, name: str) -> Self:
        """Look up a backend's offer and what it keeps on this machine."""
        backend = registry.backend(name)
        stored = backend.stored() if isinstance(backend, Stores) else []
        return cls(backend=name, offered=registry.offer(name).models, stored=tuple(stored))


def models_table(found: ModelList) -> Table:
    """Return base models as a table."""
    here = {model.name: model for model in found.stored}
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("model", "parameters", "licence", "on this machine", "note"):
        table.add_column(heading)
    for model in found.offered:
        parameters = f"{model.parameters / 1e6:.0f} M" if model.parameters else "?"
        size = gigabytes(here[model.name].bytes) if model.name in here else "no"
        table.add_row(model.name, parameters, model.licence or "?", size, model.note)
    offered = {model.name for model in found.offered}
    for stored in found.stored:
        if stored.name not in offered:
            table.add_row(stored.name, "", "", gigabytes(stored.bytes), str(stored.path))
    return table
