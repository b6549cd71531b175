"""Old prices are told, then warned of, then refused; so is one past its last day."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from support.known import known

from unitune.cost.prices.book import PriceBook
from unitune.cost.prices.refresh import age_findings, contradictions, freshness
from unitune.job.prices import PriceEntry, PriceRow, rows_of

AS_OF = date(2026, 5, 1)


def rows(*lines: dict[str, object], **more: object) -> tuple[PriceRow, ...]:
    content = {"source": "a page", "source_kind": "first-party-page", "as_of": AS_OF, **more}
    return rows_of(
        [PriceEntry.model_validate({**content, "rows": lines})], origin="offer", backend="v"
    )


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (0, None),
        (45, None),
        (46, ("note", "aging-price")),
        (90, ("note", "aging-price")),
        (91, ("warning", "old-price")),
        (180, ("warning", "old-price")),
        (181, ("error", "stale-price")),
    ],
)
def test_age_is_a_notice_then_a_warning_then_a_refusal(
    age: int, expected: tuple[str, str] | None
) -> None:
    found = age_findings(rows({"training": 3}), AS_OF + timedelta(days=age))
    assert [expected] * bool(expected) == [(one.severity, one.code) for one in found]


def test_a_row_past_its_last_day_is_refused_however_new() -> None:
    (row,) = rows({"training": 3}, valid_to=date(2026, 5, 10))
    assert freshness(row, date(2026, 5, 10)) == "fresh"
    (finding,) = age_findings([row], date(2026, 5, 11))
    assert (finding.severity, finding.code) == ("error", "stale-price")
    assert "valid until 2026-05-10" in finding.message


def test_a_stale_price_that_the_user_allows_is_still_told() -> None:
    (finding,) = age_findings(rows({"training": 3}), date(2027, 1, 1), allow_stale=True)
    assert (finding.severity, finding.code) == ("warning", "stale-price")


def test_rows_of_one_source_are_told_once() -> None:
    priced = rows({"training": 3, "hosting": "1.70"}, {"model": "m", "training": 4})
    (finding,) = age_findings([*priced, *priced], date(2027, 1, 1))
    assert "training, hosting is from 2026-05-01, 245 days ago (a page)" in finding.message


def test_time_travel_a_third_party_price_is_too_old_today_and_was_not_in_june() -> None:
    row = known(PriceBook().find("together", "any", "hosting", tier="1x-h100", on=AS_OF))
    states = [
        freshness(row, day) for day in (date(2026, 6, 1), date(2026, 9, 1), date(2026, 11, 25))
    ]
    assert states == ["fresh", "old", "stale"]


def test_what_no_price_list_can_mean_is_found_and_left_out() -> None:
    # As Azure's developer meters of gpt-4o-mini stood on 2026-08-11.
    listed = rows(
        {"model": "m", "input": "5.5", "cached-input": "11", "output": "11", "tuned": True},
        {"model": "n", "input": "2", "cached-input": "0.5", "output": "8"},
        {"model": "o", "training": 0},
    )
    wrong = contradictions(listed)
    assert len(set(wrong.values())) == 2
    assert {row.model for row in listed if row.id not in wrong} == {"n"}
