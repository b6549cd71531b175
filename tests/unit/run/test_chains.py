"""Runs that go on from others: from what, what is kept of it, and what a deletion says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unitune import compare
from unitune.errors import DuplicateRunError, Leak, Mismatch, UserError
from unitune.evaluate.prompts.tuned_run import find_tuned_runs
from unitune.job.job import Job
from unitune.ledger.finding import Link
from unitune.models import Start
from unitune.planning.plan import plan
from unitune.planning.preflight import preflight
from unitune.planning.saved import changes
from unitune.report.runs import lineage_facts
from unitune.run.run import Run, find_run, launch
from unitune.testing.fake import FakeJob

from .conftest import MakeJob


@pytest.fixture
def first(make_job: MakeJob) -> Run:
    return launch(make_job({})).wait(0.001)


@pytest.fixture
def continued(make_job: MakeJob, first: Run) -> Job:
    return make_job({}).model_copy(update={"start": first.id[:12]})


def codes(job: Job) -> list[str]:
    return [error.code for error in plan(job).errors]


def test_a_run_goes_on_from_another_and_both_say_so(store: str, first: Run, continued: Job) -> None:
    del store
    made = plan(continued)
    assert Start(run=first.id, model=first.tuned_model) == made.start
    assert f"starts from  run {first.id}" in str(made)

    run = launch(continued).wait(0.001)
    sent = FakeJob.model_validate_json((Path(run.job_id or "") / "job.json").read_text())
    assert made.start == sent.start == find_run(run.id).start
    assert first.id == run.job.start, "the ledger keeps the whole id"
    assert run.lineage == ((Link(first.id, "sft", first.state),), ())
    assert first.lineage == ((), (Link(run.id, "sft", run.state),))
    assert [each[:2] for each in lineage_facts(run)] == [("Started from", f"{first.id} (sft)")]
    assert [each[:2] for each in lineage_facts(first)] == [("Continued by", f"{run.id} (sft)")]


def test_a_chain_is_told_from_its_beginning(first: Run, continued: Job) -> None:
    second = launch(continued).wait(0.001)
    third = launch(continued.model_copy(update={"start": second.id})).wait(0.001)
    assert [link.name for link in third.lineage.ancestors] == [first.id, second.id]
    first.delete(force=True)
    (gone, _), _ = third.lineage
    assert Link(first.id) == gone
    assert f"{first.id} (not a run of this ledger)" in next(lineage_facts(third)).value


def test_the_fingerprint_is_of_the_start_too(first: Run, continued: Job) -> None:
    run = launch(continued)
    assert run.fingerprint != first.fingerprint
    with pytest.raises(DuplicateRunError, match=run.id):
        launch(continued)
    named = continued.model_copy(update={"start": first.id})
    assert run.fingerprint == preflight(named).fingerprint


def test_a_run_that_has_not_ended_is_refused_with_what_to_do(make_job: MakeJob) -> None:
    running = launch(make_job({}))
    job = make_job({"steps": 5}).model_copy(update={"start": running.id})
    (problem,) = plan(job).errors
    assert problem.code == "start-unfinished"
    assert f"unitune runs watch {running.id}" in problem.fix
    running.cancel().wait(0.001)
    (problem,) = plan(job).errors
    assert "or name another run: unitune runs" in problem.fix.lower()


def test_what_cannot_be_started_from_is_an_error_in_the_plan(
    first: Run, continued: Job, tmp_path: Path
) -> None:
    def start(name: str) -> Job:
        return continued.model_copy(update={"start": name})

    assert codes(start("r260101-aaaa")) == ["start-unknown"]
    assert codes(start("no-such-folder")) == ["start-unknown"]
    assert codes(continued.model_copy(update={"model": "other"})) == ["start-other-base"]
    with pytest.raises(Mismatch, match="but model is other"):
        launch(continued.model_copy(update={"model": "other"}))
    at_vendor = {"backend": "together", "model": "Qwen/Qwen3-8B"}
    assert "start-other-backend" in codes(continued.model_copy(update=at_vendor))
    mine = tmp_path / "adapter"
    mine.mkdir()
    assert "start-folder" in codes(start("adapter").model_copy(update=at_vendor))
    at_bedrock = {"backend": "bedrock", "model": "amazon.nova-micro-v1:0:128k"}
    assert "unsupported-start" in codes(continued.model_copy(update=at_bedrock))
    assert first.start is None


def test_a_folder_is_known_by_its_content(make_job: MakeJob, workplace: Path) -> None:
    folder = workplace / "adapter"
    folder.mkdir()
    (folder / "adapter_model").write_text("1")
    job = make_job({}).model_copy(update={"start": "adapter"})
    then = plan(job)
    before = preflight(job).fingerprint
    (folder / "adapter_model").write_text("2")
    assert before != preflight(job).fingerprint
    assert changes(then, plan(job)) == (f"start: the files in {folder} have changed",)


def test_a_saved_job_names_the_same_folder_from_elsewhere(
    make_job: MakeJob, workplace: Path
) -> None:
    (workplace / "adapter").mkdir()
    (workplace / "jobs").mkdir()
    make_job({}).model_copy(update={"start": "adapter"}).save(workplace / "jobs" / "job.yaml")
    moved = Job.load(workplace / "jobs" / "job.yaml")
    assert moved.start == "../adapter"
    run = "r251125-1k3fq7d0x2ab"
    make_job({}).model_copy(update={"start": run}).save(workplace / "jobs" / "job.yaml")
    assert run == Job.load(workplace / "jobs" / "job.yaml").start


def test_a_deletion_says_what_goes_on_from_the_run(first: Run, continued: Job) -> None:
    run = launch(continued)
    with pytest.raises(UserError, match=f"while run {run.id}, which continues from its model"):
        first.inventory()
    run.wait(0.001)
    assert f"(run {run.id}, sft of demo, continues from this run" in first.inventory()[-1]
    first.delete(force=True)
    assert find_run(run.id).start == run.start


def test_cases_that_an_earlier_training_learned_are_leaks_as_well(
    make_job: MakeJob, workplace: Path
) -> None:
    """The first training learned from what is a test case of the second."""
    first = launch(make_job({})).wait(0.001)
    rows = (workplace / "train.jsonl").read_text().splitlines()
    (workplace / "test.jsonl").write_text(rows[0])
    others = [json.loads(row) for row in rows[1:]]
    (workplace / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    job = make_job({})
    data = job.data.model_copy(update={"test": "test.jsonl"})
    job = job.model_copy(update={"data": data, "start": first.id})
    run = launch(job).wait(0.001)
    tuned = find_tuned_runs(preflight(job), run, replay=False)["tuned"]
    assert f"{first.id}/train.jsonl" in [each.name for each in tuned.rows]
    assert f"Run {run.id} continues from run {first.id}" in tuned.notes[0]
    assert tuned.effort.startswith("trained by sft, then sft")
    with pytest.raises(Leak):
        compare(job, run)
