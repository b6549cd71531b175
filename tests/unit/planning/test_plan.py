"""A plan looks and starts nothing; what the backend cannot honour is an error in it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from unitune.backends import registry
from unitune.backends.offer import Offer
from unitune.errors import MissingExtra
from unitune.job.job import Data, Job, Lora, Tuning
from unitune.planning.feasibility import explicit_settings, offer_findings
from unitune.planning.plan import plan

TODAY = date(2026, 11, 25)
OFFER = Offer(
    name="vendor",
    summary="",
    as_of="2026-11-25",
    methods=("sft",),
    models=({"name": "small-1", "aliases": ("small",)},),  # pyright: ignore[reportArgumentType]
    supported_settings=("epochs", "lora.rank"),
)


def job(**changes: object) -> Job:
    content = {"name": "demo", "model": "small", "backend": "fake", "data": Data(train="t.jsonl")}
    return Job.model_validate({**content, **changes})


def codes(job: Job) -> list[str]:
    return [finding.code for finding in offer_findings(job, OFFER, TODAY)]


def test_names_and_aliases_of_offered_models_are_taken() -> None:
    assert codes(job(model="small-1")) == []
    assert codes(job(model="small")) == []


def test_another_model_is_refused_and_the_nearest_named() -> None:
    (finding,) = offer_findings(job(model="smal-1"), OFFER, TODAY)

    assert finding.message == "vendor cannot tune 'smal-1'; the closest model is 'small-1'."
    assert finding.severity == "error"


def test_auto_adapts_and_only_an_explicit_setting_is_refused() -> None:
    explicit = Tuning(epochs=2, seed=0, lora=Lora(rank=8, dropout=0.0))

    assert codes(job(tuning=Tuning())) == []
    refused = [
        finding.message
        for finding in offer_findings(job(tuning=explicit), OFFER, TODAY)
        if finding.severity == "error"
    ]
    assert refused == ["vendor does not support tuning.lora.dropout."]


def test_a_seed_that_the_vendor_does_not_take_is_a_warning() -> None:
    """One job file must run anywhere, and ours has a seed."""
    (finding,) = offer_findings(job(tuning=Tuning(seed=0)), OFFER, TODAY)

    assert (finding.code, finding.severity) == ("no-seed", "warning")


def test_explicit_settings_are_dotted() -> None:
    assert explicit_settings(Tuning(epochs=1, lora=Lora(rank=1))) == ["epochs", "lora.rank"]


@pytest.mark.parametrize(
    ("stopping", "expected"),
    [
        (True, ["early_stopping"]),
        ({}, ["early_stopping"]),
        (False, []),
        (
            {"patience": 2, "min_delta": 0.1},
            ["early_stopping.patience", "early_stopping.min_delta"],
        ),
    ],
)
def test_early_stopping_without_details_is_a_setting_too(
    stopping: object, expected: list[str]
) -> None:
    """Some vendors take no more than whether it is on."""
    tuning = Tuning.model_validate({"early_stopping": stopping})
    assert expected == explicit_settings(tuning)


def rows(folder: Path, count: int) -> None:
    row = '{{"prompt": "question {0}", "completion": "answer {0}"}}\n'
    text = "".join(row.format(number) for number in range(count))
    (folder / "t.jsonl").write_text(text, encoding="utf-8")


def test_a_plan_counts_rows_and_writes_nothing(tmp_path: Path) -> None:
    rows(tmp_path, 100)
    before = sorted(tmp_path.rglob("*"))

    found = plan(job(folder=tmp_path))

    assert (found.train_rows, found.validation_rows, found.test_rows) == (70, 30, None)
    assert found.errors == ()
    assert before == sorted(tmp_path.rglob("*"))


def test_bad_data_is_in_the_plan_not_raised(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("{\n", encoding="utf-8")

    assert plan(job(folder=tmp_path)).errors


def test_a_missing_extra_is_an_error_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> None:
        raise MissingExtra("Install it with: pip install 'unitune[fake]'")

    rows(tmp_path, 100)
    monkeypatch.setattr(registry, "backend", missing)

    assert [finding.code for finding in plan(job(folder=tmp_path)).errors] == ["missing-extra"]
