"""What offers say is dated and sourced, and the closing of OpenAI's tuning is data."""

from __future__ import annotations

from datetime import date

import pytest

from unitune import registry
from unitune.feasibility import offer_findings
from unitune.job import Data, Job
from unitune.offer import Offer

OFFERS = {name: registry.offer(name) for name in registry.backend_names()}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_every_price_has_a_day_not_after_the_offers_and_a_source(offer: Offer) -> None:
    assert all(price.source and price.as_of <= offer.as_of for price in offer.price_rows())
    assert all(price.usd > 0 for price in offer.price_rows())


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_every_day_on_which_something_ends_has_a_source(offer: Offer) -> None:
    for model in offer.models:
        assert bool(model.tunable_until) == bool(model.tunable_until_source), model.name
        assert bool(model.stops) == bool(model.stops_source), model.name


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_what_a_model_is_priced_for_can_be_done_with_it(offer: Offer) -> None:
    for model in offer.models:
        assert set(model.formats or ()) <= set(offer.methods), model.name
        assert not offer.refusal(model.name), model.name


def test_all_of_openais_models_close_and_stop_on_the_days_that_it_told() -> None:
    models = OFFERS["openai"].models
    assert {date(2027, 1, 6)} == {model.tunable_until for model in models}
    assert {date(2027, 1, 14)} == {model.stops for model in models}


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2026, 9, 1), {("note", "closes"), ("note", "stops")}),
        (date(2027, 1, 6), {("warning", "closes"), ("warning", "stops")}),
        (date(2027, 1, 7), {("error", "closed"), ("warning", "stops")}),
        (date(2027, 1, 14), {("error", "closed"), ("error", "stopped")}),
    ],
)
def test_openais_end_is_a_note_then_a_warning_then_a_refusal(
    day: date, expected: set[tuple[str, str]]
) -> None:
    job = Job(name="a", model="gpt-4.1", backend="openai", data=Data(train="train.jsonl"))
    found = offer_findings(job, OFFERS["openai"], day)
    assert expected == {(finding.severity, finding.code) for finding in found}


def test_claude_is_refused_with_the_day_of_its_end_wherever_it_is_asked_for() -> None:
    for name, model in (("bedrock", "anthropic.claude-3-haiku-20240307-v1:0"), ("anthropic", "c")):
        reason = OFFERS[name].refusal(model)
        assert reason is not None
        assert "2026-09-10" in reason
