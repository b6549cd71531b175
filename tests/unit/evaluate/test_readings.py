"""Errors, cut answers and tests in which nothing is right are nobody's gain."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.scoring import attempt
from support.told import PAIR, by_number
from typer.testing import CliRunner

from unitune.evaluate.compare import compare
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.scoring.scorers import build
from unitune.main import app
from unitune.models import Request
from unitune.scorers.json_text import JsonEqual, JsonValid
from unitune.scorers.text import Exact

ROWS = [(f"test {at}", "yes") for at in range(200)]

Answer = Callable[[int], str]


def rule(baseline: Answer, candidate: Answer) -> Callable[[str, Request], str]:
    """What each says to the case of a number."""
    return by_number(lambda at, *, told: candidate(at) if told else baseline(at))


def right(number: int) -> str:
    """Right in nine of ten cases."""
    return "no" if number % 10 == 0 else "yes"


def failing(answer: Answer, *numbers: int, how: str = "ERROR down") -> Answer:
    """The same, but for some cases."""
    return lambda number: how if number in numbers else answer(number)


@pytest.fixture
def judged(make_job: Any, backend_of: Any, tmp_path: Path) -> Callable[..., Comparison]:
    calls = count()

    def judge(
        baseline: Answer, candidate: Answer, mode: str = "improve", **evaluate: Any
    ) -> Comparison:
        backend_of(rule(baseline, candidate))
        gate = {"mode": mode} | ({"threshold": 0.8} if mode == "absolute" else {})
        settings = {"contenders": PAIR, "gate": gate, **evaluate}
        return compare(make_job(settings, test=ROWS), out=tmp_path / f"out{next(calls)}")

    return judge


BELOW_TWO_PERCENT = (11, 22, 33, 44)
MARGIN = 0.01
"""So small that four cases of 200 may decide."""


def test_errors_of_the_baseline_alone_are_no_gain(judged: Any) -> None:
    """Both give the same answers; without the rule four errors are no difference of 2 points."""
    found = judged(failing(right, *BELOW_TWO_PERCENT), right, margin=MARGIN)
    assert (found.gained, found.lost) == (4, 0)
    assert found.interval[0] > -MARGIN
    assert (found.verdict, found.exit_code) == ("inconclusive", 4)
    assert "The verdict depends on 4 cases in error" in found.doubt


def test_errors_of_the_candidate_alone_are_no_loss(judged: Any) -> None:
    found = judged(right, failing(right, *BELOW_TWO_PERCENT), "no-regress", margin=MARGIN)
    assert found.interval[1] < 0
    assert (found.verdict, found.exit_code) == ("inconclusive", 4)


@pytest.mark.parametrize("at", range(0, 200, 40))
def test_what_is_far_apart_stays_so_with_a_few_errors(judged: Any, at: int) -> None:
    found = judged(failing(lambda _: "no", at), right)
    assert (found.verdict, found.exit_code, found.doubt) == ("better", 0, None)
    lost = judged(failing(right, at), lambda n: "no" if n else "yes")
    assert (lost.verdict, lost.exit_code) == ("worse", 1)


def test_a_line_that_only_one_reading_reaches_is_not_missed_by_errors(judged: Any) -> None:
    """Of 200 cases 42 are right; with errors as right the interval reaches the line of 28 %."""

    def some(number: int) -> str:
        return "yes" if number < 42 else "no"

    gate = {"mode": "absolute", "threshold": 0.28}
    assert judged(right, some, gate=gate).exit_code == 1
    assert judged(right, failing(some, 180, 181, 182, 183), gate=gate).exit_code == 4


def test_a_line_of_a_metric_that_should_be_low_is_not_kept_by_errors(
    judged: Any, tmp_path: Path
) -> None:
    (tmp_path / "f.py").write_text("def f(answer, case):\n    return 0.0\n")
    low = {"type": "python", "name": "bad", "function": "f.py:f"}
    gate = {"mode": "no-regress", "constraints": [{"metric": "bad", "at_most": 0.01}]}
    whole = judged(right, right, scorers=["exact", low], gate=gate)
    failed = judged(right, failing(right, *BELOW_TWO_PERCENT), scorers=["exact", low], gate=gate)
    assert [whole.exit_code, failed.exit_code] == [0, 4]


CUT = "CUT"
"""Hidden reasoning has taken all tokens."""


@pytest.mark.parametrize(("text", "scorer"), [(CUT, "exact"), ("CUTLet me see. The", "contains")])
def test_cut_answers_of_a_baseline_are_no_victory(judged: Any, text: str, scorer: str) -> None:
    """All its answers are cut before they come to the point, as a reasoning model's are."""
    found = judged(lambda _: text, right, max_tokens=19, scorers=[scorer])
    assert (found.verdict, found.exit_code) == ("inconclusive", 3)
    told = "zero-shot: 200 of 200 answers were cut off at 19 tokens before they could be scored"
    assert told in found.doubt
    assert [result.cut for result in found.contenders] == [200, 0]


def test_what_no_further_word_could_have_mended_is_wrong(judged: Any) -> None:
    """A small model that goes on and on is wrong where the answer should have been one word."""
    found = judged(lambda _: "CUTYes, dear customer, and", right)
    assert (found.verdict, found.exit_code, found.doubt) == ("better", 0, None)
    assert [result.cut for result in found.contenders] == [200, 0]


@pytest.mark.parametrize(
    ("spec", "expected", "wrong", "open_"),
    [
        (Exact(), "yes sir", ["yes m", " no", "yes sir."], ["", " yes", "yes sir \n", "yes "]),
        (Exact(ignore_case=True), "Yes", ["no", "yess"], ["y", "YES\n"]),
        (JsonEqual(), '{"a": 1}', ["Sure! {", '{"a": 1} ok', "```"], ["", ' {"a"', '{"a": 1}\n']),
        (JsonValid(), "", ["It", '"a" b', "[1] 2"], ["tr", "-", "12", '"a', "[1"]),
    ],
)
def test_a_scorer_says_which_beginnings_are_wrong_already(
    spec: Any, expected: str, wrong: list[str], open_: list[str]
) -> None:
    scorer = build(spec)
    assert [True] * len(wrong) == [scorer.wrong_already(attempt(one, expected)) for one in wrong]
    assert [False] * len(open_) == [scorer.wrong_already(attempt(one, expected)) for one in open_]


def test_cut_answers_of_a_candidate_are_neither_a_defeat_nor_a_pass(judged: Any) -> None:
    assert judged(right, lambda _: CUT).exit_code == 3
    assert judged(right, lambda _: CUT, "no-regress").exit_code == 3
    assert judged(right, lambda _: CUT, "absolute").exit_code == 3
    # Right before they were cut: what else they would have said is not known.
    naming = judged(lambda _: "no", lambda _: "CUTyes, and", scorers=["contains"])
    assert (naming.contenders[1].score, naming.contenders[0].score) == (1.0, 0.0)
    assert (naming.verdict, naming.exit_code) == ("inconclusive", 3)


@pytest.mark.parametrize("mode", ["improve", "no-regress"])
@pytest.mark.parametrize(("cut", "code"), [(100, 0), (199, 3)])
def test_a_verdict_stands_where_it_would_were_all_cut_answers_right(
    judged: Any, mode: str, cut: int, code: int
) -> None:
    """Half of a baseline's answers do not make up for the wrong half; 199 of 200 do."""

    def wrong(number: int) -> str:
        return CUT if number < cut else "no"

    done = judged(wrong, right, mode)
    assert code == done.exit_code, done.doubt


def test_a_reference_that_is_cut_is_shown_and_decides_nothing(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(lambda _model, request: CUT if len(request.messages) > 2 else "yes")
    reference = {"type": "few-shot", "role": "reference", "shots": 2}
    job = make_job({"contenders": [*PAIR, reference], "gate": {"mode": "no-regress"}}, test=ROWS)
    path = tmp_path / "unitune.yaml"
    path.write_text(json.dumps(job.model_dump(mode="json", exclude={"folder"}, exclude_none=True)))
    done = CliRunner().invoke(app, ["compare", str(path), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    told = "Answers cut off at max_tokens: few-shot 200 of 200."
    assert told in " ".join(done.output.split())
    assert "| 0 | 200 |" in (tmp_path / "out" / "summary.md").read_text()
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert [result["cut"] for result in verdict["contenders"]] == [0, 0, 200]
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'data-label="Cut off">200</td>' in page


def test_a_pinned_case_that_is_cut_is_not_right(judged: Any) -> None:
    def wrong(_: int) -> str:
        return "no"

    cases = judged(wrong, right).cases
    required = next(case.id for case in cases if case.messages[-1].text == "test 7")
    gate = {"mode": "improve", "required_cases": [required]}
    assert judged(wrong, right, gate=gate).exit_code == 0
    found = judged(wrong, failing(right, 7, how="CUTyes"), gate=gate)
    assert found.exit_code == 3
    assert f"The answer to the required case {required} was cut off." in found.gate.reason


@pytest.mark.parametrize("mode", ["improve", "no-regress", "absolute"])
def test_where_nothing_is_right_no_gate_passes(judged: Any, mode: str) -> None:
    found = judged(lambda _: "no", lambda _: "never", mode)
    assert (found.verdict, found.exit_code) == ("inconclusive", 3)
    assert "Check scorer, template and labels" in found.doubt
    assert "Check scorer, template and labels" in found.gate.reason


def test_where_next_to_nothing_is_right_nobody_is_found_no_worse(judged: Any) -> None:
    """Of 200 cases one is right: a candidate with none would lose half a point, and pass."""
    for mode, code in (("no-regress", 3), ("improve", 3)):
        found = judged(lambda n: "no" if n else "yes", lambda _: "no", mode)
        assert ("inconclusive", code) == (found.verdict, found.exit_code)
        assert "below the margin of 5 points" in found.doubt
    assert judged(lambda n: "no" if n else "yes", right, "no-regress").exit_code == 0


def test_nothing_right_is_accepted_as_no_baseline(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(rule(lambda _: "no", lambda _: "no"))
    gate = {"mode": "no-regress", "baseline": "baseline.jsonl"}
    job = make_job({"contenders": PAIR, "gate": gate}, test=ROWS)
    assert compare(job, out=tmp_path / "out", update_baseline=True).exit_code == 3
    assert not (tmp_path / "baseline.jsonl").exists()


def test_errors_and_cut_answers_are_not_accepted_into_a_baseline(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    """As zeros they would be gains of every later candidate."""
    backend_of(rule(right, failing(failing(right, 11), 12, how=CUT)))
    gate = {"mode": "no-regress", "baseline": "baseline.jsonl"}
    job = make_job({"contenders": PAIR, "gate": gate}, test=ROWS)
    assert compare(job, out=tmp_path / "out", update_baseline=True).exit_code == 0
    assert len((tmp_path / "baseline.jsonl").read_text().splitlines()) == 198 + 1


def test_no_missing_answer_can_turn_a_verdict(judged: Any) -> None:
    """Whatever the missing answers are filled with, better stays better."""
    random = np.random.default_rng(5)
    names = [int(at) for at in random.choice(200, 4, replace=False)]
    wrong: Answer = lambda n: "no" if n % 3 else "yes"  # noqa: E731 - one line
    verdict = judged(failing(wrong, *names), right).verdict
    assert verdict == "better"
    for filled in ("yes", "no"):
        assert verdict == judged(failing(wrong, *names, how=filled), right).verdict


def test_errors_of_a_reference_are_no_gain_of_the_candidate(compare_by: Any) -> None:
    """All three are right wherever they answer; the reference does not in 50 of 200 cases."""

    def answer(_model: str, request: Request) -> str:
        kind, number = request.messages[-1].text.split()
        shown = len(request.messages) > 2
        return "ERROR 500" if shown and kind == "test" and int(number) < 50 else "yes"

    reference = {"type": "few-shot", "role": "reference", "shots": 2}
    (beside,) = compare_by(answer, {"contenders": [*PAIR, reference]}, test=ROWS).references
    assert (beside.n, beside.difference, beside.p_value) == (150, 0.0, 1.0)


def test_the_interval_is_given_with_cut_answers_counted_both_ways(judged: Any) -> None:
    """That of the answers as they stand would contradict the verdict beside it."""

    def rambling(number: int) -> str:
        return CUT if number < 150 else "no"

    found = judged(rambling, right)
    (only,) = found.baselines
    low, high = only.bounds
    assert low < 0.3 < only.interval[0] < only.interval[1] <= high
    (whole,) = judged(lambda _: "no", right).baselines
    assert whole.bounds is None
