"""`unitune cost`: one screen, one JSON object, one page; measured where a comparison was made."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from support.command_line import Command
from support.sample_total_cost import job

from unitune.job.job import Job


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-25")
    file = tmp_path / "unitune.yaml"
    job(alternative={"model": "newcomer-1"}).save(file)
    return file


def test_json_is_one_object_by_its_own_schema(unitune: Command, job_file: Path) -> None:
    found = json.loads(unitune("cost", str(job_file), "--json", "--requests", "1234").out)
    schema = json.loads(unitune("schema", "cost").out)

    jsonschema.validate(found, schema)
    assert found["schema_version"] == 1
    assert found["backends"][0]["requests_month"] == 1234


def test_several_backends_stand_in_one_document(unitune: Command, job_file: Path) -> None:
    both = unitune("cost", str(job_file), "--backend", "azure", "--backend", "openai", "--json")

    assert [one["backend"] for one in json.loads(both.out)["backends"]] == ["azure", "openai"]


def test_all_backends_stand_in_one_table_the_cheapest_first(
    unitune: Command, job_file: Path
) -> None:
    told = unitune("cost", str(job_file), "--all", "--requests", "1000000")
    assert told.code == 0
    table, _, refused = told.out.partition("Not available for this job")
    azure, openai = (
        next(line.split() for line in table.splitlines() if line.startswith(name))
        for name in ("azure", "openai")
    )
    (alone,) = json.loads(unitune("cost", str(job_file), "--requests", "1000000", "--json").out)[
        "backends"
    ]
    total = round(float(alone["columns"][1]["total_usd"]["expected"]))
    assert f"${total:,}" in azure, "as the backend alone says"
    assert "*" in openai, "it stops first, and idle it costs nothing"
    assert table.index("openai") < table.index("azure") < table.index("Prices not known")
    assert "anthropic" in refused
    assert "Sources" not in told.out
    assert unitune("cost", str(job_file), "--all", "--backend", "azure").code == 2


def test_a_backend_that_nothing_can_be_said_of_is_left_out_with_the_reason(
    unitune: Command, job_file: Path
) -> None:
    both = ("--backend", "azure", "--backend", "no-such-vendor")
    outcome = unitune("cost", str(job_file), *both)
    assert outcome.code == 0
    assert "no-such-vendor is left out: " in outcome.out
    found = json.loads(unitune("cost", str(job_file), *both, "--json").out)
    assert [one["backend"] for one in found["backends"]] == ["azure"]
    assert [*found["left_out"]] == ["no-such-vendor"]
    assert unitune("cost", str(job_file), "--backend", "no-such-vendor").code != 0


@pytest.mark.parametrize("requests", ["0", "-5", "many"])
def test_a_volume_that_is_none_is_wrong_usage(
    unitune: Command, job_file: Path, requests: str
) -> None:
    assert unitune("cost", str(job_file), "--requests", requests).code == 2


def test_after_a_comparison_tokens_are_measured(unitune: Command, tmp_path: Path) -> None:
    """Killed or not, the rows that a comparison left are averaged: the last of each question."""
    tokens = dict.fromkeys(
        ("prompted_tokens", "tuned_tokens", "shared_tokens", "answer_tokens"), "auto"
    )
    file = tmp_path / "unitune.yaml"
    scripted = job("any", "fake", **tokens).model_dump(exclude={"folder"})
    Job.model_validate(
        {**scripted, "options": {"fake": {"steps": 1}}, "folder": job().folder}
    ).save(file)
    assert unitune("run", str(file), "--quiet").code == 0
    unitune("compare", str(file), "--quiet")

    found = json.loads(unitune("cost", str(file), "--json").out)["backends"][0]
    sources = {one["name"]: one["source"] for one in found["figures"]}
    details = {one["name"]: one["detail"] for one in found["figures"]}

    assert sources["tuned prompt"] == "measured"
    assert sources["prompted answer"] == "measured"
    assert details["tuned prompt"].startswith("run r")


def test_a_price_of_the_command_line_counts(unitune: Command, job_file: Path) -> None:
    def once(*more: str) -> object:
        found = json.loads(unitune("cost", str(job_file), "--json", *more).out)
        return found["backends"][0]["columns"][1]["once_usd"]

    assert once() != once("--price", "training=5000")
