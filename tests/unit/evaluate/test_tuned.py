"""The tuned contender, from a launched run to the verdict, through the real registry."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.trained_runs import trained

from unitune.errors import JobError, Leak, Mismatch, NotFoundError, UserError
from unitune.evaluate.compare import compare
from unitune.job.job import Job
from unitune.report import files
from unitune.run.curves import Curve
from unitune.run.run import Run, launch

EVALUATE = {"contenders": ["zero-shot", "tuned"]}


def scripted(job: Job, evaluate: dict[str, Any] | None = None) -> Job:
    """The tuned model knows all test answers but the first ten."""
    right = {f"test {at}": "yes" for at in range(10, 60)}
    script = {"steps": 4, "losses": [2, 1.5, 1, 0.5], "tuned": {"replies": right}}
    return Job.model_validate(
        {
            **job.model_dump(),
            "folder": job.folder,
            "options": {"fake": script},
            "evaluate": evaluate or job.evaluate.model_dump(),
        }
    )


@pytest.fixture
def job(make_job: Any) -> Job:
    return scripted(make_job(EVALUATE))


def test_the_newest_succeeded_run_of_this_training_is_judged(job: Job) -> None:
    run = trained(job)
    found = compare(job)
    assert (run.id, "better", 50, 0) == (found.run, found.verdict, found.gained, found.lost)
    assert {result.name: result.score for result in found.contenders} == {
        "zero-shot": 0.0,
        "tuned": 50 / 60,
    }
    assert (run.folder / "evaluation" / "verdict.json").exists()


def test_its_losses_and_settings_are_told(job: Job) -> None:
    trained(job)
    found = compare(job)
    assert (
        Curve(
            steps=(1, 2, 3, 4),
            values=(2, 1.5, 1, 0.5),
            validation_steps=(4,),
            validation_values=(0.5,),
        )
        == found.contenders[1].curve
    )
    assert found.contenders[1].effort == "trained by sft, 4 steps"
    told = {"Tuned model", "Untuned model", "Test cases", "Sampling", "Scorer exact", "unitune"}
    told |= {"Training"}
    assert told == set(found.provenance)


def test_without_a_run_the_error_names_the_command(job: Job) -> None:
    with pytest.raises(NotFoundError, match="unitune run FILE") as caught:
        compare(job)
    assert caught.value.exit_code == 2


def test_a_run_that_nobody_has_watched_to_its_end_is_found(job: Job) -> None:
    slow = job.options["fake"] | {"seconds_per_step": 0.01}
    waiting = job.model_copy(update={"options": {"fake": slow}})
    run = launch(waiting)
    time.sleep(0.3)
    assert not run.state.ended
    assert run.id == compare(waiting).run


def test_a_run_under_way_is_named(job: Job) -> None:
    run = launch(job)
    with pytest.raises(NotFoundError, match=f"unitune runs watch {run.id}"):
        compare(job)


def test_a_named_run_must_have_a_model(job: Job) -> None:
    run = launch(job)
    with pytest.raises(UserError, match="has no model"):
        compare(job, run)


def test_changing_the_evaluation_keeps_the_run(job: Job, make_job: Any) -> None:
    run = trained(job)
    assert run.id == compare(scripted(make_job(EVALUATE | {"margin": 0.1}))).run


def test_a_run_of_other_rows_is_judged_when_named_and_a_note_says_so(
    job: Job, make_job: Any
) -> None:
    run = trained(job)
    changed = scripted(make_job(EVALUATE, train=[(f"new {at}", "x") for at in range(40)]))
    with pytest.raises(NotFoundError):
        compare(changed)
    found = compare(changed, run)
    assert run.id == found.run
    assert any("trained with other rows" in note for note in found.notes)


def test_its_own_training_rows_are_searched_for_the_test_cases(job: Job, make_job: Any) -> None:
    run = trained(job)
    test = [("train 3", "yes"), *((f"test {at}", "yes") for at in range(20))]
    train = [(f"new {at}", "x") for at in range(40)]
    changed = scripted(make_job(EVALUATE, train=train, test=test))
    place = rf"test\.jsonl:1 \(as {run.id}/train\.jsonl:4\)"
    with pytest.raises(Leak, match=f"1 of 21 test cases.*{place}"):
        compare(changed, run)


def test_a_run_of_another_base_is_a_mismatch(job: Job) -> None:
    run = trained(job)
    other = job.model_copy(update={"model": "another-base"})
    with pytest.raises(
        Mismatch, match="tuned base on fake, but the job compares with another-base"
    ):
        compare(other, run)


def test_a_run_is_not_named_in_vain(job: Job) -> None:
    run = trained(job)
    prompted = {"contenders": ["zero-shot", {"type": "instructed", "role": "candidate"}]}
    with pytest.raises(JobError, match="no contender of job 'demo' is tuned"):
        compare(scripted(job, prompted), run)


def test_the_tuned_model_is_asked_with_the_rows_own_messages(job: Job, backend_of: Any) -> None:
    run = trained(job)
    backend = backend_of(lambda name, _request: "no" if name == "base" else "yes")
    compare(job, run)
    assert run.tuned_model is not None
    order = [run.tuned_model.name, "base"]
    assert [word for name in order for word in (f"load {name}", f"close {name}")] == backend.log
    assert all(
        [message.role for message in request.messages] == ["system", "user"]
        for request in backend.requests
    )


def test_the_kept_rows_say_who_was_asked(job: Job) -> None:
    run = trained(job)
    compare(job)
    lines = (run.folder / "evaluation" / "rows.jsonl").read_text().splitlines()
    assert len(lines) == 120
    assert {json.loads(line)["contender"] for line in lines} == {"tuned", "zero-shot"}


def test_json_answers_are_judged_by_value(make_job: Any, tmp_path: Path) -> None:
    rows = [(f"test {at}", '{"intent": "refund", "urgent": true}') for at in range(60)]
    job = make_job({"scorers": ["json_equal", "json_valid"], **EVALUATE}, test=rows)
    dev = job.model_copy(
        update={"data": job.data.model_copy(update={"validation": "json-dev.jsonl"})}
    )
    (tmp_path / "json-dev.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "d"}], "expected": "{}"})
    )
    replies = {f"test {at}": '{"urgent":true,"intent":"refund"}' for at in range(60)}
    told = Job.model_validate(
        {
            **dev.model_dump(),
            "folder": tmp_path,
            "options": {"fake": {"tuned": {"replies": replies}}},
        }
    )
    trained(told)
    tuned = compare(told).contenders[1]
    assert tuned.scores == {"json_equal": 1.0, "json_valid": 1.0}


def test_a_replay_without_the_ledger_says_which_model_and_training_it_judges(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in CI, where the rows stand in the repository and nobody knows the run."""
    run = trained(job)
    asked = compare(job, out=tmp_path / "rows")
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "elsewhere"))
    found = compare(job, out=tmp_path / "rows", replay=True)
    assert (asked.verdict, None) == (found.verdict, found.run)
    assert found.provenance["Training"] == f"training:{run.fingerprint}"
    told = f"of training:{run.fingerprint}, the training described in the job."
    assert any(note.endswith(told) for note in found.notes)
    assert run.fingerprint in files.markdown_summary(found)

    other = job.model_copy(update={"tuning": job.tuning.model_copy(update={"epochs": 9})})
    with pytest.raises(Mismatch, match=f"the rows are from training:{run.fingerprint}"):
        compare(other, out=tmp_path / "rows", replay=True)


def cut(make_job: Any, share: float, **evaluate: Any) -> Job:
    """A job whose test is a share of its 200 training rows."""
    rows = [(f"question {at} about {at * 7919}", "yes") for at in range(200)]
    made = scripted(make_job(EVALUATE | evaluate, train=rows))
    data = made.data.model_copy(update={"test": share, "validation": None})
    return made.model_copy(update={"data": data})


def test_a_test_that_is_cut_from_the_training_file_is_judged_and_told(make_job: Any) -> None:
    job = cut(make_job, 0.2)
    run = trained(job)
    learned = (run.folder / "train.jsonl").read_text()
    found = compare(job)
    assert (40, run.id) == (found.n, found.run)
    assert not any(case.messages[-1].text in learned for case in found.cases)
    assert "The 40 test cases were cut from train.jsonl (data.test: 0.2)" in found.notes[0]


@pytest.mark.parametrize("leaks", ["refuse", "drop"])
def test_a_larger_share_judges_no_run_that_was_trained_on_its_cases(
    make_job: Any, leaks: str
) -> None:
    run = trained(cut(make_job, 0.2, leaks=leaks))
    with pytest.raises(Leak, match=r"40 of 80 test cases are in the rows that the run was"):
        compare(cut(make_job, 0.4, leaks=leaks), run)
    assert compare(cut(make_job, 0.1, leaks=leaks), run).n == 20


V1 = {"type": "tuned", "name": "v1", "role": "reference"}


def two_trainings(job: Job) -> tuple[Run, Run]:
    """Runs of two jobs: the second knows the test answers but the first ten, the other half."""
    half = {f"test {at}": "yes" for at in range(30)}
    script = {"fake": {"steps": 2, "losses": [3, 2], "tuned": {"replies": half}}}
    first = job.model_copy(update={"name": "first", "options": script})
    return trained(first), trained(job)


def test_several_runs_stand_in_one_report_each_under_its_name(job: Job) -> None:
    """v1 is right in 0 to 29, v2 in 10 to 59: v2 alone in 30 cases, v1 alone in 10."""
    v1, v2 = two_trainings(job)
    named = {"contenders": ["zero-shot", V1 | {"run": v1.id}, {"type": "tuned", "run": v2.id}]}
    found = compare(scripted(job, named))
    by_name = {each.name: each for each in found.contenders}
    assert {name: each.score for name, each in by_name.items()} == {
        "zero-shot": 0.0,
        "v1": 30 / 60,
        v2.id: 50 / 60,
    }
    assert (v2.id, v2.id, "zero-shot") == (found.candidate, found.run, found.baseline)
    assert [by_name[name].run for name in ("v1", v2.id)] == [v1.id, v2.id]
    assert by_name["v1"].effort == "trained by sft, 2 steps"
    assert [each.curve.values for each in found.contenders if each.curve] == [
        (3, 2),
        (2, 1.5, 1, 0.5),
    ]
    (beside,) = found.references
    assert (beside.name, beside.baseline, beside.candidate) == ("v1", 0.5, 50 / 60)
    assert pytest.approx(20 / 60) == beside.difference
    assert beside.p_adjusted == beside.p_value
    assert found.provenance["Training of v1"] == f"run:{v1.id}:{v1.fingerprint}"
    page = files.html_page(found)
    assert all(text in page for text in ("Against the references", "The training", v1.id))


def test_a_run_may_be_the_baseline_to_be_beaten(job: Job) -> None:
    v1, _ = two_trainings(job)
    baseline = V1 | {"run": v1.id, "role": "baseline"}
    found = compare(scripted(job, {"contenders": [baseline, "tuned"]}))
    assert (found.baseline, found.gained, found.lost, found.verdict) == ("v1", 30, 10, "better")


def test_two_runs_of_one_training_are_two_models(job: Job) -> None:
    """As one trains twice to see how much chance is in it."""
    runs = [trained(job), trained(job)]
    named = [{"type": "tuned", "run": run.id} for run in runs]
    found = compare(scripted(job, {"contenders": ["zero-shot", named[0] | V1, named[1]]}))
    models = {found.provenance[f"Model of {name}"] for name in ("v1", runs[1].id)}
    assert len(models) == 2


def test_a_run_of_another_base_may_be_named(job: Job) -> None:
    v1 = trained(job.model_copy(update={"model": "another-base"}))
    trained(job)
    found = compare(scripted(job, {"contenders": ["zero-shot", "tuned", V1 | {"run": v1.id}]}))
    assert found.contenders[2].effort == "trained by sft from another-base on fake, 4 steps"


def test_each_runs_own_rows_are_searched_for_the_test_cases(make_job: Any) -> None:
    train = [("test 7", "yes"), *((f"q {at}", "x") for at in range(40))]
    v1 = trained(make_job(EVALUATE, train=train, test=[("unseen", "yes")]))
    again = scripted(make_job({"contenders": ["zero-shot", "tuned", V1 | {"run": v1.id}]}))
    trained(again)
    with pytest.raises(Leak, match=rf"as {v1.id}/train\.jsonl:1"):
        compare(again)


def test_a_run_whose_rows_are_not_here_is_judged_only_where_leaks_are_allowed(job: Job) -> None:
    v1, _ = two_trainings(job)
    (v1.folder / "train.jsonl").unlink()
    (v1.folder / "validation.jsonl").unlink()
    named = {"contenders": ["zero-shot", "tuned", V1 | {"run": v1.id}]}
    with pytest.raises(Mismatch, match=f"the rows of run {v1.id} are not in"):
        compare(scripted(job, named))
    found = compare(scripted(job, named | {"leaks": "allow"}))
    assert any("were not searched" in note for note in found.notes)


def test_several_candidates_are_refused_with_what_to_write(job: Job) -> None:
    both = {"contenders": ["zero-shot", "tuned", {"type": "tuned", "run": "r1"}]}
    with pytest.raises(JobError, match=r"tuned, r1 have the role candidate.*`role: reference`"):
        compare(scripted(job, both))


def test_a_run_for_the_whole_job_is_not_named_beside_runs_of_all_contenders(job: Job) -> None:
    run = trained(job)
    with pytest.raises(JobError, match="is tuned without a run of its own"):
        compare(scripted(job, {"contenders": ["zero-shot", {"type": "tuned", "run": "r2"}]}), run)


def test_newest_is_the_newest_run_of_any_job(job: Job) -> None:
    _, v2 = two_trainings(job)
    named = {"contenders": ["zero-shot", {"type": "tuned", "run": "newest", "name": "new"}]}
    assert v2.id == compare(scripted(job, named)).run


def test_a_replay_without_the_ledger_takes_the_run_of_the_rows_that_the_job_names(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = trained(job)
    named = scripted(job, {"contenders": ["zero-shot", {"type": "tuned", "run": run.id[:12]}]})
    compare(named, out=tmp_path / "rows")
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "elsewhere"))
    found = compare(named, out=tmp_path / "rows", replay=True)
    assert (found.contenders[1].score, found.run) == (50 / 60, None)
    told = f"of run:{run.id}:{run.fingerprint}, the run named in the job."
    assert any(note.endswith(told) for note in found.notes)

    other = scripted(job, {"contenders": ["zero-shot", {"type": "tuned", "run": "r000000"}]})
    other.evaluate.contenders[1].__dict__["name"] = found.candidate
    with pytest.raises(Mismatch, match=f"model is run:r000000, but the rows are from run:{run.id}"):
        compare(other, out=tmp_path / "rows", replay=True)
