"""The baseline file, and what a no-regress gate makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.told import PAIR, by_number
from typer.testing import CliRunner

from unitune.data.example import Example
from unitune.errors import (
    BackendError,
    DataError,
    IntegrityError,
    JobError,
    NotFoundError,
    UserError,
)
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.records import Answer
from unitune.evaluate.documents.results import Comparison, Regression
from unitune.evaluate.scoring.scorers import build
from unitune.evaluate.verdict import baseline
from unitune.job.job import Job
from unitune.main import app
from unitune.models import Request
from unitune.report import words
from unitune.scorers.text import Exact

GATE = {"mode": "no-regress", "baseline": "baseline.jsonl"}
ROWS = [(f"test {at}", "yes") for at in range(200)]

Make = Callable[..., Job]


def evaluate(gate: dict[str, Any] = GATE, **more: Any) -> dict[str, Any]:
    return {"contenders": PAIR, "gate": gate, **more}


def wrong_every(nth: int) -> Callable[[str, Request], str]:
    """The candidate is wrong in every nth case, the live baseline never."""
    return by_number(lambda at, *, told: "no" if told and at % nth == 0 else "yes")


@pytest.fixture
def accepted(make_job: Make, backend_of: Any) -> Job:
    """A job of 200 cases whose candidate, wrong in every tenth, was accepted."""
    backend_of(wrong_every(10))
    job = make_job(evaluate(), test=ROWS)
    assert compare(job, out=job.folder / "first", update_baseline=True).exit_code == 0
    return job


def again(job: Job, **options: Any) -> Comparison:
    return compare(job, out=job.folder / "again", **options)


def lines(job: Job) -> list[str]:
    return (job.folder / "baseline.jsonl").read_text().splitlines()


def test_the_file_has_a_header_and_one_sorted_line_a_case(accepted: Job) -> None:
    first, *rest = map(json.loads, lines(accepted))

    assert first.keys() == {"schema_version", "metric", "scorers"}
    assert (len(rest), first["metric"]) == (200, "exact")
    assert sorted(case["id"] for case in rest) == [case["id"] for case in rest]
    assert sum(case["scores"]["exact"] == 0 for case in rest) == 20


def test_writing_the_same_scores_again_changes_no_byte(accepted: Job) -> None:
    before = lines(accepted)
    again(accepted, update_baseline=True)

    assert before == lines(accepted)


def test_a_diff_shows_only_the_cases_whose_score_has_changed(
    accepted: Job, backend_of: Any
) -> None:
    before = lines(accepted)
    backend_of(wrong_every(20))
    again(accepted, update_baseline=True)

    changed = [pair for pair in zip(before, lines(accepted), strict=True) if pair[0] != pair[1]]
    assert len(changed) == 10
    anchored = [old.replace("0}}", '1}, "anchor": 0}') for old, _ in changed]
    assert anchored == [new for _, new in changed]


def test_the_command_writes_it_and_asks_for_a_look_at_the_diff(
    make_job: Make, backend_of: Any
) -> None:
    backend_of(wrong_every(10))
    job = make_job(evaluate(), test=ROWS)
    job.save(job.folder / "unitune.yaml")
    command = ["compare", str(job.folder / "unitune.yaml"), "--quiet"]

    found = CliRunner().invoke(app, [*command, "--update-baseline"])

    assert (found.exit_code, len(lines(job))) == (0, 201)
    assert "Review its diff and commit it." in " ".join(found.output.split())
    assert "Review its diff" not in CliRunner().invoke(app, command).output


def test_without_the_option_the_file_is_only_read(accepted: Job, backend_of: Any) -> None:
    before = lines(accepted)
    backend_of(wrong_every(2))
    again(accepted)

    assert before == lines(accepted)


@pytest.mark.parametrize(
    ("nth", "code", "gained", "lost"), [(10, 0, 0, 0), (1000, 0, 19, 0), (5, 1, 0, 20)]
)
def test_the_candidate_is_held_against_what_it_scored_and_not_against_the_live_baseline(
    accepted: Job, backend_of: Any, *, nth: int, code: int, gained: int, lost: int
) -> None:
    """The live baseline is always right, so against it the candidate only ever loses."""
    backend_of(wrong_every(nth))
    found = again(accepted)

    assert found.gate is not None
    then = found.gate.regressions[0]
    assert (code, 200, gained, lost) == (found.exit_code, then.n, then.gained, then.lost)
    assert 0 == found.gained < found.lost


@pytest.mark.usefixtures("accepted")
def test_cases_added_are_left_out_and_those_removed_count_as_wrong(
    make_job: Make, backend_of: Any
) -> None:
    """Of the five removed, the first was wrong when it was accepted."""
    backend_of(wrong_every(10))
    found = again(make_job(evaluate(), test=[*ROWS[5:], ("test 991", "yes")]))

    assert found.gate is not None
    then = found.gate.regressions[0]
    assert (then.n, len(then.added), len(then.removed)) == (200, 1, 5)
    assert (then.gained, then.lost) == (0, 4)
    assert then.added == tuple(
        case.id for case in found.cases if case.messages[-1].text == "test 991"
    )


@pytest.mark.usefixtures("accepted")
def test_taking_out_the_cases_that_broke_mends_nothing(make_job: Make, backend_of: Any) -> None:
    """Twenty cases broke, at a margin of 5 points: with their rows or without them."""
    backend_of(wrong_every(5))
    kept = [row for at, row in enumerate(ROWS) if at % 10 != 5]
    broken, cut = (again(make_job(evaluate(), test=rows)) for rows in (ROWS, kept))

    assert [broken.exit_code, cut.exit_code] == [1, 1]
    assert broken.gate is not None
    assert cut.gate is not None
    (first,), (second,) = broken.gate.regressions, cut.gate.regressions
    assert first.difference == second.difference == -0.1


@pytest.mark.usefixtures("accepted")
def test_min_cases_does_not_count_cases_that_are_gone(make_job: Make, backend_of: Any) -> None:
    backend_of(wrong_every(10))
    gate = {**GATE, "min_cases": 200}
    assert again(make_job(evaluate(gate), test=ROWS[1:])).exit_code == 3


@pytest.mark.usefixtures("accepted")
@pytest.mark.parametrize("kept", [slice(21, None), slice(None)])
def test_less_overlap_than_nine_tenths_of_either_side_is_an_integrity_error(
    make_job: Make, backend_of: Any, kept: slice
) -> None:
    backend = backend_of(wrong_every(10))
    new = [] if kept.start else [(f"test {at}", "yes") for at in range(500, 523)]
    job = make_job(evaluate(), test=[*ROWS[kept], *new])

    with pytest.raises(IntegrityError, match="a comparison requires 90 % of each"):
        again(job)
    assert backend.requests == [], "refused before anything is paid for"


def test_a_case_with_its_old_id_and_another_content_is_an_integrity_error(
    accepted: Job, backend_of: Any
) -> None:
    backend_of(wrong_every(10))
    first, second, *rest = lines(accepted)
    changed = re.sub('"content": "....', '"content": "0000', second)
    (accepted.folder / "baseline.jsonl").write_text("\n".join([first, changed, *rest]))

    with pytest.raises(IntegrityError, match=json.loads(second)["id"]):
        again(accepted)


@pytest.mark.usefixtures("accepted")
@pytest.mark.parametrize(
    "more",
    [
        {"scorers": [{"type": "exact", "ignore_case": True}]},
        {"scorers": ["contains", "exact"]},
    ],
)
def test_another_metric_or_other_settings_of_it_are_an_integrity_error(
    make_job: Make, backend_of: Any, more: dict[str, Any]
) -> None:
    backend_of(wrong_every(10))

    with pytest.raises(IntegrityError, match="update-baseline"):
        again(make_job(evaluate(**more), test=ROWS))


@pytest.mark.usefixtures("accepted")
def test_a_further_scorer_leaves_the_baseline_standing(make_job: Make, backend_of: Any) -> None:
    backend_of(wrong_every(10))
    job = make_job(evaluate(scorers=["exact", "contains"]), test=ROWS)

    assert again(job).exit_code == 0


def test_a_job_whose_file_is_not_there_says_how_to_write_it(compare_by: Any) -> None:

    with pytest.raises(JobError, match=r"file not found.*--update-baseline"):
        compare_by(wrong_every(10), evaluate())


def test_there_must_be_a_file_to_update(compare_by: Any) -> None:

    with pytest.raises(JobError, match="has no baseline file"):
        compare_by(wrong_every(10), evaluate({"mode": "improve"}), update_baseline=True)


def test_a_file_of_another_kind_is_not_written_over(make_job: Make, backend_of: Any) -> None:
    backend = backend_of(wrong_every(10))
    job = make_job(evaluate(), test=ROWS)
    (job.folder / "baseline.jsonl").write_text("mine\n")

    with pytest.raises(JobError, match="is not a baseline file and will not be overwritten"):
        compare(job, update_baseline=True)
    assert ((job.folder / "baseline.jsonl").read_text(), backend.requests) == ("mine\n", [])


@pytest.mark.parametrize(
    "broken",
    ["", "{}", "<<<<<<< HEAD", '{"id": "a", "content": "b", "scores": {"exact": NaN}}', "LAST"]
    + [f'{{"id": "a", "content": "b", "scores": {{"exact": {score}}}}}' for score in (-1, 1.01)],
)
def test_a_line_that_cannot_be_read_is_named(accepted: Job, broken: str) -> None:
    first, *rest = lines(accepted)
    text = rest[-1] if broken == "LAST" else broken
    (accepted.folder / "baseline.jsonl").write_text("\n".join([first, *rest, text, ""]))

    with pytest.raises(DataError, match=r"baseline\.jsonl:202"):
        again(accepted)


def test_a_file_with_errors_behind_it_is_never_written(make_job: Make, backend_of: Any) -> None:
    backend_of(by_number(lambda at, *, told: "ERROR down" if told and at < 5 else "yes"))
    job = make_job(evaluate(), test=ROWS)

    assert compare(job, update_baseline=True).exit_code == 4
    assert not (job.folder / "baseline.jsonl").exists()


def test_a_pinned_row_that_comes_out_wrong_fails_the_gate_by_name(
    make_job: Make, backend_of: Any
) -> None:
    backend_of(wrong_every(1000))
    plain = make_job(evaluate({"mode": "no-regress"}), test=ROWS)
    wrong = next(case.id for case in compare(plain).cases if case.messages[-1].text == "test 0")
    gate = {"mode": "no-regress", "required_cases": [wrong]}
    found = again(make_job(evaluate(gate), test=ROWS))

    assert found.gate is not None
    assert (1, f"The required case {wrong} is not right.") == (found.exit_code, found.gate.reason)
    assert [case.id for case in found.cases if case.required] == [wrong]


def test_a_row_can_pin_itself_and_stays_the_same_case() -> None:
    plain = Example.model_validate({"messages": [{"role": "user", "content": "hi"}]})
    required = plain.model_copy(update={"required": True})

    assert plain.case_id == required.case_id
    assert plain.case_hash == required.case_hash


def test_an_id_that_no_case_has_is_refused_before_anything_is_asked(
    make_job: Make, backend_of: Any
) -> None:
    backend = backend_of(wrong_every(10))
    job = make_job(evaluate({"mode": "improve", "required_cases": ["nobody"]}))

    with pytest.raises(NotFoundError, match="no case 'nobody'") as caught:
        compare(job)
    assert isinstance(caught.value, UserError)
    assert backend.requests == []


def test_a_metric_over_all_cases_has_no_scores_to_keep(make_job: Make, backend_of: Any) -> None:
    backend = backend_of(wrong_every(10))
    job = make_job(evaluate(scorers=[{"type": "class_f1", "options": ["yes", "no"]}]))

    with pytest.raises(JobError, match="class_f1 is computed over all cases together"):
        compare(job, update_baseline=True)
    assert backend.requests == []


def test_a_guard_may_look_at_a_measure(make_job: Make, backend_of: Any) -> None:
    """The backend of these tests takes a quarter of a second for every answer."""
    backend_of(wrong_every(1000))
    codes = [
        again(
            make_job(
                evaluate(
                    {
                        "mode": "no-regress",
                        "constraints": [{"metric": "latency", "at_most": seconds}],
                    },
                    scorers=["exact", "latency"],
                ),
                test=ROWS,
            )
        ).exit_code
        for seconds in (0.2, 0.25)
    ]

    assert codes == [1, 0]


def test_a_case_without_a_score_is_never_written(tmp_path: Path) -> None:
    case = Example.model_validate({"id": "a", "messages": [{"role": "user", "content": "hi"}]})
    answers = {"a": Answer(text="x", scores={"exact": float("nan")})}

    with pytest.raises(BackendError, match="has no score by exact"):
        baseline.write(tmp_path / "b.jsonl", "exact", (build(Exact()),), [case], answers)
    assert list(tmp_path.iterdir()) == []


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.floats(0, 1), min_size=1))
def test_what_is_written_reads_back_in_the_same_digits(
    tmp_path_factory: pytest.TempPathFactory, scores: dict[str, float]
) -> None:
    path = tmp_path_factory.mktemp("baseline") / "b.jsonl"
    cases = [
        Example.model_validate({"id": name, "messages": [{"role": "user", "content": name}]})
        for name in scores
    ]
    answers = {name: Answer(text="x", scores={"exact": score}) for name, score in scores.items()}
    baseline.write(path, "exact", (build(Exact()),), cases, answers)
    _, found = baseline.read(path)

    assert sorted(scores) == list(found)
    assert {name: baseline.rounded(score) for name, score in scores.items()} == {
        name: line.scores["exact"] for name, line in found.items()
    }


def test_cases_of_one_cluster_say_less_against_the_file_too() -> None:
    """Twenty clusters of five cases each that go right or wrong together."""
    names = [f"{at:03d}" for at in range(100)]
    lines = {name: baseline.Line(id=name, content="", scores={"exact": 1.0}) for name in names}
    then = baseline.Standing("b.jsonl", "exact", lines)
    answers = [Answer(text="x", scores={"exact": float(at // 5 % 4 > 0)}) for at in range(100)]

    def against_file(clusters: list[str] | None) -> Regression:
        cases = [SimpleNamespace(case_id=name) for name in names]
        task = SimpleNamespace(cases=cases, clusters=clusters)
        candidate: Any = SimpleNamespace(task=task, answers=answers)
        (regression,) = baseline.regressions(then, candidate, 0.05)
        return regression

    alone, together = against_file(None), against_file([str(at // 5) for at in range(100)])

    assert (alone.difference, alone.lost) == (-0.25, 25)
    assert alone.difference == together.difference
    assert together.interval[0] < alone.interval[0] < alone.interval[1] < together.interval[1]


def wrong_below(first: int) -> Callable[[str, Request], str]:
    """The candidate is wrong in so many of the first cases."""
    return by_number(lambda at, *, told: "no" if told and at < first else "yes")


def test_losses_within_the_margin_do_not_add_up_past_the_scores_accepted_first(
    make_job: Make, backend_of: Any
) -> None:
    """Each release loses 1.5 points; the third one is 4.5 below the scores accepted first."""
    job = make_job(evaluate(), test=ROWS)
    for wrong in (10, 13, 16):
        backend_of(wrong_below(wrong))
        folder = job.folder / str(wrong)
        found = compare(job, out=folder, update_baseline=True)
        assert found.exit_code == 0
    anchors = [line.get("anchor") for line in map(json.loads, lines(job)[1:])]
    assert (anchors.count(1), anchors.count(None)) == (6, 194)
    backend_of(wrong_below(19))
    found = again(job)
    assert found.exit_code == 1
    assert found.gate is not None
    last, first = found.gate.regressions
    assert last.interval[0] > -0.05
    assert (last.lost, first.lost) == (3, 9)
    assert "worse than when baseline.jsonl was first accepted" in found.gate.reason
    assert "as first accepted: -4.5 points" in words.regressions(found)
    backend_of(wrong_below(10))
    assert compare(job, out=job.folder / "as at first").exit_code == 0


def test_a_case_that_has_changed_gets_a_new_anchor(make_job: Make, backend_of: Any) -> None:
    backend_of(wrong_below(0))
    compare(make_job(evaluate(), test=ROWS), out=None, update_baseline=True)
    backend_of(wrong_below(10))
    changed = [("test 0", "yes"), ("test 1 anew", "yes"), *ROWS[2:]]
    job = make_job(evaluate(), test=changed)
    compare(job, out=job.folder / "changed", update_baseline=True)
    anchors = [line.get("anchor") for line in map(json.loads, lines(job)[1:])]
    assert (anchors.count(1), anchors.count(None)) == (9, 191)
