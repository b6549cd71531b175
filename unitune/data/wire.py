"""Read vendors' rows by the wire formats of installed packages (``unitune.formats``)."""

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
    """A `unitune.backends.formats.Format`."""

    @property
    def name(self) -> str:
        """Name for `unitune data convert`."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of a row that the format reads; empty for all."""
        ...

    @property
    def fits(self) -> Callable[[Mapping[str, JsonValue]], bool] | None:
        """Test of whether a row is of this format; None if that cannot be seen."""
        ...

    @property
    def decode(self) -> Callable[[Mapping[str, JsonValue]], Example]:
        """Conversion of a vendor's row to a canonical one."""
        ...


@cache
def wire_formats() -> tuple[WireFormat, ...]:
    """Return the installed wire formats; raises `UserError` for an outdated installation."""
    formats: list[WireFormat] = []
    for entry in entry_points(group="unitune.formats"):
        try:
            formats.append(entry.load())
        except (ImportError, AttributeError) as failure:
            package = entry.dist.name if entry.dist else entry.module.partition(".")[0]
            raise UserError(
                f"the package {package} lists a format {entry.name!r} that it does not have "
                f"({failure}). Reinstall the package, in a checkout with `pip install -e .`."
            ) from failure
    return tuple(formats)


def read_wire(form: WireFormat, row: Flat) -> Flat:
    """Return a vendor's row with canonical and custom keys; raises `BadRow`."""
    own = {key for key in row if form.keys and key not in form.keys and key not in _CANONICAL}
    try:
        example = form.decode({key: value for key, value in row.items() if key not in own})
    except ValueError as problem:
        raise bad(
            "cannot-read",
            f"the row cannot be read as {form.name}: {problem}.",
            "Correct the row, remove it, or name its format.",
        ) from None
    beside = {key: value for key, value in row.items() if key in own}
    return check_reserved(beside, {**beside, **example.content})
