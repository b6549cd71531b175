"""Of a sweep dev chooses the run, and only the chosen run's model answers the test."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from unitune.errors import NotFoundError, OverBudget
from unitune.evaluate.compare import compare
from unitune.job.job import Job
from unitune.models import Request
from unitune.planning.plan import plan
from unitune.render.terminal import view
from unitune.report import files, words
from unitune.report.comparison import describe
from unitune.run.run import Run, launch_sweep

RANKS = (4, 8, 16)
DEV_RIGHT = {4: 5, 8: 12, 16: 12}
"""Of 20 dev rows, by rank; on the test the least of them is the best."""
TEST_RIGHT = {4: 60, 8: 40, 16: 50}


def swept(job: Job, evaluate: dict[str, Any] | None = None, **script: Any) -> Job:
    return Job.model_validate(
        {
            **dict(job),
            "tuning": {"lora": {"rank": list(RANKS)}},
            "options": {"fake": {"steps": 1, "steps_per_poll": 9, **script}},
            "evaluate": evaluate or {"contenders": ["zero-shot", "tuned"]},
        }
    )


def trained(job: Job) -> dict[int, Run]:
    """Launch the runs, and follow them to their ends; return them by rank."""
    runs: dict[int, Run] = {}
    for rank, run in zip(RANKS, launch_sweep(job), strict=True):
        for _ in run.watch(0):
            pass
        runs[rank] = run
    return runs


@pytest.fixture
def job(make_job: Any) -> Job:
    return swept(make_job({}))


class Scores:
    """Answers as many dev rows and test cases right as the run's rank says."""

    def __init__(self, runs: dict[int, Run], dev: dict[int, int] | None = None) -> None:
        self.ranks = {run.id: rank for rank, run in runs.items()}
        self.dev = dev or DEV_RIGHT
        self.asked: set[tuple[int, str]] = set()

    def __call__(self, model: str, request: Request) -> str:
        kind, number = request.messages[-1].text.split()
        rank = next((self.ranks[run] for run in self.ranks if run in model), 0)
        self.asked.add((rank, kind))
        right = {"dev": self.dev, "test": TEST_RIGHT}[kind].get(rank, 0)
        return "yes" if int(number) < right else "no"


def test_dev_alone_chooses_and_of_equals_the_first(job: Job, backend_of: Any) -> None:
    runs = trained(job)
    scores = Scores(runs)
    backend_of(scores)
    comparison = compare(job)
    assert runs[8].id == comparison.run
    assert {each.name: each.score for each in comparison.contenders}["tuned"] == 40 / 60
    assert scores.asked == {(4, "dev"), (8, "dev"), (16, "dev"), (8, "test"), (0, "test")}


def test_a_judge_is_not_asked_about_dev_rows(make_job: Any, backend_of: Any) -> None:
    judge = {"type": "judge", "backend": "fake", "model": "judge", "compare": "better"}
    evaluate = {"contenders": ["zero-shot", "tuned"], "scorers": ["exact", judge]}
    runs = trained(job := swept(make_job({}), evaluate))
    scores = Scores(runs)
    tie = '{"reasons": "none", "verdict": "tie"}'
    backend_of(lambda model, request: tie if model == "judge" else scores(model, request))
    comparison = compare(job)
    assert comparison.run == runs[8].id
    assert (comparison.judges[0].pairs, comparison.judges[0].ties) == (60, 60)


def test_runs_are_chosen_by_dialogues_with_the_simulated_user(
    make_job: Any, backend_of: Any
) -> None:
    user = {"backend": "fake", "model": "customer", "goal": "an answer"}
    evaluate = {"contenders": ["zero-shot", "tuned"], "dialogue": {"user": user}}
    runs = trained(job := swept(make_job({}), evaluate))
    scores, asked = Scores(runs), list[Request]()

    def answer(model: str, request: Request) -> str:
        if model != "customer":
            return scores(model, request)
        asked.append(request)
        return "###STOP###"

    backend_of(answer)
    comparison = compare(job)
    assert comparison.run == runs[8].id
    last = {(each.messages[2].text.split()[0], each.messages[-1].text) for each in asked}
    assert last == {(kind, text) for kind in ("dev", "test") for text in ("yes", "no")}
    before = len(asked)
    assert compare(job).cases == comparison.cases
    assert len(asked) == before


def test_the_comparison_has_every_runs_score_on_dev(job: Job, backend_of: Any) -> None:
    runs = trained(job)
    backend_of(Scores(runs))
    comparison = compare(job)
    assert [
        (each.name, each.run, each.score, each.rows, each.chosen) for each in comparison.sweep
    ] == [
        ("lora.rank=4", runs[4].id, 5 / 20, 20, False),
        ("lora.rank=8", runs[8].id, 12 / 20, 20, True),
        ("lora.rank=16", runs[16].id, 12 / 20, 20, False),
    ]
    said = (
        "Chosen among 3 runs by exact on 20 dev rows. Only the chosen run answered the test, "
        "because the selection score is optimistic."
    )
    assert said == words.swept(comparison)
    page, summary = files.html_page(comparison), files.markdown_summary(comparison)
    for text in ("Chosen among 3", "60.0"):
        assert text in page.replace("\u00a0", " ")
        assert text in summary
    assert "chosen on dev among 3 runs" in comparison.contenders[1].effort
    written = json.loads(comparison.verdict_json())["sweep"]
    assert [each["score"] for each in written] == [0.25, 0.6, 0.6]
    assert view(describe(comparison)) is not None


def test_a_resumed_and_a_replayed_comparison_choose_the_same_without_a_request(
    job: Job, backend_of: Any
) -> None:
    runs = trained(job)
    backend_of(Scores(runs))
    first = compare(job)
    backend = backend_of(Scores(runs))
    again, replayed = compare(job), compare(job, replay=True)
    assert backend.requests == []
    assert first.sweep == again.sweep == replayed.sweep
    assert first.run == replayed.run


def test_a_named_run_is_judged_without_a_choice(job: Job, backend_of: Any) -> None:
    runs = trained(job)
    scores = Scores(runs)
    backend_of(scores)
    comparison = compare(job, runs[4])
    assert (runs[4].id, ()) == (comparison.run, comparison.sweep)
    assert scores.asked == {(4, "test"), (0, "test")}
    assert not any("other rows or settings" in note for note in comparison.notes)


def test_a_run_that_is_missing_or_under_way_is_named(job: Job) -> None:
    with pytest.raises(NotFoundError, match=r"with 'lora\.rank=4'.* `unitune run FILE` launches"):
        compare(job)
    for _ in next(launch_sweep(job)).watch(0):
        pass
    with pytest.raises(NotFoundError, match=r"with 'lora\.rank=8'.* `unitune run FILE` launches"):
        compare(job)


def test_a_run_that_failed_is_left_out_and_told(make_job: Any, backend_of: Any) -> None:
    job = swept(make_job({}), fail_at_step=1)
    failed = trained(job)
    assert {str(run.state) for run in failed.values()} == {"failed"}
    with pytest.raises(NotFoundError, match="All of its runs failed"):
        compare(job)
    others = {rank: failed[rank].resume() for rank in (8, 16)}
    for run in others.values():
        for _ in run.watch(0):
            pass
    backend_of(Scores(others))
    comparison = compare(job)
    assert [each.score for each in comparison.sweep] == [None, 0.6, 0.6]
    assert "Chosen among 2 runs" in words.swept(comparison)
    assert "1 run without a model left out" in words.swept(comparison)


def test_a_run_that_failed_while_nobody_watched_is_left_out(make_job: Any) -> None:
    job = swept(make_job({}), fail_at_step=1, states=[])
    assert not any(run.state.ended for run in launch_sweep(job))
    with pytest.raises(NotFoundError, match="All of its runs failed"):
        compare(job)


def test_too_many_errors_on_dev_leave_no_verdict(job: Job, backend_of: Any) -> None:
    """As where errors may have chosen the wrong prompt."""
    runs = trained(job)
    scores = Scores(runs)

    def failing(model: str, request: Request) -> str:
        text = scores(model, request)
        return "ERROR down" if runs[16].id in model and text == "yes" else text

    backend_of(failing)
    comparison = compare(job)
    assert comparison.verdict == "inconclusive"
    assert "12 of 20 dev rows with lora.rank=16 ended in an error" in (comparison.doubt or "")


def test_answers_on_dev_are_held_to_the_budget_of_the_evaluation(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    prices = {"tuned": {"input": 1000, "output": 0}, "zero-shot": {"input": 0, "output": 0}}
    evaluate = {"contenders": ["zero-shot", "tuned"], "prices": prices}
    job = swept(make_job({}), {**evaluate, "budget": {"usd": 100}})
    backend_of(Scores(trained(job)))
    spent = compare(job).spent_usd
    assert spent == (3 * 20 + 60) * 10 * Decimal("0.001")  # 10 tokens a request, $0.001 each
    assert spent == compare(job).spent_usd
    tight = swept(make_job({}), {**evaluate, "budget": {"usd": 0.5}})
    with pytest.raises(OverBudget):
        compare(tight, out=tmp_path / "elsewhere")


def test_a_plan_forecasts_the_answers_of_every_run_on_dev(job: Job) -> None:
    evaluation = plan(job).evaluation
    assert evaluation is not None
    assert {each.name: each.requests.expected for each in evaluation.contenders}[
        "tuned"
    ] == 3 * 20 + 60


def test_a_first_look_chooses_on_as_few_rows(job: Job, backend_of: Any) -> None:
    backend_of(Scores(trained(job)))
    comparison = compare(job, limit=5)
    assert [each.rows for each in comparison.sweep] == [5, 5, 5]
    assert comparison.omitted_cases
