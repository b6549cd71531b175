from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.told import PROMPTED, by_number, number, told

from unitune.backends import registry
from unitune.backends.output_limit import LOCAL_ROOM
from unitune.errors import BackendError, DataError, Interrupted, JobError, Leak, UserError
from unitune.evaluate import task
from unitune.evaluate.compare import compare
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.evaluate.inference.journal import read_record
from unitune.job.job import Job
from unitune.models import Request
from unitune.report.files import write_report


def question(request: Request) -> str:
    return request.messages[-1].text


@by_number
def told_is_better(at: int, *, told: bool) -> str:
    """Zero-shot is right in a third of the cases, instructed in all but every tenth."""
    return "yes" if (at % 10 > 0 if told else at % 3 == 0) else "no"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the searches for offers and for families of cases."""
    counted = Counter[str]()

    def count(name: str, search: Callable[..., Any], *arguments: Any) -> Any:
        counted[name] += 1
        return search(*arguments)

    for owner, name in ((registry, "offer"), (task, "families")):
        monkeypatch.setattr(owner, name, partial(count, name, getattr(owner, name)))
    return counted


def test_more_cases_need_no_more_searches_in_the_registry(
    compare_by: Any, calls: Counter[str]
) -> None:
    counts: list[int] = []
    for size in (20, 60):
        compare_by(told_is_better, PROMPTED, test=[(f"test {at}", "yes") for at in range(size)])
        counts.append(calls["offer"])
        calls.clear()
    assert counts[0] == counts[1]


def test_cases_are_grouped_into_families_once(compare_by: Any, calls: Counter[str]) -> None:
    compare_by(told_is_better, PROMPTED)
    assert calls["families"] == 1


def test_the_candidate_is_compared_case_by_case(compare_by: Any) -> None:
    found = compare_by(told_is_better, PROMPTED)
    assert (found.verdict, found.candidate, found.baseline) == ("better", "instructed", "zero-shot")
    assert (found.n, found.gained, found.lost) == (60, 36, 2)
    assert pytest.approx(54 / 60 - 20 / 60) == found.difference
    assert found.interval[0] < found.difference < found.interval[1]
    assert {result.name: result.score for result in found.contenders} == {
        "zero-shot": 20 / 60,
        "instructed": 54 / 60,
    }
    assert found.exit_code == 0


def test_exchanging_the_sides_flips_every_sign(compare_by: Any) -> None:
    one = compare_by(told_is_better, PROMPTED, out=None)
    swapped = {
        "contenders": [
            {"type": "zero-shot", "role": "candidate"},
            {"type": "instructed", "role": "baseline", "instructions": "TOLD"},
        ]
    }
    other = compare_by(told_is_better, swapped)
    assert one.difference == -other.difference
    assert one.interval == (-other.interval[1], -other.interval[0])
    assert (one.gained, one.lost) == (other.lost, other.gained)
    assert one.p_value == other.p_value
    assert (one.verdict, other.verdict) == ("better", "worse")


def three_prompts(rule_of_zero_shot: Any, rule_of_instructed: Any) -> Any:
    """Rules of two baselines by dev or test; the candidate, with its shots, is always right."""

    def rule(_model: str, request: Request) -> str:
        right = rule_of_instructed if told(request) else rule_of_zero_shot
        return "yes" if len(request.messages) > 2 or right(request) else "no"

    return rule


THREE = {
    "contenders": [
        {"type": "zero-shot"},
        {"type": "instructed", "instructions": "TOLD"},
        {"type": "few-shot", "role": "candidate", "shots": 2},
    ]
}


def on_dev(request: Request) -> bool:
    return question(request).startswith("dev")


def test_better_is_said_only_where_it_holds_against_each_baseline(compare_by: Any) -> None:
    """Dev names zero-shot as the best baseline; on test instructed is as good as the candidate."""
    found = compare_by(
        three_prompts(on_dev, lambda request: not on_dev(request)),
        {**THREE, "gate": {"mode": "improve", "min_cases": 1}},
    )
    assert {rival.name: rival.verdict for rival in found.baselines} == {
        "zero-shot": "better",
        "instructed": "equivalent",
    }
    assert [rival.name for rival in found.baselines if rival.best_on_dev] == ["zero-shot"]
    assert (found.baseline, found.verdict, found.exit_code) == ("instructed", "inconclusive", 3)
    assert found.difference == found.gained == 0


def test_better_than_each_baseline_is_better(compare_by: Any) -> None:
    found = compare_by(
        three_prompts(on_dev, lambda request: number(request) % 3 == 0),
        {**THREE, "gate": {"mode": "improve", "min_cases": 1}},
    )
    assert (found.baseline, found.verdict, found.exit_code) == ("instructed", "better", 0)


def test_worse_is_said_only_of_the_baseline_that_dev_chose(compare_by: Any) -> None:
    """The candidate is always wrong; the one baseline that is right did worse on dev."""

    def rule(_model: str, request: Request) -> str:
        shots = len(request.messages) > 2
        return "yes" if not shots and told(request) != on_dev(request) else "no"

    found = compare_by(rule, {**THREE, "gate": {"mode": "no-regress", "min_cases": 1}})
    assert {rival.name: rival.verdict for rival in found.baselines} == {
        "zero-shot": "inconclusive",
        "instructed": "worse",
    }
    assert (found.baseline, found.verdict, found.exit_code) == ("instructed", "inconclusive", 3)


def test_errors_of_any_baseline_are_held_to_the_rule(compare_by: Any) -> None:
    """zero-shot is right on dev and hardest to beat; two of the answers of instructed fail."""

    def rule(_model: str, request: Request) -> str:
        if told(request) and not on_dev(request) and number(request) < 2:
            return "ERROR busy"
        return "yes" if len(request.messages) > 2 or on_dev(request) != told(request) else "no"

    found = compare_by(rule, {**THREE, "gate": {"mode": "improve", "min_cases": 1}})
    assert found.exit_code == 4
    assert "2 of 60 cases ended in an error" in found.gate.reason


def test_of_equal_baselines_the_one_with_more_effort_is_to_be_beaten(
    make_job: Any, backend_of: Any
) -> None:
    backend_of(lambda _model, _request: "no")
    job = make_job(
        {
            "contenders": [
                {"type": "instructed", "instructions": "TOLD"},
                {"type": "zero-shot"},
                {"type": "few-shot", "role": "candidate"},
            ]
        }
    )
    assert compare(job).baseline == "instructed"


def test_few_shot_goes_into_the_test_with_the_prompt_that_was_best_on_dev(
    make_job: Any, backend_of: Any
) -> None:
    """Right with eight shots and no instructions; half right with eight and instructions."""

    def rule(_model: str, request: Request) -> str:
        shots = (len(request.messages) - 2) // 2
        bare = request.messages[0].text == "You sort mail."
        return "yes" if shots == 8 and (bare or number(request) % 2) else "no"

    backend = backend_of(rule)
    job = make_job({"contenders": ["zero-shot", {"type": "few-shot", "role": "candidate"}]})
    found = compare(job)
    few_shot = found.contenders[1]
    assert few_shot.score == 1.0
    assert "tried 6 prompts on 20 dev rows" in few_shot.effort
    assert "chose 8 shots without instructions, 100.0 % right" in few_shot.effort
    asked_test = [request for request in backend.requests if question(request).startswith("test")]
    assert len(asked_test) == 2 * 60


def test_no_text_of_dev_or_test_stands_in_any_prompt_but_the_cases_own_question(
    make_job: Any, backend_of: Any
) -> None:
    backend = backend_of(told_is_better)
    job = make_job(
        {"contenders": ["zero-shot", "instructed", {"type": "few-shot", "role": "candidate"}]},
        test=[(f"test {at}", f"secret-test-{at}") for at in range(20)],
        dev=[(f"dev {at}", f"secret-dev-{at}") for at in range(10)],
    )
    compare(job)
    assert any("label-0" in request.messages[0].text for request in backend.requests)
    for request in backend.requests:
        around = "\n".join(message.text for message in request.messages[:-1])
        assert "secret" not in around
        assert "test " not in around
        assert "dev " not in around


VERDICT_KEYS = {
    "schema_version", "verdict", "metric", "candidate", "baseline", "difference", "interval",
    "level", "p_value", "n", "margin", "contenders", "gate",
}  # fmt: skip
CONTENDER_KEYS = {"name", "role", "score", "interval", "n", "errors", "usd", "seconds"}


def test_the_files_hold_what_machines_and_people_read(compare_by: Any, tmp_path: Path) -> None:
    found = compare_by(
        told_is_better, {**PROMPTED, "gate": {"mode": "improve"}}, out=tmp_path / "out"
    )
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert set(verdict) >= VERDICT_KEYS
    assert all(set(contender) >= CONTENDER_KEYS for contender in verdict["contenders"])
    assert {key: verdict["gate"][key] for key in ("mode", "passed", "exit_code")} == {
        "mode": "improve",
        "passed": True,
        "exit_code": 0,
    }
    assert found.difference == verdict["difference"]
    assert "cases" not in verdict
    write_report(found, tmp_path / "out")
    assert "<html" in (tmp_path / "out" / "report.html").read_text()


def test_files_of_somebody_else_are_not_written_over(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend = backend_of(told_is_better)
    (tmp_path / "summary.md").write_text("mine")
    with pytest.raises(UserError, match=r"summary\.md is not from a comparison"):
        compare(make_job(PROMPTED), out=tmp_path)
    assert ((tmp_path / "summary.md").read_text(), backend.requests) == ("mine", [])


def test_without_a_folder_files_go_into_the_home(compare_by: Any) -> None:
    found = compare_by(told_is_better, PROMPTED)
    assert {"rows.jsonl", "verdict.json"} <= {
        file.name for file in (found.folder or Path()).iterdir()
    }


def test_every_total_can_be_computed_from_the_rows(compare_by: Any, tmp_path: Path) -> None:
    found = compare_by(told_is_better, PROMPTED, out=tmp_path / "out")
    lines = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    rows = [read_record(line) for line in lines]
    for result in found.contenders:
        own = [row for row in rows if row.contender == result.name]
        assert result.n == len({row.case for row in own}) == len(own)
        assert result.score == sum(row.text == "yes" for row in own) / len(own)
        assert result.seconds == sum(row.seconds or 0 for row in own)
        assert result.completion_tokens == sum(row.completion_tokens or 0 for row in own)


def test_a_second_comparison_asks_nothing_and_says_the_same(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend = backend_of(told_is_better)
    job = make_job({"contenders": ["zero-shot", "instructed", _candidate()]})
    first = compare(job, out=tmp_path / "out")
    asked = len(backend.requests)
    again = compare(job, out=tmp_path / "out")
    assert asked == len(backend.requests)
    told, *notes = again.notes
    assert told == "180 of 180 answers were recorded before this call."
    same = {"created": "", "id": None, "notes": tuple(notes)}
    assert first.model_copy(update=same) == again.model_copy(update=same)


def _candidate() -> dict[str, str]:
    return {"type": "few-shot", "role": "candidate"}


def test_a_changed_prompt_is_asked_anew(make_job: Any, backend_of: Any, tmp_path: Path) -> None:
    backend = backend_of(told_is_better)
    compare(make_job(PROMPTED), out=tmp_path / "out")
    before = len(backend.requests)
    changed = json.loads(json.dumps(PROMPTED).replace("TOLD", "TOLD differently"))
    compare(make_job(changed), out=tmp_path / "out")
    assert len(backend.requests) - before == 60


def errors_in(count: int) -> Callable[[str, Request], str]:
    def rule(model: str, request: Request) -> str:
        if told(request) and number(request) < count:
            return "ERROR 503"
        return told_is_better(model, request)

    return rule


@pytest.mark.parametrize(("errors", "code"), [(1, 0), (2, 4)])
def test_errors_score_nothing_are_counted_and_beyond_two_percent_stop_the_gate(
    errors: int, code: int, compare_by: Any
) -> None:
    found = compare_by(errors_in(errors), {**PROMPTED, "gate": {"mode": "improve"}})
    told_result = found.contenders[1]
    assert (errors, code) == (told_result.errors, found.exit_code)
    assert found.n == told_result.n == 60
    case = next(case for case in found.cases if case.messages[-1].text == "test 0")
    assert (
        case.answers["instructed"].scores,
        case.answers["instructed"].error,
    ) == ({"exact": 0.0}, "ERROR 503")
    assert "test 1" not in str(told_result)


def test_errors_are_asked_again_next_time(make_job: Any, backend_of: Any, tmp_path: Path) -> None:
    backend_of(errors_in(6))
    assert compare(make_job(PROMPTED), out=tmp_path / "out").contenders[1].errors == 6
    mended = backend_of(told_is_better)
    assert compare(make_job(PROMPTED), out=tmp_path / "out").contenders[1].errors == 0
    assert len(mended.requests) == 6


def test_a_side_without_any_answer_is_a_failure_of_the_vendor(compare_by: Any) -> None:
    with pytest.raises(BackendError, match="instructed did not answer any of 60 cases"):
        compare_by(errors_in(60), PROMPTED)


LEAKING = [("train 3", "yes"), ("TRAIN  4", "no"), *((f"test {at}", "yes") for at in range(18))]


def test_test_cases_in_train_are_refused_with_their_lines(make_job: Any, backend_of: Any) -> None:
    backend = backend_of(told_is_better)
    with pytest.raises(Leak) as caught:
        compare(make_job(PROMPTED, test=LEAKING))
    assert caught.value.exit_code == 5
    assert "2 of 20 test cases" in str(caught.value)
    assert "test.jsonl:1 (as train.jsonl:4), test.jsonl:2 (as train.jsonl:5)" in str(caught.value)
    assert backend.log == []


def test_test_cases_in_dev_are_leaks_too(compare_by: Any) -> None:
    with pytest.raises(Leak, match=r"test\.jsonl:2 \(as dev\.jsonl:6\)"):
        compare_by(told_is_better, PROMPTED, test=[("test 0", "yes"), ("dev 5", "yes")])


@pytest.mark.parametrize(("leaks", "n"), [("drop", 18), ("allow", 20)])
def test_leaks_are_dropped_and_counted_or_allowed_and_shown(
    leaks: str, n: int, compare_by: Any
) -> None:
    found = compare_by(told_is_better, {**PROMPTED, "leaks": leaks}, test=LEAKING)
    assert (n, leaks, 2) == (found.n, found.leaks.action, len(found.leaks.cases))


def test_nothing_is_left_when_every_case_leaks(compare_by: Any) -> None:
    with pytest.raises(Leak, match="all 2 test cases"):
        compare_by(told_is_better, {**PROMPTED, "leaks": "drop"}, test=LEAKING[:2])


def test_a_shared_system_prompt_is_no_leak(compare_by: Any) -> None:
    found = compare_by(told_is_better, PROMPTED)
    assert found.leaks.cases == ()
    assert found.cases[0].messages[0].text == "You sort mail."


def test_a_case_that_stands_twice_counts_once_and_a_note_says_so(compare_by: Any) -> None:
    cases = [(f"test {at}", "yes") for at in range(10)]
    found = compare_by(told_is_better, PROMPTED, test=[*cases, *cases[:3]])
    assert found.n == 10
    assert any("3 test rows are copies" in note for note in found.notes)


def test_two_cases_under_one_id_are_refused(make_job: Any, backend_of: Any, tmp_path: Path) -> None:
    backend_of(told_is_better)
    job = make_job(PROMPTED)
    rows = [
        {"id": "one", "messages": [{"role": "user", "content": text}], "expected": "yes"}
        for text in ("test 1", "test 2")
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(
        DataError, match=r"test\.jsonl:2: the id 'one' is also used at test\.jsonl:1"
    ):
        compare(job)


def test_a_job_without_test_cases_names_the_key(make_job: Any) -> None:
    job: Job = make_job(PROMPTED)
    bare = job.model_copy(update={"data": job.data.model_copy(update={"test": None})})
    with pytest.raises(JobError, match=r"data\.test"):
        compare(bare)


def test_a_lone_zero_shot_baseline_is_called_weak(compare_by: Any) -> None:
    assert any(
        "without any tuning effort" in note for note in compare_by(told_is_better, PROMPTED).notes
    )


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [("a" * 40, 20), ("a" * 41, 21), ("é" * 10, 20), ("12345", 5), ('{"n": 12}', 6)],
)
def test_the_longest_answer_of_train_sets_the_room(
    answer: str, tokens: int, make_job: Any, backend_of: Any
) -> None:
    backend = backend_of(told_is_better)
    compare(make_job(PROMPTED, train=[("train 1", "x"), ("train 2", answer)]))
    assert {request.max_tokens for request in backend.requests} == {tokens + LOCAL_ROOM}


def test_answers_are_greedy_and_room_can_be_set(make_job: Any, backend_of: Any) -> None:
    backend = backend_of(told_is_better)
    compare(make_job({**PROMPTED, "max_tokens": 7}))
    assert {
        (request.temperature, request.stop, request.max_tokens) for request in backend.requests
    } == {(0.0, (), 7)}


def test_every_contender_is_asked_for_answers_that_follow_the_schema(
    make_job: Any, backend_of: Any
) -> None:
    schema = {"type": "string", "enum": ["x", "y"]}
    backend = backend_of(told_is_better)
    compare(make_job({**PROMPTED, "response_schema": schema}))
    assert backend.requests
    assert all(request.response_schema == schema for request in backend.requests)


def test_every_contender_is_asked_with_the_jobs_chat_template(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}", encoding="utf-8")
    job, kwargs = make_job(PROMPTED), {"enable_thinking": False}
    changed = {"chat_template": "own.jinja", "chat_template_kwargs": kwargs}
    backend = backend_of(told_is_better)
    compare(job.model_copy(update={"data": job.data.model_copy(update=changed)}))
    assert {request.chat_template for request in backend.requests} == {"{{ messages }}"}
    assert all(request.chat_template_kwargs == kwargs for request in backend.requests)


def test_the_base_is_loaded_once_for_all_its_contenders_and_closed(
    make_job: Any, backend_of: Any
) -> None:
    backend = backend_of(told_is_better)
    compare(make_job({"contenders": ["zero-shot", "instructed", _candidate()]}))
    assert backend.log == ["load base", "close base"]


def test_progress_tells_contender_phase_and_prompt(compare_by: Any) -> None:
    told_of: list[EvaluationProgress] = []
    compare_by(told_is_better, PROMPTED, progress=told_of.append)
    assert EvaluationProgress("zero-shot", "test", "the row's own messages", 60, 60) in told_of
    assert EvaluationProgress("instructed", "test", "instructions", 0, 60) in told_of
    assert {asked.phase for asked in told_of} == {"test"}


def test_it_works_where_an_event_loop_runs_already_as_in_a_notebook(
    make_job: Any, backend_of: Any
) -> None:
    backend_of(told_is_better)
    job = make_job(PROMPTED)

    async def cell() -> str:
        return compare(job).verdict

    assert asyncio.run(cell()) == "better"


def test_stopped_by_the_user_it_keeps_what_was_answered(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend = backend_of(told_is_better)
    job = make_job(PROMPTED)

    phases: list[str] = []

    def stop(asked: EvaluationProgress) -> None:
        phases.append(asked.phase)
        if asked.done == 20 and "stopping" not in phases:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        compare(job, out=tmp_path / "out", progress=stop)
    assert caught.value.exit_code == 130
    assert phases[-1] == "stopping", "it was heard at once"
    kept = len((tmp_path / "out" / "rows.jsonl").read_text().splitlines())
    assert kept >= 20
    backend.requests.clear()
    compare(job, out=tmp_path / "out")
    assert len(backend.requests) == 120 - kept


def test_stopped_in_a_notebook_the_asking_ends_too(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(told_is_better)
    job = make_job(PROMPTED)

    def stop(asked: EvaluationProgress) -> None:
        if asked.done == 20:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.1)

    async def cell() -> None:
        compare(job, out=tmp_path / "out", progress=stop)

    loop = asyncio.new_event_loop()
    with pytest.raises(Interrupted):
        loop.run_until_complete(cell())
    loop.close()
    assert 20 <= len((tmp_path / "out" / "rows.jsonl").read_text().splitlines()) < 120


@pytest.mark.parametrize(
    ("choices", "told"),
    [(("random",), True), (("auto",), False), (("nearest",), False), (("random", "auto"), False)],
)
def test_a_stronger_prompt_that_was_left_out_is_named(
    compare_by: Any, choices: tuple[str, ...], *, told: bool
) -> None:
    few_shot = [
        {"type": "few-shot", "name": choice, "shots": 2, "choose": choice} for choice in choices
    ]
    candidate = {"type": "zero-shot", "role": "candidate"}
    notes = compare_by(lambda _model, _request: "yes", {"contenders": [*few_shot, candidate]}).notes
    assert told == any("the nearest training rows of each case" in note for note in notes)


def test_a_first_look_is_no_verdict_and_passes_no_gate(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    """On all 60 cases the candidate is better, and the gate is met: on 20 of them nothing is."""
    backend_of(told_is_better)
    gated = make_job(PROMPTED | {"gate": {"mode": "improve", "required_cases": []}})
    look = compare(gated, out=tmp_path / "out", limit=20)
    write_report(look)
    assert (look.n, look.omitted_cases, look.verdict, look.exit_code) == (20, 40, "inconclusive", 3)
    assert {each.verdict for each in look.baselines} == {"inconclusive"}
    assert look.gate is not None
    assert ("all cases", 3) in [(check.name, check.exit_code) for check in look.gate.checks]
    assert str(look).startswith("preview on 20 of 60 cases, no verdict: ")
    folder = tmp_path / "out" / "first-look"
    for name in ("report.html", "summary.md", "verdict.json", "junit.xml"):
        text = (folder / name).read_text()
        assert "preview on 20 of 60 test cases (--limit) has no verdict" in text
        assert not (tmp_path / "out" / name).exists()
    assert "First look, no verdict" in (folder / "summary.md").read_text()
    whole = compare(gated, out=tmp_path / "out")
    assert (whole.n, whole.omitted_cases, whole.verdict, whole.exit_code) == (60, 0, "better", 0)


def test_a_first_look_has_the_same_cases_each_time_and_the_whole_goes_on_from_its_answers(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    job = make_job(PROMPTED)
    backend = backend_of(told_is_better)
    small, large = (compare(job, out=tmp_path / "out", limit=n) for n in (5, 20))
    names = [{case.id for case in look.cases} for look in (small, large)]
    assert names[0] < names[1]
    assert len(backend.requests) == 2 * 20
    assert compare(job, out=tmp_path / "out").n == 60
    assert len(backend.requests) == 2 * 60
    assert names[1] == {case.id for case in compare(job, out=tmp_path / "other", limit=20).cases}


def test_a_first_look_chooses_prompts_on_few_rows(compare_by: Any) -> None:
    two = {"contenders": [*PROMPTED["contenders"], {"type": "instructed", "name": "other"}]}
    assert [compare_by(told_is_better, two, limit=limit).dev_rows for limit in (7, 60)] == [7, 20]


def test_a_first_look_updates_no_baseline(compare_by: Any) -> None:
    with pytest.raises(UserError, match="a preview"):
        compare_by(told_is_better, PROMPTED, limit=5, update_baseline=True)
