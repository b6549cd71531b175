"""What offers say is dated, sourced and free of contradictions, and what has ended is data."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
from datetime import date

import pytest
from pydantic import ValidationError

from unitune.backends import registry
from unitune.backends.offer import Offer
from unitune.cost.prices.refresh import contradictions
from unitune.errors import Unsupported
from unitune.files import yaml_file
from unitune.job.job import Data, Job
from unitune.job.prices import OF_ANSWERS
from unitune.planning.feasibility import offer_findings

TODAY = date(2026, 11, 25)
OFFERS = {name: registry.offer(name) for name in registry.offer_names()}
CLOSED = {"autotrain", "cohere", "databricks", "gemini", "mistral", "predibase"}
NOT_YET = {"prime-intellect"}


def job(backend: str, model: str, **changes: object) -> Job:
    content = {"name": "a", "model": model, "backend": backend, "data": Data(train="t.jsonl")}
    return Job.model_validate({**content, **changes})


def said(backend: str, model: str, day: date = TODAY, **changes: object) -> str:
    wanted = job(backend, model, **changes)
    return "\n".join(map(str, offer_findings(wanted, OFFERS[backend], day)))


every_offer = pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)


@every_offer
def test_every_price_is_of_a_day_not_after_the_offer_and_has_a_source(offer: Offer) -> None:
    late = [row.id for row in offer.price_rows() if row.as_of > offer.as_of]
    assert late == []
    assert all(row.source and row.source_kind != "own" for row in offer.price_rows())


@every_offer
def test_no_row_stands_twice_and_none_contradicts_another(offer: Offer) -> None:
    rows = offer.price_rows()
    assert len(rows) == len({row.id for row in rows})
    assert contradictions(rows) == {}


@every_offer
def test_a_batch_costs_about_half(offer: Offer) -> None:
    """It does at every vendor; the rest is rounding."""
    rows = [row for row in offer.price_rows() if row.kind in OF_ANSWERS]
    usual = {(row.model, row.kind, row.tuned, row.as_of): row.usd for row in rows if not row.tier}
    for row in rows:
        whole = usual.get((row.model, row.kind, row.tuned, row.as_of))
        if row.tier == "batch" and whole:
            assert 0.4 <= row.usd / whole <= 0.6, row.id


@every_offer
def test_what_is_priced_can_be_bought(offer: Offer) -> None:
    methods = {row.method for row in offer.price_rows()} - {None}
    names = {row.model for row in offer.price_rows() if row.kind == "training"} - {"*"}
    assert methods <= set(offer.methods)
    assert names <= {model.name for model in offer.models}
    for model in offer.models:
        assert set(model.formats or ()) <= set(offer.methods), model.name
        assert not offer.terms(model.name).refusal, model.name


@every_offer
def test_every_day_on_which_something_ends_has_a_source_and_they_are_in_order(offer: Offer) -> None:
    for model in offer.models:
        assert bool(model.tunable_until) == bool(model.tunable_until_source), model.name
        assert bool(model.retires_on) == bool(model.retires_on_source), model.name
        days = [closed.since for closed in model.closed_to]
        days += [day for day in (model.tunable_until, model.retires_on) if day]
        assert sorted(days) == days, model.name
    rows = offer.price_rows()
    assert all(row.valid_from < row.valid_to for row in rows if row.valid_from and row.valid_to)


@every_offer
def test_billing_rules_have_a_source(offer: Offer) -> None:
    rules = offer.billing.model_dump(exclude_defaults=True)
    assert not rules or offer.billing.source


@every_offer
def test_every_offer_holds_to_the_schema_that_is_published(offer: Offer) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs the extra `metrics`")
    (entry,) = importlib.metadata.entry_points(group="unitune.offers", name=offer.name)
    text = importlib.resources.files(entry.value).joinpath(f"{offer.name}.yaml").read_text()
    jsonschema.validate(yaml_file.parse(text), Offer.model_json_schema())


def test_a_price_without_its_day_or_source_is_no_part_of_an_offer() -> None:
    content = {"name": "a", "summary": "", "as_of": TODAY, "methods": ["sft"]}
    for lacking in ({"as_of": TODAY}, {"source": "a page"}):
        with pytest.raises(ValidationError, match="lacks as_of or source"):
            Offer.model_validate({**content, "prices": [{"training": "3.00", **lacking}]})


def test_every_offer_names_itself_and_every_backend_has_one() -> None:
    assert list(OFFERS) == [offer.name for offer in OFFERS.values()]
    assert set(registry.backend_names()) <= set(OFFERS)


def test_vendors_without_a_backend_have_closed_or_wait_for_one() -> None:
    without = set(OFFERS) - set(registry.backend_names())
    assert {name for name in without if OFFERS[name].closed} == CLOSED
    assert without - CLOSED == NOT_YET


def test_all_of_openais_models_close_and_stop_on_the_days_that_it_told() -> None:
    models = OFFERS["openai"].models
    assert {model.tunable_until for model in models} == {date(2027, 1, 6)}
    assert {model.retires_on for model in models} == {date(2027, 1, 14)}


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2026, 9, 1), {("warning", "closed-to"), ("note", "closes"), ("note", "stops")}),
        (
            date(2027, 1, 5),
            {("warning", "closed-to"), ("warning", "closes"), ("warning", "stops")},
        ),
        (date(2027, 1, 6), {("error", "closed"), ("warning", "stops")}),
        (date(2027, 1, 14), {("error", "closed"), ("error", "stopped")}),
    ],
)
def test_openais_end_is_a_note_then_a_warning_then_a_refusal(
    day: date, expected: set[tuple[str, str]]
) -> None:
    found = offer_findings(job("openai", "gpt-4.1"), OFFERS["openai"], day)
    assert expected == {(finding.severity, finding.code) for finding in found}


def test_today_it_is_told_who_can_tune_gpt_4o_mini_and_for_how_long() -> None:
    text = said("openai", "gpt-4o-mini")
    assert "organisations that never tuned, since 2026-05-07" in text
    assert "in the last 60 days, since 2026-07-02" in text
    assert "until 2027-01-06" in text
    assert "switched off on 2027-01-14" in text


def test_from_the_day_on_which_tuning_ends_the_refusal_names_who_takes_the_job() -> None:
    text = said("openai", "gpt-4o-mini", date(2027, 1, 6))
    assert (
        "You can tune the same model with azure (gpt-4o-mini-2024-07-18, not open to all)." in text
    )
    assert (
        "With another base model, azure-sessions (not open to all), bedrock, fireworks, hf-jobs, "
        "local, nebius, ray, skypilot, tinker, together and vertex take the job." in text
    )


def test_who_would_refuse_the_job_itself_is_not_named() -> None:
    """Azure's own tuning of gpt-4o-mini ends on 2027-04-01; Vertex takes no learning rate."""
    text = said("openai", "gpt-4o-mini", date(2027, 4, 1), tuning={"learning_rate": 1e-5})
    assert "gpt-4o-mini-2024-07-18)" not in text
    assert (
        "With another base model, azure-sessions (not open to all), bedrock, fireworks, hf-jobs, "
        "local, nebius, ray, skypilot, tinker and together take the job." in text
    )


@pytest.mark.parametrize(
    ("backend", "model", "dated", "same"),
    [
        ("anthropic", "claude-haiku-4-5", "2026-09-10", ""),
        ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "2026-09-10", ""),
        ("bedrock", "claude-sonnet-5-5", "2026-09-10", ""),
        ("cohere", "command-r-08-2024", "2025-09-15", "local"),
        ("mistral", "ministral-3b-latest", "2026-06-30", "azure (Ministral-3B)"),
        ("predibase", "qwen3-8b", "2026-07-11", "together (Qwen/Qwen3-8B)"),
        ("databricks", "meta-llama/Llama-3.3-70B-Instruct", "2026-08-14", "bedrock"),
        ("gemini", "gemini-3.5-flash", "May 2025", "vertex (gemini-3.5-flash)"),
        ("autotrain", "Qwen/Qwen3-8B", "2025-01-21", "together (Qwen/Qwen3-8B)"),
    ],
)
def test_what_cannot_be_tuned_is_refused_with_its_day_and_who_takes_the_job(
    backend: str, model: str, dated: str, same: str
) -> None:
    found = offer_findings(job(backend, model), OFFERS[backend], TODAY)
    (refusal,) = [finding for finding in found if finding.severity == "error"]
    assert dated in refusal.message
    assert same in refusal.fix
    assert "together" in refusal.fix


def test_a_backend_that_takes_only_some_customers_is_named_as_such() -> None:
    assert (
        "local, nebius, openai (not open to all), ray, skypilot, tinker, together and vertex take "
        "the job." in said("anthropic", "claude-haiku-4-5")
    )


def test_where_unitune_cannot_launch_it_says_so_and_not_that_there_is_no_such_backend() -> None:
    with pytest.raises(Unsupported, match=r"cannot launch at prime-intellect yet.*unitune prices"):
        registry.backend("prime-intellect")
    with pytest.raises(Unsupported, match="by 2025-09-15"):
        registry.backend("cohere")


def test_offers_need_nothing_but_their_package() -> None:
    entries = importlib.metadata.entry_points(group="unitune.offers")
    assert {":" in entry.value for entry in entries} == {False}


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.5-flash-lite"])
def test_gemini_2_5_is_switched_off(model: str) -> None:
    found = offer_findings(job("vertex", model), OFFERS["vertex"], TODAY)
    assert any("2026-10-20" in each.message for each in found if each.severity == "error")


@pytest.mark.parametrize(
    ("backend", "prefix", "end"),
    [
        ("vertex", "gemini-3.1", date(2027, 5, 7)),
        ("bedrock", "meta.", date(2027, 3, 30)),
    ],
)
def test_bases_stop_on_the_day_that_their_vendor_gives(
    backend: str, prefix: str, end: date
) -> None:
    ends = {one.retires_on for one in OFFERS[backend].models if one.name.startswith(prefix)}
    assert ends == {end}


def test_every_base_of_vertex_has_its_end() -> None:
    assert all(model.retires_on for model in OFFERS["vertex"].models)


def test_a_price_of_one_gpt_4o_is_not_anothers() -> None:
    """OpenAI tuned 2024-08-06 and 2024-11-20, and never 2024-05-13."""
    priced = {row.model for row in OFFERS["openai"].price_rows() if row.tuned}
    assert "gpt-4o-2024-08-06" in priced
    assert not any(re.fullmatch(r"gpt-4o-2024-(05.*|\*)", name) for name in priced)
