"""Prices files: a project's ``prices.yaml`` beside its job, and the user's own.

    prices:                                  # written by people
      - {backend: azure, tier: global, training: 21.25, source: contract 7, as_of: 2026-11-01}
      - {backend: local, machine: 0.85}      # an hour of a local machine
    discounts: {openai: 0.90}                # what is paid of each list price
    # Below: written by `unitune prices refresh`; edits are lost.
    refreshed: …

Everything above that line stays as people wrote it, comments and all, when prices are refreshed.
Which row applies is in `unitune.cost.prices.book`, what vendors say now in
`unitune.cost.prices.refresh`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from unitune.backends.offer import ModelUpdate
from unitune.job.prices import USUAL_UNIT, PriceEntry, PriceRow, as_written, rows_of
from unitune.security.spec import Spec
from unitune.workspace import user_config, yaml_file
from unitune.workspace.filesystem import replacing
from unitune.workspace.today import today

NAME = "prices.yaml"
MARK = "# Below: written by `unitune prices refresh`; edits are lost."
Share = Annotated[Decimal, BeforeValidator(as_written), Field(gt=0, le=1)]


class Refreshed(Spec):
    """What vendors stated since an offer was written."""

    prices: tuple[PriceEntry, ...] = ()
    models: tuple[ModelUpdate, ...] = ()


class PricesFile(Spec):
    """Prices that a project or a user keeps."""

    version: Literal[1] = 1
    prices: tuple[PriceEntry, ...] = ()
    discounts: dict[str, Share] = {}  # noqa: RUF012 - pydantic copies it
    """What is paid of each list price, by backend: 0.85 is 15 % off."""
    refreshed: Refreshed = Refreshed()

    @model_validator(mode="after")
    def _prices_name_a_backend(self) -> Self:
        self.rows("project")
        return self

    def rows(self, origin: Literal["project", "user"]) -> tuple[PriceRow, ...]:
        """Return all prices of the file; what people wrote comes first."""
        return tuple(
            row
            for entries in (self.prices, self.refreshed.prices)
            for row in rows_of(entries, origin=origin, day=today())
        )


def user_file() -> Path:
    """Return the path of the user's own prices file, whether it exists or not."""
    return user_config.folder() / NAME


def read_prices(path: Path) -> PricesFile:
    """Return what a prices file says; one that does not exist says nothing.

    Raises:
        JobError: It is not valid; the message names the line.
    """
    if not path.exists():
        return PricesFile()
    return yaml_file.load(path, PricesFile, kind="a prices file", floats=False)


def write_refreshed(path: Path, refreshed: Refreshed) -> None:
    """Replace what vendors stated in a prices file, and leave what people wrote as it is.

    Raises:
        JobError: What people wrote has a key ``refreshed`` of its own.
    """
    mine = path.read_text(encoding="utf-8-sig").partition(MARK)[0] if path.exists() else ""
    content = refreshed.model_dump(mode="json", exclude_defaults=True)
    text = f"{mine.rstrip()}\n\n{MARK}\n" if mine.strip() else f"{MARK}\n"
    text += yaml_file.dump({"refreshed": content})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write(text)
        draft.flush()
        read_prices(Path(draft.name))


def merged(
    old: Refreshed, rows: tuple[PriceRow, ...], models: tuple[ModelUpdate, ...]
) -> Refreshed:
    """Return what is known after a refresh: new facts replace the old ones of the same subject."""
    priced = {row.subject for row in rows}
    kept = rows_of(old.prices, origin="project", day=today())
    still_valid = [row for row in kept if row.subject not in priced]
    updated = {(update.backend, update.model) for update in models}
    others = tuple(each for each in old.models if (each.backend, each.model) not in updated)
    return Refreshed(prices=entries_of([*still_valid, *rows]), models=(*others, *models))


COMMON = {"backend", "as_of", "valid_from", "valid_to", "source", "source_kind"}
OF_A_ROW = {"model", "method", "tier", "tuned", "note"}


def entries_of(rows: Iterable[PriceRow]) -> tuple[PriceEntry, ...]:
    """Return rows as a prices file holds them: what neighbours have in common is written once."""
    grouped = groupby(rows, key=lambda row: row.model_dump(include=COMMON, exclude_none=True))
    return tuple(
        PriceEntry.model_validate({**common, "rows": [_line(row) for row in group]})
        for common, group in grouped
    )


def _line(row: PriceRow) -> dict[str, object]:
    unit = "" if row.per == USUAL_UNIT[row.kind] else f"/{row.per}"
    values = row.model_dump(include=OF_A_ROW, exclude_defaults=True)
    return {**values, row.kind: f"{row.written}{unit}"}
