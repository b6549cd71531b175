"""Which price applies: the user's word first, third parties last, by day and by tier."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.known import known

from unitune.backends.offer import Offer, OfferedModel, Serving, Tiers
from unitune.cli.options import parse_prices
from unitune.cost.prices import inference
from unitune.cost.prices.book import ORIGINS, PriceBook, PriceLookup, book_for, rank
from unitune.errors import JobError, UserError
from unitune.job.job import Data, Job
from unitune.job.prices import Kind, Origin, PriceEntry, PriceRow, SourceKind

DAY = date(2026, 11, 25)


def row(**changes: object) -> PriceRow:
    content: dict[str, object] = {
        "backend": "vendor",
        "model": "small-1",
        "kind": "training",
        "usd": "1",
        "per": "million-tokens",
        "as_of": DAY,
        "source": "a page",
        "source_kind": "first-party-page",
    }
    return PriceRow.model_validate(content | changes)


def book(*rows: PriceRow, offer: Offer | None = None, **more: object) -> PriceBook:
    vendor = offer or Offer(
        name="vendor",
        summary="",
        as_of=DAY,
        methods=("sft",),
        models=(OfferedModel(name="small-1", aliases=("org/small",)),),
    )
    return PriceBook(own=rows, offers={"vendor": vendor}, **more)  # pyright: ignore[reportArgumentType]


def usd(found: PriceRow | None) -> str | None:
    return None if found is None else f"{found.usd:f}"


KNOWN: list[tuple[str, str, Kind, dict[str, object], str]] = [
    # cost-and-tokens.md, B: Azure's meters of 2026-08-11.
    ("azure", "gpt-4.1", "training", {"method": "sft", "tier": "global"}, "25.00"),
    ("azure", "gpt-4.1", "training", {"method": "dpo", "tier": "developer"}, "12.50"),
    ("azure", "gpt-4.1-mini", "training", {"tier": "data-zone"}, "5.50"),
    ("azure", "gpt-4.1-nano", "training", {}, "1.98"),
    ("azure", "gpt-4o-mini", "training", {"tier": "global"}, "3.00"),
    ("azure", "gpt-4o-mini", "hosting", {"tier": "global"}, "1.70/hour"),
    ("azure", "gpt-4o-mini", "hosting", {"tier": "developer"}, "0/hour"),
    ("azure", "o4-mini", "training", {"method": "rft", "tier": "global"}, "100.00/hour"),
    ("azure", "gpt-4.1", "cached-input", {"tuned": True, "tier": "global"}, "0.50"),
    ("azure", "openai/gpt-oss-20b", "training", {"tier": "global"}, "3.60"),
    ("azure", "meta-llama/Llama-3.3-70B-Instruct", "hosting", {"tier": "global"}, "0.30/hour"),
    ("azure", "Ministral-3B", "output", {"tuned": True, "tier": "global"}, "0.15"),
    # The same, OpenAI direct by litellm.
    ("openai", "gpt-4.1", "input", {"tuned": True}, "3.00"),
    ("openai", "gpt-4o-mini", "cached-input", {"tuned": True}, "0.15"),
    ("openai", "gpt-4o-2024-11-20", "output", {"tuned": True}, "15.00"),
    ("openai", "gpt-4o-mini", "output", {"tuned": True, "tier": "batch"}, "0.60"),
    ("openai", "gpt-4.1", "hosting", {}, "0/hour"),
    # provider-apis.md, 12.
    ("fireworks", "Qwen/Qwen3-8B", "training", {"method": "dpo"}, "1.00"),
    ("fireworks", "openai/gpt-oss-120b", "training", {"method": "sft"}, "6.00"),
    ("fireworks", "any", "hosting", {"tier": "b200"}, "13.00/gpu-hour"),
    ("tinker", "Qwen/Qwen3-8B", "training", {"method": "sft"}, "0.44"),
    ("tinker", "any", "storage", {}, "0.10/gb-month"),
    ("hf-jobs", "any", "machine", {"tier": "h200"}, "5.00/hour"),
    ("together", "meta-llama/Llama-3.1-8B-Instruct", "training", {"method": "sft"}, "0.48"),
    ("prime-intellect", "Qwen/Qwen3.5-9B", "training", {"method": "rft"}, "0.60"),
    # What vendors' own pages said, by copies of 2026.
    ("openai", "gpt-4.1", "training", {"method": "sft"}, "25.00"),
    ("bedrock", "amazon.nova-2-lite-v1:0", "training", {"method": "sft"}, "3.78"),
    ("bedrock", "amazon.nova-micro-v1:0", "training", {"method": "sft"}, "1.00"),
    ("bedrock", "any", "storage", {}, "1.95/month"),
    ("bedrock", "any", "hosting", {}, "0/hour"),
    ("mantle", "openai.gpt-oss-20b", "training", {"method": "rft"}, "80.00/hour"),
    ("vertex", "gemini-3.5-flash", "training", {"method": "rft"}, "10.00"),
    ("vertex", "any", "hosting", {}, "0/hour"),
    ("fireworks", "Qwen/Qwen3-8B", "training", {"method": "rft"}, "0"),
    ("together", "Qwen/Qwen3.5-9B", "training", {"method": "sft", "tier": "lora"}, "0.34"),
    ("together", "Qwen/Qwen3.5-9B", "training", {"method": "sft", "tier": "full"}, "0.38"),
]


@pytest.mark.parametrize(("backend", "model", "kind", "more", "expected"), KNOWN)
def test_known_prices_are_found(
    backend: str, model: str, kind: Kind, more: dict[str, object], expected: str
) -> None:
    found = known(PriceBook().find(backend, model, kind, on=DAY, **more))  # pyright: ignore[reportArgumentType]
    by_time = "" if found.per == "million-tokens" else f"/{found.per}"
    assert expected == f"{found.usd:f}{by_time}"


@pytest.mark.parametrize(
    ("backend", "model", "kind"),
    [
        ("vertex", "gemini-3.5-flash-lite", "training"),
        ("bedrock", "amazon.nova-lite-v1:0", "training"),
        ("openai", "gpt-4o-2024-05-13", "training"),
        ("azure", "Qwen-32B", "training"),
        ("cohere", "command-r-08-2024", "training"),
        ("openai", "gpt-4.1", "storage"),
    ],
)
def test_what_nobody_said_is_unknown_and_not_nothing(backend: str, model: str, kind: Kind) -> None:
    assert PriceBook().find(backend, model, kind, method="sft", on=DAY) is None


def test_the_order_is_flag_job_project_user_offer_genai_prices() -> None:
    assert ORIGINS == ("flag", "job", "project", "user", "offer", "genai-prices")
    rows = [row(origin=origin, usd=9 - number) for number, origin in enumerate(ORIGINS)]
    for number in range(len(ORIGINS)):
        found = book(*reversed(rows[number:])).find("vendor", "small-1", "training", on=DAY)
        assert str(9 - number) == usd(found)


@pytest.mark.parametrize("origin", ["job", "project"])
def test_a_folder_never_lowers_a_known_price(origin: Origin) -> None:
    """It may be a stranger's; only a flag and the user's own file lower a price."""
    of_folder = row(origin=origin, usd="0")
    alone = book(of_folder).find("vendor", "small-1", "training", on=DAY)
    assert usd(alone) == "0", "no other price is known"
    for listed in (row(origin="user", usd="2"), row(origin="offer", usd="2")):
        assert usd(book(of_folder, listed).find("vendor", "small-1", "training", on=DAY)) == "2"
    given = row(origin="flag", usd="1")
    assert usd(book(of_folder, given).find("vendor", "small-1", "training", on=DAY)) == "1"
    other_unit = row(origin=origin, usd="5", per="hour")
    listed = row(origin="offer", usd="2")
    assert usd(book(other_unit, listed).find("vendor", "small-1", "training", on=DAY)) == "2"


def test_a_folder_cannot_price_at_zero_what_is_priced_by_another_row() -> None:
    """Tuned tokens may cost those of the base, validation those of training, hosting a machine."""
    serving = Serving(pattern=".", tuned_as_base=True, source="a page")
    offer = Offer(name="vendor", summary="", as_of=DAY, methods=("sft",), serving=(serving,))
    listed = [row(kind="input", usd="2", origin="offer"), row(usd="3", origin="offer")]
    listed.append(row(kind="hosting", tier="h100", usd="4", per="hour", origin="offer"))
    zero = [
        row(kind="input", tuned=True, usd="0", origin="job"),
        row(kind="validation", usd="0", origin="job"),
        row(kind="hosting", usd="0", per="hour", origin="job"),
    ]
    prices = PriceLookup(book(*listed, *zero, offer=offer), "vendor", "small-1", DAY)
    assert usd(prices.tokens("input", tuned=True)) == "2"
    assert usd(prices.validation()) == "3"
    assert [usd(end) for end in prices.hosting() or ()] == ["4", "4"]


def test_flag_job_project_and_user_file_are_read_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    own = tmp_path / "home" / "unitune"
    own.mkdir(parents=True)
    prices = "prices: [{backend: openai, model: '*', training: %s}]\n"
    (own / "prices.yaml").write_text(prices % "31.00")

    def found(given: Sequence[PriceEntry] = (), **more: object) -> tuple[str, Origin]:
        content = {"name": "a", "model": "gpt-4.1", "backend": "openai", "data": Data(train="t")}
        job = Job.model_validate({**content, **more}).model_copy(update={"folder": tmp_path})
        price = known(
            book_for(job.with_prices(given)).find("openai", "gpt-4.1", "training", on=DAY)
        )
        return f"{price.usd:f}", price.origin

    assert found() == ("31.00", "user")
    (tmp_path / "prices.yaml").write_text(prices % "32.00")
    assert found() == ("32.00", "project")
    mine = ({"backend": "openai", "training": "33.00"},)
    assert found(prices=mine) == ("33.00", "job")
    assert found(parse_prices(["training=1.00"], "openai"), prices=mine) == ("1.00", "flag")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(ORIGINS),
            st.sampled_from(["first-party-page", "first-party-api", "sdk", "own", "third-party"]),
            st.integers(0, 400),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_third_parties_never_win_over_others(
    written: list[tuple[Origin, SourceKind, int]],
) -> None:
    rows = [
        row(origin=origin, source_kind=kind, as_of=DAY - timedelta(days=age), usd=number)
        for number, (origin, kind, age) in enumerate(written)
    ]
    found = known(book(*rows).find("vendor", "small-1", "training", on=DAY))
    others = any(one.source_kind != "third-party" for one in rows)
    first = min(rows, key=lambda one: rank(one, DAY))
    assert others == (first.source_kind != "third-party")
    assert found == first or (first.origin in ("job", "project") and found.usd > first.usd)


def test_a_row_that_holds_wins_over_one_whose_last_day_is_past() -> None:
    cheap = row(usd="1", valid_to=date(2026, 11, 30))
    dear = row(usd="2", valid_from=date(2026, 12, 1), as_of=date(2026, 10, 1))
    prices = book(cheap, dear)
    on = {
        day: usd(prices.find("vendor", "small-1", "training", on=day))
        for day in (
            date(2026, 11, 30),
            date(2026, 12, 1),
        )
    }
    assert on == {date(2026, 11, 30): "1", date(2026, 12, 1): "2"}
    assert usd(book(cheap).find("vendor", "small-1", "training", on=date(2027, 1, 1))) == "1"
    assert book(dear).find("vendor", "small-1", "training", on=date(2026, 11, 30)) is None


def test_a_model_is_found_by_any_name_and_a_pattern_stands_for_many() -> None:
    prices = book(row(usd="1"), row(model="small-*", usd="2"))
    assert usd(prices.find("vendor", "org/small", "training", on=DAY)) == "1"
    assert usd(prices.find("vendor", "small-9", "training", on=DAY)) == "2"
    assert prices.find("vendor", "large-1", "training", on=DAY) is None


def test_the_tier_is_the_jobs_or_else_the_vendors_usual_one() -> None:
    tiers = Tiers(usual="regional", option="training_type", chosen={"GlobalStandard": "global"})
    offer = Offer(name="vendor", summary="", as_of=DAY, methods=("sft",), tiers=tiers)
    prices = book(row(tier="regional", usd="3"), row(tier="global", usd="2"), offer=offer)
    assert usd(prices.find("vendor", "small-1", "training", on=DAY)) == "3"
    chosen = offer.tier({"training_type": "GlobalStandard"})
    assert usd(prices.find("vendor", "small-1", "training", tier=chosen, on=DAY)) == "2"
    assert offer.tier({}) == "regional"
    assert prices.find("vendor", "small-1", "training", tier="developer", on=DAY) is None


def test_a_discount_is_taken_off_list_prices_alone() -> None:
    entry = PriceEntry.model_validate({"training": "10.00", "as_of": DAY, "source": "a page"})
    offer = Offer(name="vendor", summary="", as_of=DAY, methods=("sft",), prices=(entry,))
    half = {"vendor": Decimal("0.5")}
    listed = known(book(offer=offer, discounts=half).find("vendor", "x", "training", on=DAY))
    assert (usd(listed), listed.note) == ("5.000", "0.5 of the list price")
    contract = book(row(model="*", origin="user", usd="8"), offer=offer, discounts=half)
    assert usd(contract.find("vendor", "x", "training", on=DAY)) == "8"


@pytest.mark.skipif(not importlib.util.find_spec("genai_prices"), reason="needs the extra `prices`")
def test_answers_that_no_row_of_ours_prices_are_priced_by_genai_prices() -> None:
    found = known(PriceBook().find("vertex", "gemini-3.5-flash", "input", on=DAY))
    assert (found.origin, found.source_kind) == ("genai-prices", "third-party")
    assert isinstance(found.usd, Decimal)
    assert found.as_of <= DAY
    ours = known(PriceBook().find("openai", "gpt-4o-mini", "input", on=DAY))
    assert ours.origin == "offer"
    assert PriceBook().find("vertex", "gemini-2.5-flash", "input", tuned=True, on=DAY) is None


def test_without_the_package_such_answers_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "PACKAGE", "no_such_package")
    assert PriceBook().find("vertex", "gemini-3.5-flash", "input", on=DAY) is None


@pytest.mark.parametrize(
    "text", ["training", "training=", "training=two", "train=2", "a:b=1", "=1"]
)
def test_a_price_on_the_command_line_that_is_none_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UserError, match="Write KIND=USD"):
        parse_prices([text], "openai")


def test_an_hour_of_ones_own_machine_has_a_price_once_it_is_given() -> None:
    assert PriceBook().find("local", "any", "machine", on=DAY) is None
    job = Job(name="a", model="m", backend="openai", data=Data(train="t.jsonl"))
    priced = job.with_prices(parse_prices(["local:machine=0.85"], job.backend))
    found = known(book_for(priced).find("local", "any", "machine", on=DAY))
    assert (Decimal("0.85"), "hour", "flag") == (found.usd, found.per, found.origin)


def test_a_job_says_whose_prices_it_sets() -> None:
    content = {"name": "a", "model": "m", "backend": "openai", "data": Data(train="t")}
    with pytest.raises(ValueError, match="has no backend"):
        Job.model_validate({**content, "prices": [{"training": "1.00"}]})


def test_a_job_with_prices_is_saved_and_read_back_the_same(tmp_path: Path) -> None:
    prices = [
        {
            "backend": "azure",
            "tuned": True,
            "rows": [{"cached-input": "0.50"}, {"tuned": False, "input": 2}],
        },
        {"backend": "local", "machine": "0.85"},
    ]
    content = {"name": "a", "model": "m", "backend": "local", "data": Data(train="t.jsonl")}
    job = Job.model_validate({**content, "prices": prices, "folder": tmp_path})
    job.save(tmp_path / "unitune.yaml")
    assert job == Job.load(tmp_path / "unitune.yaml")


def test_a_job_file_with_a_wrong_price_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "unitune.yaml"
    file.write_text(
        "name: a\nmodel: m\nbackend: openai\ndata: {train: t.jsonl}\n"
        "prices:\n  - backend: openai\n    training: two\n"
    )
    with pytest.raises(JobError, match=r"unitune\.yaml:7: prices\.0\.training is 'two'"):
        Job.load(file)
