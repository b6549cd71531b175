"""What a comparison measured: its newest rows' means, of the right job, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_comparison import sample_comparison
from sample_total_cost import job

from unitune.evaluate.inference.journal import line_of
from unitune.evaluate.records import Record
from unitune.evaluate.results import Comparison
from unitune.job.job import Job
from unitune.tco.measured import MeanTokens, measured


def record(contender: str, case: str, prompt: int | None, answer: int | None) -> Record:
    return Record(
        contender=contender,
        case=case,
        request_hash=f"{contender}{case}{prompt}",
        prompt_tokens=prompt,
        completion_tokens=answer,
    )


def left_behind(folder: Path, comparison: Comparison, *records: Record) -> Job:
    """Write a comparison's files where `compare` does; return the job that it is of."""
    there = folder / "runs" / "r1" / "evaluation"
    there.mkdir(parents=True, exist_ok=True)
    (there / "verdict.json").write_text(comparison.verdict_json(), encoding="utf-8")
    lines = "".join(f"{line_of(one)}\n" for one in records)
    (there / "rows.jsonl").write_text(lines, encoding="utf-8")
    known = job(comparison.base_model, comparison.backend)
    return known.model_copy(update={"name": comparison.job})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path))
    return tmp_path


ROWS = (
    record("tuned", "a", 50, 10),
    record("tuned", "b", 53, 11),
    record("few-shot", "a", 900, 20),
    record("few-shot", "b", 901, 22),
)


def test_tokens_are_means_to_the_nearest_one(home: Path) -> None:
    """51.5 and 10.5 are 52 and 11; 900.5 and 21 are 901 and 21."""
    found = measured(left_behind(home, sample_comparison(), *ROWS))

    assert found is not None
    assert MeanTokens(52, 11) == found.candidate
    assert MeanTokens(901, 21) == found.baseline


def test_of_several_answers_to_one_question_the_last_counts(home: Path) -> None:
    again = record("tuned", "a", 70, 30)
    found = measured(left_behind(home, sample_comparison(), *ROWS, again))

    assert found is not None
    assert MeanTokens(62, 21) == found.candidate


def test_answers_whose_tokens_are_unknown_are_no_zeros(home: Path) -> None:
    found = measured(left_behind(home, sample_comparison(), *ROWS, record("tuned", "c", None, 9)))

    assert found is not None
    assert MeanTokens(52, 11) == found.candidate


@pytest.mark.parametrize("other", [{"name": "another"}, {"model": "another"}, {"backend": "azure"}])
def test_a_comparison_of_another_job_model_or_backend_counts_for_nothing(
    home: Path, other: dict[str, str]
) -> None:
    known = left_behind(home, sample_comparison(), *ROWS)

    assert measured(known.model_copy(update=other)) is None


@pytest.mark.parametrize("damage", ["{", '{"job": 1}', None])
def test_what_is_not_whole_counts_for_nothing(home: Path, damage: str | None) -> None:
    known = left_behind(home, sample_comparison(), *ROWS)
    verdict = home / "runs" / "r1" / "evaluation" / "verdict.json"
    verdict.unlink() if damage is None else verdict.write_text(damage, encoding="utf-8")

    assert measured(known) is None


def test_a_torn_last_line_is_left_out(home: Path) -> None:
    known = left_behind(home, sample_comparison(), *ROWS)
    rows = home / "runs" / "r1" / "evaluation" / "rows.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8") + '{"contender": "tun', encoding="utf-8")

    assert measured(known) is not None


@pytest.mark.parametrize(("chosen", "nearest"), [("8 shots", False), ("8 nearest shots", True)])
def test_shots_of_each_cases_own_are_told_from_shared_ones(
    home: Path,
    chosen: str,
    nearest: bool,  # noqa: FBT001 - a parameter
) -> None:
    comparison = sample_comparison()
    effort = f"tried 2 prompts (8 shots, 8 nearest shots); chose {chosen} with instructions"
    contenders = tuple(one.model_copy(update={"effort": effort}) for one in comparison.contenders)
    told = comparison.model_copy(update={"contenders": contenders})
    found = measured(left_behind(home, told, *ROWS))

    assert found is not None
    assert nearest == found.nearest_shots


def test_what_is_written_can_be_read_back(home: Path) -> None:
    left_behind(home, sample_comparison(), *ROWS)
    verdict = json.loads((home / "runs" / "r1" / "evaluation" / "verdict.json").read_text())

    assert {"job", "backend", "base_model", "candidate", "baseline"} <= verdict.keys()
