"""Vendors' own rows, read by the wire formats that installed packages bring.

A format is an entry point of the group ``unitune.formats``, found without knowing any vendor. Keys
that it does not read are own keys, as in canonical rows; names that canonical rows give a meaning
to are left to the format, which has another for them or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Protocol

from pydantic import JsonValue

from unitune.data.example import Example
from unitune.data.records import Flat, bad
from unitune.data.reserved import check_reserved
from unitune.errors import UserError

_CANONICAL = frozenset(Example.model_fields) - {"id", "expected"}


class WireFormat(Protocol):
    """What `unitune.backends.formats.Format` is."""

    @property
    def name(self) -> str:
        """As `unitune convert` takes it."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a row that it reads; none: all."""
        ...

    @property
    def fits(self) -> Callable[[Mapping[str, JsonValue]], bool] | None:
        """Whether a row is of this format, where that can be seen."""
        ...

    @property
    def decode(self) -> Callable[[Mapping[str, JsonValue]], Example]:
        """From a vendor's row to a canonical one."""
        ...


@cache
def wire_formats() -> tuple[WireFormat, ...]:
    """Return the wire formats that installed packages bring.

    Raises:
        UserError: A package lists one that it does not have, as a checkout that has moved on does.
    """
    formats: list[WireFormat] = []
    for entry in entry_points(group="unitune.formats"):
        try:
            formats.append(entry.load())
        except (ImportError, AttributeError) as failure:
            package = entry.dist.name if entry.dist else entry.module.partition(".")[0]
            raise UserError(
                f"the package {package} was installed with a format {entry.name!r} that it does "
                f"not have now ({failure}). Install it again; a checkout by `pip install -e .` "
                "there."
            ) from failure
    return tuple(formats)


def read_wire(form: WireFormat, row: Flat) -> Flat:
    """Return a vendor's row with canonical keys, and its own keys beside.

    Raises:
        BadRow: The format cannot read it, or another tool trains by one of the keys.
    """
    own = {key for key in row if form.keys and key not in form.keys and key not in _CANONICAL}
    try:
        example = form.decode({key: value for key, value in row.items() if key not in own})
    except ValueError as problem:
        raise bad(
            "cannot-read",
            f"this is no row of {form.name} that can be read: {problem}.",
            "Change the row, leave it out, or name the format that it has.",
        ) from None
    beside = {key: value for key, value in row.items() if key in own}
    return check_reserved(beside, {**beside, **example.content})
