"""Tiers of a vendor in a plan: their prices, where each keeps data, and what a job may choose."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command
from support.sample_total_cost import job as sample_job

from unitune.backends import registry
from unitune.cost.prices.book import PriceBook
from unitune.errors import JobError
from unitune.findings import Finding
from unitune.job.job import Data, Job
from unitune.ownership.total_cost import total_cost
from unitune.planning.feasibility import offer_findings
from unitune.planning.tiers import tier_choices
from unitune_providers.openai.backend import AzureBackend

DAY = date(2026, 12, 1)
MINI = "gpt-4.1-mini-2025-04-14"


def job(model: str = MINI, method: str = "sft", **options: Any) -> Job:
    content = {"name": "demo", "model": model, "backend": "azure", "method": method}
    data = Data(train="t.jsonl")
    return Job.model_validate({**content, "data": data, "options": {"azure": options}})


def errors(made: Job) -> list[Finding]:
    found = offer_findings(made, registry.offer("azure"), DAY)
    return [finding for finding in found if finding.severity == "error"]


def notes(made: Job) -> str:
    found = offer_findings(made, registry.offer("azure"), DAY)
    return " ".join(finding.message for finding in found if finding.severity == "note")


def prices(**options: Any) -> Mapping[str, tuple[str, str]]:
    """Return the prices of training and hosting by tier; "-" where it is not offered."""
    return {
        each.tier: (
            each.training_price.written if each.training_price else "-",
            each.hosting_price.written if each.hosting_price else "-",
        )
        for each in tier_choices(job(**options), PriceBook(), DAY)
    }


def test_each_tier_has_its_prices_of_training_and_hosting() -> None:
    """Source: Azure Retail Prices API, 2026-08-11; developer deployments have no hosting fee."""
    assert prices() == {
        "regional": ("5.50-6.60", "1.70"),
        "data-zone": ("5.50", "1.70"),
        "global": ("5.00", "1.70"),
        "developer": ("2.50", "0"),
    }


def test_a_region_has_its_own_price() -> None:
    assert prices(region="swedencentral")["regional"] == ("6.05", "1.70")
    assert prices(region="northcentralus")["regional"] == ("5.50", "1.70")


def test_a_developer_training_is_hosted_globally_unless_the_job_says_otherwise() -> None:
    def used(**options: str) -> dict[str, str]:
        choices = tier_choices(job(**options), PriceBook(), DAY)
        return {what: each.tier for each in choices for what in each.chosen}

    assert used(training_type="developer") == {"training": "developer", "deployment": "global"}
    chosen = used(training_type="global", sku="DeveloperTier")
    assert chosen == {"training": "global", "deployment": "developer"}
    assert used() == {"training": "regional", "deployment": "regional"}


@pytest.mark.parametrize("word", ["global", "GlobalStandard", "developer"])
def test_a_tier_that_moves_data_is_refused_where_the_job_demands_residency(word: str) -> None:
    training, deployment = errors(job(residency="region", training_type=word))
    assert {training.code, deployment.code} == {"residency"}
    assert "options.azure.residency is region, but to train, tier" in training.message
    assert "may move data to any region" in training.message
    assert training.fix == "Set options.azure.training_type to standard."
    assert "Standard" in deployment.fix
    assert errors(job(residency="region")) == []


def test_residency_holds_for_models_that_the_offer_does_not_list() -> None:
    unlisted = {"azure": "Newcomer-7B"}
    made = job(residency="region", training_type="global").model_copy(update={"model": unlisted})
    assert {each.code for each in errors(made)} >= {"residency"}
    open_model = job("gpt-oss-9b", residency="region", training_type="global")
    with pytest.raises(JobError, match="may move data to any region"):
        AzureBackend().validate_options(open_model)


def test_a_data_zone_is_enough_if_the_job_demands_no_more() -> None:
    assert errors(job(residency="data-zone", sku="DataZoneStandard")) == []
    (refused,) = errors(job(residency="region", sku="DataZoneStandard"))
    assert "within a data zone" in refused.message


def test_models_that_train_only_globally_are_priced_so_but_not_sent_anywhere_unasked() -> None:
    assert errors(job("gpt-oss-20b")) == []
    assert registry.offer("azure").tier({}, "gpt-oss-20b") == "global"
    with pytest.raises(JobError, match=r"may copy rows to any region\. Set it to global"):
        AzureBackend().validate_options(job("gpt-oss-20b"))
    AzureBackend().validate_options(job("gpt-oss-20b", training_type="global"))
    refused, _ = errors(job("gpt-oss-20b", residency="region"))
    assert "Choose another model or backend" in refused.fix


@pytest.mark.parametrize(
    ("model", "options", "code", "words"),
    [
        ("gpt-5", {"training_type": "developer"}, "unsupported-tier", "standard or global"),
        ("gpt-4o", {"sku": "DeveloperTier"}, "unsupported-tier", "GlobalStandard"),
        (MINI, {"region": "northeurope"}, "unsupported-region", "northcentralus, swedencentral"),
        (
            "gpt-4.1-nano",
            {"region": "polandcentral", "training_type": "global"},
            "unsupported-region",
            "swedencentral",
        ),
    ],
)
def test_a_tier_or_region_without_the_model_is_refused(
    model: str, options: dict[str, str], code: str, words: str
) -> None:
    name = {"gpt-4o": "gpt-4o-2024-08-06", "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14"}
    found = errors(job(name.get(model, model), "rft" if model == "gpt-5" else "sft", **options))
    assert code in {each.code for each in found}
    assert any(words in each.fix for each in found)


def test_a_plan_says_what_a_tier_means_and_that_unused_deployments_go() -> None:
    said = notes(job(training_type="developer"))
    assert "may pause and resumes by itself, and paused time is free" in said
    assert "azure deletes a deployment that had no request for 15 days" in said


def test_models_served_only_by_managed_compute_are_warned_about() -> None:
    found = offer_findings(job("gpt-oss-120b"), registry.offer("azure"), DAY)
    assert "no-deployment" in {each.code for each in found if each.severity == "warning"}


def test_the_command_shows_the_tiers(unitune: Command, tmp_path: Path) -> None:
    row = '{"messages":[{"role":"user","content":"%d?"},{"role":"assistant","content":"yes"}]}\n'
    rows = "".join(row % number for number in range(60))
    (tmp_path / "t.jsonl").write_text(rows, encoding="utf-8")
    job().save(tmp_path / "unitune.yaml")
    shown = " ".join(unitune("plan", "unitune.yaml").out.split())
    for word in ("Tiers, US dollars", "training_type: global", "any region", "26 regions"):
        assert word in shown
    assert "sku: DeveloperTier" in unitune("backends", "azure").out


def test_the_total_cost_says_which_deployments_go_by_themselves() -> None:
    chosen = {"azure": {"sku": "DeveloperTier", "training_type": "global"}}
    standard, developer = (
        " ".join(total_cost(sample_job().model_copy(update={"options": options})).notes)
        for options in ({}, chosen)
    )
    assert "azure deletes a deployment that had no request for 15 days" in standard
    assert "tier developer is deleted after 24 hours" in developer


def test_a_reinforcement_says_at_which_cost_the_vendor_pauses_it() -> None:
    assert "azure pauses a training that has cost $5,000" in notes(job("o4-mini", "rft"))
    assert "pauses" not in notes(job())
