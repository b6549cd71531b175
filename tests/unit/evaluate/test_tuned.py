"""The tuned contender, from a launched run to the verdict, through the real registry."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from unitune.errors import JobError, Leak, Mismatch, NotFoundError, UserError
from unitune.evaluate.compare import compare
from unitune.evaluate.results import Curve
from unitune.job.job import Job
from unitune.report import markdown
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


def trained(job: Job) -> Run:
    run = launch(job)
    while not run.state.ended:
        run.refresh()
    return run


def test_the_newest_succeeded_run_of_this_training_is_judged(job: Job) -> None:
    run = trained(job)
    found = compare(job)
    assert (run.id, "better", 50, 0) == (found.run, found.verdict, found.gained, found.lost)
    assert {"zero-shot": 0.0, "tuned": 50 / 60} == {
        result.name: result.score for result in found.contenders
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
        == found.curve
    )
    assert "trained by sft, 4 steps" == found.contenders[1].effort
    told = {"Tuned model", "Untuned model", "Test cases", "Sampling", "Scorer exact", "unitune"}
    told |= {"Training"}
    assert told == set(found.provenance)


def test_without_a_run_the_error_names_the_command(job: Job) -> None:
    with pytest.raises(NotFoundError, match="unitune run FILE") as caught:
        compare(job)
    assert 2 == caught.value.exit_code


def test_a_run_that_nobody_has_watched_to_its_end_is_found(job: Job) -> None:
    slow = job.options["fake"] | {"seconds_per_step": 0.01}
    waiting = job.model_copy(update={"options": {"fake": slow}})
    run = launch(waiting)
    time.sleep(0.3)
    assert not run.state.ended
    assert run.id == compare(waiting).run


def test_a_run_under_way_is_named(job: Job) -> None:
    run = launch(job)
    with pytest.raises(NotFoundError, match=f"unitune watch {run.id}"):
        compare(job)


def test_a_named_run_must_have_a_model(job: Job) -> None:
    run = launch(job)
    with pytest.raises(UserError, match="has no model to judge"):
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
    assert any("trained on other rows" in note for note in found.notes)


def test_its_own_training_rows_are_searched_for_the_test_cases(job: Job, make_job: Any) -> None:
    run = trained(job)
    test = [("train 3", "yes"), *((f"test {at}", "yes") for at in range(20))]
    train = [(f"new {at}", "x") for at in range(40)]
    changed = scripted(make_job(EVALUATE, train=train, test=test))
    with pytest.raises(Leak, match=r"1 of 21 test cases.*test\.jsonl:1 \(as train\.jsonl:4\)"):
        compare(changed, run)


def test_a_run_of_another_base_is_a_mismatch(job: Job) -> None:
    run = trained(job)
    other = job.model_copy(update={"model": "another-base"})
    with pytest.raises(
        Mismatch, match="tuned base on fake, and the job compares with another-base"
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
        ["system", "user"] == [message.role for message in request.messages]
        for request in backend.requests
    )


def test_the_kept_rows_say_who_was_asked(job: Job) -> None:
    run = trained(job)
    compare(job)
    lines = (run.folder / "evaluation" / "rows.jsonl").read_text().splitlines()
    assert 120 == len(lines)
    assert {"tuned", "zero-shot"} == {json.loads(line)["contender"] for line in lines}


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
    assert {"json_equal": 1.0, "json_valid": 1.0} == tuned.scores


def test_a_replay_without_the_ledger_says_which_model_and_training_it_judges(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in CI, where the rows stand in the repository and nobody knows the run."""
    run = trained(job)
    asked = compare(job, out=tmp_path / "rows")
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "elsewhere"))
    found = compare(job, out=tmp_path / "rows", replay=True)
    assert (asked.verdict, None) == (found.verdict, found.run)
    assert f"training:{run.fingerprint}" == found.provenance["Training"]
    told = f"made by training:{run.fingerprint}, which is the training that the job describes."
    assert any(note.endswith(told) for note in found.notes)
    assert run.fingerprint in markdown.render(found)

    other = job.model_copy(update={"tuning": job.tuning.model_copy(update={"epochs": 9})})
    with pytest.raises(Mismatch, match=f"the rows are of training:{run.fingerprint}"):
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
    with pytest.raises(Leak, match=r"40 of 80 test cases stand in the rows that the run was"):
        compare(cut(make_job, 0.4, leaks=leaks), run)
    assert 20 == compare(cut(make_job, 0.1, leaks=leaks), run).n
