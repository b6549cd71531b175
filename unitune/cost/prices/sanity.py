"""What no price list can mean, such as cached input that is dearer than input.

Such rows stood in every public price list that was looked at, first-party ones too.

Used on the offers in tests, and on what vendors tell when prices are refreshed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import pairwise

from unitune.job.prices import OF_ANSWERS, Kind, PriceRow

BATCH_SHARE = (Decimal("0.4"), Decimal("0.6"))
"""A batch is said to cost half at every vendor; the rest is rounding."""
Answers = dict[Kind, PriceRow]


def contradictions(rows: Iterable[PriceRow]) -> list[str]:
    """Return what cannot be meant among rows of one origin, in words.

    Args:
        rows: Prices; older and newer ones of the same thing are held against their own.
    """
    listed = list(rows)
    found = [f"{row.id}: training for nothing" for row in listed if _free_training(row)]
    for group in _answers(listed).values():
        found += _out_of_order(group)
    return found + list(_batches(listed))


def sound(rows: Iterable[PriceRow]) -> tuple[PriceRow, ...]:
    """Return the rows without those groups in which something cannot be meant."""
    listed = list(rows)
    mixed = (group for group in _answers(listed).values() if _out_of_order(group))
    bad = {row.id for group in mixed for row in group.values()}
    return tuple(row for row in listed if row.id not in bad and not _free_training(row))


def _free_training(row: PriceRow) -> bool:
    return row.kind == "training" and row.usd == 0


def _answers(rows: list[PriceRow]) -> dict[tuple[object, ...], Answers]:
    groups: dict[tuple[object, ...], Answers] = {}
    for row in rows:
        if row.kind in OF_ANSWERS:
            key = (row.backend, row.model, row.tier, row.tuned, row.as_of, row.source)
            groups.setdefault(key, {})[row.kind] = row
    return groups


def _out_of_order(group: Answers) -> list[str]:
    present = [group[kind] for kind in ("cached-input", "input", "output") if kind in group]
    pairs = pairwise(present)
    return [f"{low.id} is dearer than {high.id}" for low, high in pairs if low.usd > high.usd]


def _batches(rows: list[PriceRow]) -> Iterator[str]:
    usual = {
        (row.backend, row.model, row.kind, row.tuned, row.as_of): row.usd
        for row in rows
        if row.tier is None and row.kind in OF_ANSWERS
    }
    for row in rows:
        whole = usual.get((row.backend, row.model, row.kind, row.tuned, row.as_of))
        if row.tier != "batch" or not whole:
            continue
        least, most = BATCH_SHARE
        if not least <= row.usd / whole <= most:
            yield f"{row.id} is {row.usd / whole:.0%} of the usual price; a batch is about half"
