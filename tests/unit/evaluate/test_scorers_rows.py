"""Scorers that rows name themselves: what holds, what is refused, and what a reader sees of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.recorded_jobs import recorded_job
from support.scoring import case, dataset

from unitune.data.dataset import Dataset, Row
from unitune.errors import DataError, JobError
from unitune.evaluate.compare import compare
from unitune.evaluate.readiness import check
from unitune.evaluate.scoring.scorers import (
    build,
    check_expected,
    check_indulgence,
    check_row_scorers,
)
from unitune.report.cases import grouped
from unitune.scorers.functions import PythonFunction
from unitune.scorers.interface import Attempt, Measured, Score, Setting
from unitune.scorers.row_scorers import RowScorers
from unitune.scorers.text import Contains, Exact
from unitune_providers.formats.openai import encode_rft

HAS_A = {"type": "contains", "expected": "a"}
HAS_B = {"type": "contains", "expected": "b"}
NEAR = {"type": "edit_distance", "expected": "abcd"}


def judged(scorers: Any, answer: str, expected: str | None = None, **attempt: Any) -> Score:
    """What a row's scorers say of an answer."""
    return build(RowScorers()).score(Attempt(case(expected, scorers=scorers), answer, **attempt))


HOLDS: list[tuple[Any, str, bool]] = [
    ([HAS_A, HAS_B], "ab", True),
    ([HAS_A, HAS_B], "a", False),
    ([{**HAS_A, "negate": True}], "b", True),
    ([{**HAS_A, "negate": True}], "a", False),
    ([{"type": "contains", "any_of": ["x", "a"]}], "a", True),
    ([{"type": "contains", "all_of": ["x", "a"]}], "a", False),
    ([{"type": "contains", "all_of": ["x", "a"], "negate": True}], "a", True),
    ([{**NEAR, "at_least": 0.75}], "abcx", True),
    ([{**NEAR, "at_least": 0.76}], "abcx", False),
    ([{**NEAR, "at_most": 0.75}], "abcx", True),
    ([NEAR], "abcx", False),
    (["json_valid"], "{}", True),
    ([{**HAS_A, "weight": 0}, HAS_B], "b", True),
    ([[HAS_A], {"scorers": [HAS_B, HAS_A], "at_least": 0.5}], "a", True),
    ({"scorers": [HAS_A, {**HAS_B, "weight": 3}], "at_least": 0.75}, "b", True),
    ({"scorers": [HAS_A, {**HAS_B, "weight": 3}], "at_least": 0.75}, "a", False),
    ({"scorers": [{**NEAR, "negate": True}, HAS_A], "at_least": 0.625}, "abcx", True),
    ({"scorers": [{**NEAR, "negate": True}, HAS_A], "at_least": 0.626}, "abcx", False),
]


@pytest.mark.parametrize(("scorers", "answer", "holds"), HOLDS)
def test_all_of_a_rows_scorers_hold_or_their_weighted_mean_does(
    scorers: Any, answer: str, *, holds: bool
) -> None:
    assert float(holds) == judged(scorers, answer).value


def test_a_row_without_scorers_is_scored_by_the_jobs() -> None:
    spec = build(RowScorers(default=(Contains(), Exact(ignore_case=True))))
    scores = [spec.score(Attempt(case("yes"), text)).value for text in ("yes", "yes!", "YES")]
    assert scores == [1.0, 0.0, 0.0]
    assert build(RowScorers()).score(Attempt(case("yes"), " yes ")).value == 1.0


def test_the_rows_expected_answer_is_compared_with_by_default() -> None:
    assert judged(["contains"], "yes!", "yes").value == 1.0


def test_the_reason_names_what_failed() -> None:
    nested = {"scorers": [HAS_B, {**NEAR, "weight": 2}], "at_least": 0.9}
    assert [
        judged(
            [HAS_A, HAS_B, {"type": "contains", "any_of": ["x", "a"], "negate": True}], "a"
        ).reason,
        judged(nested, "axcd").reason,
    ] == [
        "failed: contains 'b'; not contains any of 'x', 'a'",
        "failed: mean 0.50, below 0.9: contains 'b'; edit_distance 'abcd': scored 0.75",
    ]


def test_a_measure_holds_within_bounds_where_it_is_known() -> None:
    quick = [{"type": "latency", "at_most": 2}]
    assert judged(quick, "a", measured=Measured("a", seconds=2.0)).value == 1.0
    assert judged(quick, "a", measured=Measured("a", seconds=2.1)).value == 0.0
    unknown = judged(quick, "a", measured=Measured("a"))
    assert (
        unknown.failed,
        unknown.reason,
    ) == (True, "latency at most 2: the answer's latency is unknown")


REFUSED: list[tuple[Any, str]] = [
    ([], "`scorers` is [] but must be a list of one or more scorers"),
    ("exact", "must be a list"),
    ([7], "`scorers[0]` is 7, which is not a scorer with a type"),
    (["contians"], "`scorers[0]`: 'contians' is not a scorer. Did you mean 'contains'?"),
    ([HAS_A, {"type": "contains", "ignorecase": 1}], "`scorers[1].ignorecase` is not a known key"),
    ([{"type": "contains"}], "`scorers[0]`: neither the entry nor the row has `expected`"),
    (["latency"], "`scorers[0]` measures the latency and needs at_least or at_most"),
    (["consistency"], "'consistency' is not a scorer"),
    (["row_scorers"], "'row_scorers' is not a scorer"),
    (
        [{"type": "python", "function": "os:system"}],
        "`scorers[0]` names code, which is allowed only in a job",
    ),
    (
        [{"type": "json_schema", "definition": "a.json"}],
        "names a file, which is allowed only in a job",
    ),
    ([{"type": "regex", "pattern": "("}], "`scorers[0].pattern` is '(': not a regular expression"),
    ([{**HAS_A, "all_of": ["b"]}], "give one of expected, any_of and all_of"),
    ([{**HAS_A, "weight": -1}], "`scorers[0].weight` is -1"),
    ({"scorers": ["exact"], "negate": True}, "has the key 'negate'; a list of scorers allows only"),
    ([[[[[[[[HAS_A]]]]]]]], "is nested in more than 5 lists"),
    ([{"type": "contains", "expected": " "}], "`scorers[0]`: the expected answer is empty"),
]


@pytest.mark.parametrize(("scorers", "reason"), REFUSED, ids=lambda item: str(item)[:40])
def test_a_bad_specification_is_named_by_file_and_line(scorers: Any, reason: str) -> None:
    rows = Dataset("test.jsonl", (Row(7, case(None, scorers=scorers)),))
    with pytest.raises(DataError) as refusal:
        check_expected([build(RowScorers())], rows)
    assert reason in str(refusal.value)
    assert (refusal.value.findings[0].file, refusal.value.findings[0].line) == ("test.jsonl", 7)


def test_scorers_that_no_answer_could_fail_are_refused() -> None:
    every = dataset("a", scorers=[{"type": "regex", "pattern": "x*"}, {**HAS_A, "weight": 0}])
    with pytest.raises(JobError, match=r"could never reject an answer to test\.jsonl"):
        check_indulgence([build(RowScorers())], every)
    check_indulgence([build(RowScorers())], dataset("a", scorers=["contains"]))


def test_scorers_of_rows_that_the_job_does_not_read_are_refused() -> None:
    with pytest.raises(DataError, match=r"^test\.jsonl:1: .* \[row_scorers\], or rename the key"):
        check_row_scorers([Exact()], dataset("a", scorers=["contains"]))
    check_row_scorers([RowScorers()], dataset("a", scorers=["contains"]))
    check_row_scorers([Exact()], dataset("a", source="mail"))


def test_code_is_named_in_the_job_and_runs_only_when_an_answer_is_scored(tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
        "def short(answer, case):\n    return len(answer) < case.model_extra['most']\n"
    )
    cases = [{"prompt": "q", "expected": "a", "scorers": ["short"], "most": 3}]
    named = {"type": "python", "name": "short", "function": "checks.py:short"}
    scorers = [{"type": "row_scorers", "named": [named]}]
    job = recorded_job(tmp_path, cases, {}, {}, scorers=scorers)
    assert check(job).errors == ()
    assert not (tmp_path / "ran").exists()
    (spec,) = job.evaluate.scorers
    assert isinstance(spec, RowScorers)
    ready, row = build(spec, Setting(tmp_path)), case(None, scorers=["short"], most=3)
    assert [ready.score(Attempt(row, text)).value for text in ("ab", "abc")] == [1.0, 0.0]
    (tmp_path / "checks.py").write_text("")
    assert ["no function 'short'" in str(error) for error in check(job).errors] == [True]


def test_its_fingerprint_follows_the_jobs_scorers_and_their_code(tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text("def f(answer, case):\n    return True\n")
    spec = RowScorers(named=(PythonFunction(function="checks.py:f"),))
    before = build(spec, Setting(tmp_path)).fingerprint
    (tmp_path / "checks.py").write_text("def f(answer, case):\n    return False\n")
    others = [
        build(spec, Setting(tmp_path)),
        build(RowScorers()),
        build(RowScorers(default=(Contains(),))),
    ]
    assert len({before, *(other.fingerprint for other in others)}) == 4


def test_a_rows_scorers_are_part_of_what_its_score_depends_on() -> None:
    first, second = (case("a", scorers=[each]) for each in ("exact", "contains"))
    assert first.case_hash != second.case_hash
    assert first.input_key == second.input_key


@pytest.mark.parametrize(
    "options", [{"named": ["row_scorers"]}, {"default": []}, {"default": ["length"]}]
)
def test_what_it_cannot_hold_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RowScorers.model_validate(options)


def test_an_answer_that_was_cut_may_be_wrong_already() -> None:
    spec = build(RowScorers())
    exact = {"type": "exact", "any_of": ["no", "yes"]}
    cut = [Attempt(case(None, scorers=[exact]), text) for text in ("ye", "maybe")]
    assert [spec.wrong_already(attempt) for attempt in cut] == [False, True]
    loose = case(None, scorers={"scorers": [exact, HAS_A], "at_least": 0.5})
    assert not spec.wrong_already(Attempt(loose, "maybe"))


def test_a_rows_scorers_are_not_sent_to_a_vendor() -> None:
    assert set(encode_rft(case("a", scorers=["exact"], topic="b"))) == {
        "messages",
        "expected",
        "topic",
    }


def test_a_report_shows_what_was_asserted_and_what_failed(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"c{at}",
            "prompt": f"Say {at}.",
            "scorers": [{"type": "contains", "expected": str(at)}],
        }
        for at in range(12)
    ]
    old = {f"c{at}": "nothing" for at in range(12)}
    new = dict.fromkeys(old, "0 1 2 3 4 5 6 7 8 9 10 11")
    job = recorded_job(tmp_path, rows, old, new, scorers=["row_scorers"])
    comparison = compare(job, out=tmp_path / "out")
    assert (comparison.metric, comparison.gained) == ("row_scorers", 12)
    (gained,) = (group.cases for group in grouped(comparison) if group.cases)
    assert gained[3].expected.pieces[0].text == "contains '3'"
    assert gained[3].baseline.note == "failed: contains '3'"
