"""What the statistics put into a comparison: clusters, slices, other metrics, errors aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.told import PAIR, PROMPTED, by_number, number, told

from unitune.errors import JobError
from unitune.evaluate.compare import compare
from unitune.evaluate.statistics.sample_size import foresight
from unitune.evaluate.statistics.significance import benjamini_hochberg, holm
from unitune.job.job import Job
from unitune.models import Request


@by_number
def told_is_better(at: int, *, told: bool) -> str:
    """Zero-shot is right in a third of the cases, instructed in all but every tenth."""
    return "yes" if (at % 10 > 0 if told else at % 3 == 0) else "yes, perhaps"


@pytest.fixture
def keyed_job(make_job: Any, tmp_path: Path) -> Callable[..., Job]:
    """Make a job whose test rows have keys of their own, from their number."""

    def make(evaluate: dict[str, Any], keys: Callable[[int], dict[str, Any]]) -> Job:
        job = make_job({"contenders": PAIR, **evaluate})
        file = tmp_path / "test.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(f"{json.dumps(row | keys(at))}\n" for at, row in enumerate(rows)))
        return job

    return make


def test_clusters_widen_the_intervals(keyed_job: Any, backend_of: Any) -> None:
    """Each customer asks the same three times, so a third of the evidence is there."""
    backend_of(told_is_better)

    def of_customer(at: int) -> dict[str, Any]:
        return {"customer": at % 30}

    alone = compare(keyed_job({}, of_customer))
    together = compare(keyed_job({"clusters": "customer"}, of_customer))
    assert (alone.clusters, together.clusters) == (None, 30)
    assert alone.difference == together.difference
    assert pytest.approx(2) == together.design_effect
    assert together.interval[0] < alone.interval[0]
    assert together.contenders[1].interval[0] < alone.contenders[1].interval[0]
    assert "over 30 clusters" in together.method
    assert together.p_exact is None
    assert alone.p_exact is not None


def test_few_clusters_are_told(keyed_job: Any, backend_of: Any) -> None:
    backend_of(told_is_better)
    found = compare(keyed_job({"clusters": "customer"}, lambda at: {"customer": at % 4}))
    assert any(note.startswith("4 clusters (of 60 cases)") for note in found.notes)
    assert found.verdict == "inconclusive"


def test_a_row_without_a_cluster_is_refused_before_anything_is_asked(
    keyed_job: Any, backend_of: Any
) -> None:
    backend = backend_of(told_is_better)
    job = keyed_job(
        {"clusters": "customer"}, lambda at: {"client": 1} if at == 7 else {"customer": 2}
    )
    with pytest.raises(JobError, match=r"has no such key \(its own keys: client\)"):
        compare(job)
    assert backend.log == []


def test_slices_are_adjusted_together_and_small_ones_left_out(
    keyed_job: Any, backend_of: Any
) -> None:
    backend_of(told_is_better)

    def of_row(at: int) -> dict[str, Any]:
        return {"language": "de" if at < 40 else "fr" if at < 55 else "it", "long": at % 2 == 0}

    found = compare(keyed_job({"slices": ["language", "long"]}, of_row))
    names = [each.name for each in found.slices]
    assert names == ["language = de", "language = fr", "long = false", "long = true"]
    sizes = [each.n for each in found.slices]
    assert sizes == [40, 15, 30, 30]
    assert sizes == [sum(name in case.slices for case in found.cases) for name in names]
    assert pytest.approx(benjamini_hochberg([each.p_value for each in found.slices])) == [
        each.p_adjusted for each in found.slices
    ]
    german = found.slices[0]
    assert pytest.approx((14 / 40, 36 / 40)) == (german.baseline, german.candidate)
    assert pytest.approx(22 / 40) == german.difference


def test_a_slice_that_no_row_has_is_refused(keyed_job: Any, backend_of: Any) -> None:
    backend_of(told_is_better)
    with pytest.raises(JobError, match=r"evaluate\.slices names 'tongue'"):
        compare(keyed_job({"slices": ["tongue"]}, lambda _at: {"language": "de"}))


def test_other_metrics_are_adjusted_together(compare_by: Any) -> None:
    scorers = [{"type": "exact"}, {"type": "contains"}, {"type": "regex", "pattern": "perhaps"}]
    found = compare_by(told_is_better, {"contenders": PAIR, "scorers": scorers})
    assert [each.name for each in found.secondary] == ["contains", "regex"]
    assert [each.difference for each in found.secondary] == [0, -found.difference]
    assert [each.p_adjusted for each in found.secondary] == [1, pytest.approx(2 * found.p_value)]
    assert holm([each.p_value for each in found.secondary]) == [
        each.p_adjusted for each in found.secondary
    ]


def test_errors_count_as_wrong_and_the_rest_is_compared_beside(
    compare_by: Any, tmp_path: Path
) -> None:
    def rule(model: str, request: Request) -> str:
        failed = told(request) and number(request) in (1, 2)
        return "ERROR 503" if failed else told_is_better(model, request)

    found = compare_by(rule, PROMPTED)
    assert found.answered is not None
    assert (found.n, found.answered.n) == (60, 58)
    assert pytest.approx(34 / 60 - 2 / 60) == found.difference
    assert pytest.approx(32 / 58) == found.answered.difference
    assert found.answered.p_value == found.answered.p_adjusted

    assert compare_by(told_is_better, PROMPTED, out=tmp_path / "clean").answered is None


def test_what_the_cases_can_show_is_said_before_anything_is_asked(
    make_job: Any, backend_of: Any
) -> None:
    backend = backend_of(told_is_better)
    said: list[str] = []

    def announce(text: str) -> None:
        assert backend.log == []
        said.append(text)

    compare(make_job(PROMPTED), announce=announce)
    assert said == [foresight(60, 0.05)]


def test_a_cluster_with_a_quarter_of_the_cases_is_named(keyed_job: Any, backend_of: Any) -> None:
    """It alone keeps the interval wide, at whatever number of cases."""
    backend_of(told_is_better)

    def of_customer(at: int) -> dict[str, Any]:
        return {"customer": "acme" if at < 20 else f"customer {at // 4}"}

    found = compare(keyed_job({"clusters": "customer"}, of_customer))
    assert found.verdict != "better"
    (note,) = (note for note in found.notes if note.startswith("The cluster 'acme', such as case"))
    assert "has 20 of 60 cases, which widens the interval." in note
