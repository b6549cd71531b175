"""What a comparison measured: means of the newest verdict of the right job, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.sample_comparison import sample_comparison
from support.sample_total_cost import job

from unitune.cost.tokens import Count
from unitune.evaluate.documents.history import keep
from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Job
from unitune.ownership.tokens import Tokens, measured


def left_behind(folder: Path, comparison: Comparison) -> Job:
    """Keep a comparison as `compare` does; return the job that it is of."""
    assert (folder / "comparisons") == (keep(comparison).folder or folder).parent
    known = job(comparison.base_model, comparison.backend)
    return known.model_copy(update={"name": comparison.job})


def compared(tuned: dict[str, int | None], **changes: object) -> Comparison:
    """Return a comparison whose tuned model has these totals, and few-shot 1801 and 42 of 2."""
    few = {"answers": 2, "prompt_tokens": 1801, "completion_tokens": 42}
    totals = {"tuned": tuned, "few-shot": few}
    comparison = sample_comparison()
    contenders = tuple(
        one.model_copy(update={**totals.get(one.name, {}), **changes})
        for one in comparison.contenders
    )
    return comparison.model_copy(update={"contenders": contenders})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path))
    return tmp_path


def measured_of(known: Job) -> Tokens:
    """Return what is measured where the tuned model's prompts share ten tokens."""
    return measured(known, None, Count.of(10))


TOTALS: dict[str, int | None] = {"answers": 2, "prompt_tokens": 103, "completion_tokens": 21}


def test_tokens_are_means_to_the_nearest_one(home: Path) -> None:
    """51.5 and 10.5 are 52 and 11; 900.5 and 21 are 901 and 21."""
    found = measured_of(left_behind(home, compared(TOTALS)))

    assert found.counts == {
        "prompted prompt": Count.of(901),
        "prompted answer": Count.of(21),
        "tuned prompt": Count.of(52),
        "tuned answer": Count.of(11),
        "shared beginning": Count.of(10),
    }


@pytest.mark.parametrize("unknown", ["prompt_tokens", "completion_tokens"])
def test_answers_whose_tokens_are_unknown_are_no_zeros(home: Path, unknown: str) -> None:
    found = measured_of(left_behind(home, compared({**TOTALS, unknown: None})))

    assert not [name for name in found.counts if name.startswith("tuned")]


@pytest.mark.parametrize("other", [{"name": "another"}, {"model": "another"}, {"backend": "azure"}])
def test_a_comparison_of_another_job_model_or_backend_counts_for_nothing(
    home: Path, other: dict[str, str]
) -> None:
    known = left_behind(home, compared(TOTALS))

    assert not measured_of(known.model_copy(update=other)).counts


@pytest.mark.parametrize("damage", ["{", '{"job": 1}', None])
def test_what_is_not_whole_counts_for_nothing(home: Path, damage: str | None) -> None:
    known = left_behind(home, compared(TOTALS))
    (verdict,) = home.glob("comparisons/*/verdict.json")
    verdict.unlink() if damage is None else verdict.write_text(damage, encoding="utf-8")

    assert not measured_of(known).counts


@pytest.mark.parametrize(
    ("chosen", "shared"), [("8 shots", 10 + 901 - 52), ("8 nearest shots", 10)]
)
def test_prompts_with_examples_of_their_own_share_only_what_the_tuned_models_do(
    home: Path, chosen: str, shared: int
) -> None:
    effort = f"tried 2 prompts (8 shots, 8 nearest shots); chose {chosen} with instructions"
    found = measured_of(left_behind(home, compared(TOTALS, effort=effort)))

    assert found.counts["shared beginning"] == Count.of(shared)


def test_what_is_written_can_be_read_back(home: Path) -> None:
    left_behind(home, compared(TOTALS))
    (file,) = home.glob("comparisons/*/verdict.json")
    verdict = json.loads(file.read_text())

    assert {"job", "backend", "base_model", "candidate", "baseline"} <= verdict.keys()
