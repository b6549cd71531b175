"""How often a test was used: counted in the ledger, shown, corrected for, and sometimes refused."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.told import PROMPTED, by_number

from unitune.errors import UserError
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.records import UseOfTest
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.statistics.paired import PairedResult, compare_paired
from unitune.evaluate.verdict.looks import look_level
from unitune.ledger import Ledger
from unitune.planning.preflight import preflight
from unitune.report import words
from unitune.report.files import write_report
from unitune.workspace.home import home

SAMPLED = {**PROMPTED, "temperature": 0.7}


def told_gains(gained: int, lost: int) -> Any:
    """Zero-shot is right from case 30 on; the candidate gains and loses so many."""

    @by_number
    def rule(at: int, *, told: bool) -> str:
        right = (at < gained or at >= 30 + lost) if told else at >= 30
        return "yes" if right else "no"

    return rule


def paired(level: float = 0.95) -> PairedResult:
    """The statistics of 9 gained and 2 lost among those 60 cases."""
    old = [0] * 30 + [1] * 30
    return compare_paired(old, [1] * 9 + [0] * 23 + [1] * 28, level=level)


@pytest.fixture
def told(make_job: Any, backend_of: Any) -> Any:
    """Compare a candidate with instructions of its own, by its number of gained and lost cases."""
    numbers = count()

    def compared(gained: int, lost: int, **more: Any) -> Comparison:
        backend_of(told_gains(gained, lost))
        spec = {"type": "instructed", "role": "candidate", "instructions": f"TOLD {next(numbers)}"}
        return compare(make_job({"contenders": [{"type": "zero-shot"}, spec], **more}))

    return compared


def use(comparison: Comparison) -> UseOfTest:
    assert comparison.use_of_test is not None
    return comparison.use_of_test


def test_the_first_comparison_is_as_if_nothing_were_counted(told: Any) -> None:
    first = told(9, 2)
    alone = paired()
    assert alone.interval.ends == first.interval
    assert (
        use(first).comparison,
        use(first).candidates,
        use(first).divisor,
        use(first).level,
    ) == (1, 1, 1, 0.95)
    assert first.p_value == use(first).p_adjusted == alone.p_value
    assert "first comparison on these cases" in words.figures(first)
    assert str(use(first)) == "First comparison on these cases in this ledger."


def test_the_best_of_several_candidates_is_corrected_for_all_of_them(told: Any) -> None:
    """9 gained and 2 lost are p = 0.039: enough for the first, not for the third."""
    for gained, lost in ((5, 5), (6, 5)):
        assert told(gained, lost).verdict != "better"
    third = told(9, 2, gate={"mode": "improve"})
    assert (
        use(third).comparison,
        use(third).candidate,
        use(third).candidates,
        use(third).divisor,
    ) == (3, 3, 3, 3)
    assert pytest.approx(3 * third.p_value) == use(third).p_adjusted
    alone = paired(use(third).level)
    assert (alone.interval.ends, alone.verdict.value) == (third.interval, third.verdict)
    assert third.verdict != "better"
    assert third.interval[0] < 0
    assert third.gate is not None
    said = "Comparison 3 of 3 on these cases, candidate 3 of 3. Interval and p-value are adjusted"
    assert said in next(each.reason for each in third.gate.checks if "uses" in each.name)
    assert said in words.reason(third)
    assert "adjusted)" in words.figures(third)
    folder = write_report(third).parent
    assert said in (folder / "report.html").read_text()
    assert said in (folder / "summary.md").read_text()


def test_candidates_that_are_better_take_nothing_from_the_next_one(told: Any) -> None:
    """Holm divides by the candidates that are not rejected yet."""
    for _ in range(3):
        assert told(30, 1).verdict == "better"
    last = told(20, 2)
    assert (use(last).candidates, use(last).divisor, last.verdict) == (4, 1, "better")


def test_recorded_and_greedy_answers_make_no_new_comparison(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(told_gains(9, 2))
    job = make_job(SAMPLED)
    first, again = compare(job), compare(job)
    cached = compare(job, out=tmp_path / "cached", use_cache=True)
    for other in (again, cached):
        assert (1, 1, first.interval) == (
            use(other).comparison,
            use(other).comparisons,
            other.interval,
        )
    greedy = make_job({**SAMPLED, "temperature": 0})
    compare(greedy)
    anew = compare(greedy, out=tmp_path / "greedy")
    assert (use(anew).comparison, use(anew).comparisons, use(anew).candidate) == (2, 2, 2)
    assert len(Ledger(home()).looks(first.provenance["Test cases"])) == 5


def test_sampling_a_known_candidate_again_takes_a_reason(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend = backend_of(told_gains(9, 2))
    job = make_job(SAMPLED)
    first = compare(job)
    asked = len(backend.requests)
    with pytest.raises(UserError, match=rf"in comparison {first.id}\. Sampling again"):
        compare(job, out=tmp_path / "again")
    with pytest.raises(UserError, match="need a reason"):
        compare(job, out=tmp_path / "again", new_answers=" ")
    (home() / "answers.sqlite").unlink()
    with pytest.raises(UserError, match="Sampling again"):
        compare(job, out=tmp_path / "again", use_cache=True)
    assert asked == len(backend.requests)
    second = compare(job, out=tmp_path / "again", new_answers="the server was misconfigured")
    assert (
        use(second).comparison,
        use(second).comparisons,
        use(second).candidates,
        use(second).divisor,
    ) == (2, 2, 1, 2)
    assert "misconfigured" in words.reason(second)
    assert second.verdict != "better"
    (entry,) = (e for e in Ledger(home()).audit_log() if e.action == "answers.renewed")
    assert (second.id, "the server was misconfigured") == (entry.subject, entry.data["reason"])


def test_no_reason_that_a_user_gives_keeps_new_answers_from_being_counted(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(told_gains(9, 2))
    job = make_job(SAMPLED)
    compare(job)
    second = compare(job, out=tmp_path / "again", new_answers="unitune models verify")
    assert (use(second).comparisons, use(second).divisor) == (2, 2)


def test_a_baseline_that_is_sampled_again_takes_a_reason_too(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    """The candidate's answers are recorded; drawing the baseline's again is the same trick."""
    backend_of(told_gains(9, 2))
    (tmp_path / "kept.jsonl").write_text(
        "".join(f'{{"case": "{case}", "answer": "yes"}}\n' for case in _ids(make_job))
    )
    contenders = [
        {"type": "zero-shot"},
        {"type": "recorded", "answers": "kept.jsonl", "role": "candidate"},
    ]
    job = make_job({"contenders": contenders, "temperature": 0.7})
    compare(job)
    with pytest.raises(UserError, match="zero-shot already answered these 60 test cases"):
        compare(job, out=tmp_path / "again")


def _ids(make_job: Any) -> Iterator[str]:
    test = preflight(make_job(SAMPLED)).splits.test
    assert test is not None
    return (example.case_id for example in test)


def test_another_order_of_the_rows_is_the_same_test(make_job: Any, backend_of: Any) -> None:
    backend_of(told_gains(9, 2))
    rows = [(f"test {at}", "yes") for at in range(60)]
    one, other = (compare(make_job(SAMPLED, test=each)) for each in (rows, rows[::-1]))
    assert one.provenance["Test cases"] == other.provenance["Test cases"]
    assert use(other).comparisons == 1
    fewer = compare(make_job(SAMPLED, test=rows[1:]))
    assert use(fewer).comparisons == 1


def test_a_growing_test_spends_its_error_rate_over_the_planned_looks(compare_by: Any) -> None:
    job = {**SAMPLED, "gate": {"mode": "improve", "looks": 2}}
    first, second, third = (
        compare_by(told_gains(7, 2), job, test=[(f"test {at}", "yes") for at in range(n)])
        for n in (30, 60, 90)
    )
    assert look_level([30], 2) == use(first).level
    assert look_level([30, 60], 2) == use(second).level
    assert use(second).sizes == (30, 60)
    assert first.verdict != "better"
    assert "Look 1 of 2 planned, so the interval has the level 99.695 %." in words.reason(first)
    assert second.p_value < use(second).p_adjusted < 1.1 * second.p_value
    assert (third.verdict, third.exit_code) == ("inconclusive", 3)
    assert third.doubt is not None
    assert third.doubt.startswith("evaluate.gate.looks plans 2 comparisons")


def test_a_test_that_grew_without_a_plan_is_told(compare_by: Any) -> None:
    for n in (30, 60):
        found = compare_by(
            told_gains(9, 2), SAMPLED, test=[(f"test {at}", "yes") for at in range(n)]
        )
    assert "was compared on 30 cases before" in words.reason(found)


def test_a_first_look_is_not_counted(make_job: Any, backend_of: Any) -> None:
    backend_of(told_gains(9, 2))
    job = make_job(SAMPLED)
    assert compare(job, limit=10).use_of_test is None
    assert use(compare(job)).is_first


def test_a_replay_without_a_ledger_says_that_nothing_is_known(
    make_job: Any, backend_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend_of(told_gains(9, 2))
    job = make_job(SAMPLED)
    compare(job, out=tmp_path / "rows")
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "no-folder"))
    found = compare(job, out=tmp_path / "rows", replay=True)
    assert not use(found).known
    assert "no ledger could be read" in words.reason(found)
