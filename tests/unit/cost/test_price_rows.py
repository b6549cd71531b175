"""Prices as people write them and as rows say the same, and no float comes between."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unitune.cost.prices.refresh import entries_of
from unitune.files import yaml_file
from unitune.job.prices import KINDS, OF_A_METHOD, OF_ANSWERS, UNITS, PriceEntry, PriceRow, rows_of

DAY = date(2026, 11, 25)
words = st.sampled_from(["gpt-4o-mini", "Qwen/Qwen3-8B", "gpt-*", "no", "1e3", "3.30", "ü: #"])
amounts = st.decimals(min_value=0, max_value=100_000, places=4, allow_nan=False)
days = st.dates(date(2025, 1, 1), date(2027, 12, 31))


@st.composite
def price_rows(draw: st.DrawFn) -> PriceRow:
    kind = draw(st.sampled_from(KINDS))
    return PriceRow(
        backend=draw(st.sampled_from(["openai", "azure", "local"])),
        model=draw(words),
        kind=kind,
        method=draw(st.sampled_from(["sft", "dpo", None])) if kind in OF_A_METHOD else None,
        tier=draw(st.none() | words),
        tuned=draw(st.booleans()) if kind in OF_ANSWERS else False,
        usd=draw(amounts),
        per=draw(st.sampled_from(UNITS)),
        as_of=draw(days),
        valid_from=draw(st.none() | days),
        valid_to=draw(st.none() | days),
        source=draw(words),
        source_kind=draw(st.sampled_from(["third-party", "own", "sdk"])),
        note=draw(st.just("") | words),
        origin="project",
    )


@given(st.lists(price_rows(), max_size=8))
def test_rows_written_as_yaml_are_read_back_the_same(rows: list[PriceRow]) -> None:
    content = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries_of(rows)]
    text = yaml_file.dump({"prices": content})
    for read in (yaml_file.parse(text), yaml.safe_load(text)):
        entries = [PriceEntry.model_validate(entry) for entry in read["prices"]]
        again = rows_of(entries, origin="project")
        assert sorted(rows, key=repr) == sorted(again, key=repr)


@given(st.decimals(min_value=0, max_value=10**9, places=6), st.booleans())
def test_no_float_enters_however_a_price_is_written(usd: Decimal, quoted: bool) -> None:  # noqa: FBT001 - drawn
    """An unquoted number is a float to YAML; up to 15 digits it is the number as written."""
    number = f'"{usd:f}"' if quoted else f"{usd:f}"
    text = f"{{backend: a, training: {number}}}"
    for read in (yaml_file.parse(text), yaml.safe_load(text)):
        (row,) = rows_of([PriceEntry.model_validate(read)], origin="job", day=DAY)
        assert usd == row.usd
        assert isinstance(row.usd, Decimal)


@given(price_rows())
def test_a_row_written_as_json_is_read_back_the_same(row: PriceRow) -> None:
    assert row == PriceRow.model_validate_json(row.model_dump_json())


def test_a_number_with_a_point_stays_text_in_offers_and_prices_files() -> None:
    read = yaml_file.parse("{usd: 3.30, small: 1e-3, count: 3, day: 2026-11-25}")
    assert read == {"usd": "3.30", "small": "1e-3", "count": 3, "day": DAY}


def test_what_is_common_stands_once_and_a_line_may_say_otherwise() -> None:
    entry = PriceEntry.model_validate(
        {
            "backend": "azure",
            "as_of": DAY,
            "source": "a page",
            "method": "sft",
            "rows": [
                {"model": ["small", "large"], "training": 3, "hosting": "1.70"},
                {"model": "o4", "method": "rft", "training": "100/hour"},
            ],
        }
    )
    rows = rows_of([entry], origin="project")
    told = [(row.model, row.kind, row.method, row.usd, row.per) for row in rows]
    assert told == [
        ("small", "training", "sft", Decimal(3), "million-tokens"),
        ("small", "hosting", None, Decimal("1.70"), "hour"),
        ("large", "training", "sft", Decimal(3), "million-tokens"),
        ("large", "hosting", None, Decimal("1.70"), "hour"),
        ("o4", "training", "rft", Decimal(100), "hour"),
    ]


@pytest.mark.parametrize("amount", ["-1", "3,00", "$3", "3 / hour", "3/fortnight", "nan", True, ""])
def test_an_amount_is_dollars_and_perhaps_a_unit(amount: object) -> None:
    with pytest.raises(ValidationError, match=r"such as 3\.00"):
        PriceEntry.model_validate({"training": amount})


def test_an_entry_without_a_price_is_refused() -> None:
    with pytest.raises(ValidationError, match="the entry has no price"):
        PriceEntry.model_validate({"model": "gpt-4o-mini"})


def test_the_same_facts_have_the_same_id_and_others_another() -> None:
    row = PriceRow(
        backend="a",
        model="m",
        kind="input",
        tuned=True,
        usd=Decimal(1),
        per="million-tokens",
        as_of=DAY,
        source="s",
        source_kind="own",
    )
    assert row.id == "offer:a/m+tuned/input@2026-11-25"
    assert row.id != row.model_copy(update={"tuned": False}).id


@pytest.mark.parametrize(("kind", "change"), [("hosting", "method"), ("training", "tuned")])
def test_what_has_no_meaning_for_a_kind_is_refused(kind: str, change: str) -> None:
    content = {"backend": "a", "kind": kind, "usd": 1, "per": "hour", "as_of": DAY, "source": "s"}
    with pytest.raises(ValidationError, match=change):
        PriceRow.model_validate(
            {**content, "source_kind": "own", change: "sft" if change == "method" else True}
        )
