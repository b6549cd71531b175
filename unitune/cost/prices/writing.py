"""Rows as people read them in a prices file: the way back from `unitune.job.prices.rows_of`.

What rows have in common stands once, and all prices of a model on one line. Nothing is lost: the
same rows are read back.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from unitune.job.prices import USUAL_UNIT, PriceEntry, PriceRow

COMMON = ("backend", "as_of", "valid_from", "valid_to", "source", "source_kind")
OF_A_LINE = ("model", "method", "tier", "tuned", "note")


def entries_of(rows: Iterable[PriceRow]) -> tuple[PriceEntry, ...]:
    """Return rows as people read them: what is common stands once, a model's prices on one line.

    Args:
        rows: Of any backends; the order within one source is kept.
    """
    return tuple(
        PriceEntry.model_validate({**_told(common), "rows": _lines(list(group))})
        for common, group in groupby(rows, key=_common)
    )


def _told(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value}


def _common(row: PriceRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in COMMON}


def _lines(rows: list[PriceRow]) -> list[dict[str, object]]:
    """Return a line for each model, tier and so on; a kind that stands twice begins another."""
    lines: list[dict[str, object]] = []
    latest: dict[tuple[object, ...], dict[str, object]] = {}
    for row in rows:
        told = {name: getattr(row, name) for name in OF_A_LINE}
        line = latest.get(tuple(told.values()))
        if line is None or row.kind in line:
            line = latest[tuple(told.values())] = _told(told)
            lines.append(line)
        unit = "" if row.per == USUAL_UNIT[row.kind] else f"/{row.per}"
        line[row.kind] = f"{row.written}{unit}"
    return lines
