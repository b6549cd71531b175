"""Which keys may be sent where, as `unitune keys` prints it."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel
from rich.table import Table

from unitune.backends.credentials import Permission, permissions


class KeyList(BaseModel):
    """What the user has allowed."""

    schema_version: int = 1
    keys: tuple[Permission, ...]

    @classmethod
    def of_user(cls) -> Self:
        """Read the user's configuration and environment."""
        return cls(keys=tuple(permissions()))


def keys_table(found: KeyList) -> Table:
    """Return permissions as a table."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("address", "key in", "allowed by"):
        table.add_column(heading, overflow="fold")
    for one in found.keys:
        table.add_row(one.address, one.variable, one.source)
    return table
