"""A prices file keeps what people wrote as it is, and says which line is wrong."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from support.known import known

from unitune.backends import registry
from unitune.backends.offer import Limits, ModelUpdate
from unitune.cost.prices.book import Refreshed, book_here, read_prices
from unitune.cost.prices.refresh import MARK, merged, write_refreshed
from unitune.errors import JobError
from unitune.job.prices import PriceRow

DAY = date(2026, 11, 25)
MINE = """\
# What we negotiated, see contract 7.
prices:
  - {backend: azure, tier: global, training: 41.25, as_of: 2026-11-01, source: contract 7}
"""


def row(usd: str, tier: str = "h200", day: date = DAY) -> PriceRow:
    return PriceRow(
        backend="hf-jobs",
        kind="machine",
        tier=tier,
        usd=Decimal(usd),
        per="hour",
        as_of=day,
        source="the API",
        source_kind="first-party-api",
        origin="project",
    )


STOPS = ModelUpdate(
    backend="openai",
    model="gpt-4.1-2025-04-14",
    retires_on=date(2027, 2, 1),
    as_of=DAY,
    source="GET /v1/models",
)


def test_what_people_wrote_stays_word_for_word_however_often_it_is_refreshed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(MINE)
    for usd in ("5.00", "4.50"):
        told = merged(read_prices(file).refreshed, (row(usd),), (STOPS,))
        write_refreshed(file, told)
    assert file.read_text().startswith(f"{MINE}\n{MARK}\n")
    assert file.read_text().count(MARK) == 1
    found = book_here(tmp_path)
    (machine,) = [one for one in found.own if one.kind == "machine"]
    assert (Decimal("4.50"), "project") == (machine.usd, machine.origin)
    contract = known(found.find("azure", "gpt-4.1", "training", tier="global", on=DAY))
    assert (
        f"{contract.usd}",
        contract.source,
        contract.source_kind,
    ) == ("41.25", "contract 7", "own")


def test_discounts_count_in_the_users_own_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    user = tmp_path / "home/unitune/prices.yaml"
    user.parent.mkdir(parents=True)
    user.write_text("discounts: {openai: 0.9}\n")
    assert book_here(tmp_path).discounts == {"openai": Decimal("0.9")}
    (tmp_path / "prices.yaml").write_text("discounts: {openai: 0.0001}\n")
    with pytest.raises(JobError, match=f"Move them to {user}"):
        book_here(tmp_path)


def test_a_refresh_replaces_what_it_speaks_of_and_keeps_the_rest(tmp_path: Path) -> None:
    old = merged(Refreshed(), (row("5.00"), row("1.00", "a10g-small")), (STOPS,))
    limits = ModelUpdate(
        backend="together",
        model="Qwen/Qwen3-8B",
        limits=Limits(epochs_most=20),
        as_of=DAY,
        source="s",
    )
    new = merged(old, (row("4.00", day=date(2026, 12, 1)),), (limits,))
    write_refreshed(tmp_path / "prices.yaml", new)
    again = read_prices(tmp_path / "prices.yaml")
    told = {(one.tier, f"{one.usd}", one.as_of) for one in again.rows("project")}
    assert told == {("h200", "4.00", date(2026, 12, 1)), ("a10g-small", "1.00", DAY)}
    assert again.refreshed.models == (STOPS, limits)


def test_what_a_vendor_said_of_its_models_changes_the_offer(tmp_path: Path) -> None:
    limits = ModelUpdate(
        backend="together",
        model="Qwen/Qwen3-8B",
        limits=Limits(epochs_most=7),
        as_of=DAY,
        source="s",
    )
    write_refreshed(tmp_path / "prices.yaml", merged(Refreshed(), (), (STOPS, limits)))
    found = book_here(tmp_path)
    stopping = known(found.offer("openai").model("gpt-4.1"))
    assert (date(2027, 2, 1), "GET /v1/models") == (stopping.retires_on, stopping.retires_on_source)
    taken = found.offer("together").terms("Qwen/Qwen3-8B").limits
    assert (taken.epochs_most, taken.min_rows) == (7, 1)
    assert registry.offer("vertex") is found.offer("vertex")


def test_a_missing_file_says_nothing(tmp_path: Path) -> None:
    assert read_prices(tmp_path / "prices.yaml").rows("project") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "prices:\n  - {backend: a, trainin: 3}\n",
            r"prices\.yaml:2: prices\.0\.trainin is not a known",
        ),
        ("prices:\n  - {backend: a, training: many}\n", r"prices\.yaml:2: .*is 'many'"),
        ("prices: [{training: 3}]\n", "has no backend"),
        ("discounts: {a: 1.5}\n", r"prices\.yaml:1: discounts\.a is '1\.5'"),
        ("- 1\n", "a prices file must be a mapping"),
        ("prices: []\nprices: []\n", "is a duplicate of line"),
    ],
)
def test_what_is_wrong_with_a_prices_file_is_told_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(JobError, match=complaint):
        read_prices(file)


def test_a_file_that_could_not_be_read_back_is_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("refreshed: {}\n")
    with pytest.raises(JobError, match="is a duplicate of line"):
        write_refreshed(file, merged(Refreshed(), (row("5.00"),), ()))
    assert [one.name for one in tmp_path.iterdir()] == ["prices.yaml"]
    assert file.read_text() == "refreshed: {}\n"
