"""OpenAI's verbs and abilities: what goes over the wire, and what comes back from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from unit.providers.openai_spec import (
    CHAT_ROW,
    GRADED_ROW,
    GRADER,
    LAUNCH_KEY,
    MODEL,
    TRIPLE_ROW,
    Stage,
    on_stage,
)

from unitune.backends.protocol import State
from unitune.errors import BackendError, JobError, NotFoundError, UserError
from unitune.job.job import Preference, Tuning
from unitune.models import Start, TunedModel


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with on_stage(tmp_path, monkeypatch) as stage:
        yield stage


REASONING = "o4-mini-2025-04-16"


def created(stage: Stage) -> dict[str, object]:
    """Return the body of the last create call."""
    return stage.server.received("POST", "/fine_tuning/jobs$")[-1].json


def test_a_start_is_the_model_that_is_trained(stage: Stage) -> None:
    first = stage.backend.submit(stage.launch())
    model = stage.follow(first)[-1].model
    assert model is not None
    launch = stage.launch(key="r251125-1k3fq7d0x2ab-2")
    stage.backend.submit(replace(launch, start=Start(run="r1", model=model)))
    assert model.name.startswith("ft:")
    assert model.name == created(stage)["model"]


def test_a_start_at_another_server_is_refused(stage: Stage) -> None:
    elsewhere = TunedModel(
        backend="openai", name="ft:x@http://127.0.0.1:1/v1", base=stage.vendor.bases[0]
    )
    launch = replace(stage.launch(), start=Start(model=elsewhere))
    with pytest.raises(JobError, match="continue from a model on another server"):
        stage.backend.submit(launch)


def test_file_is_named_by_its_hash_and_found_by_its_name(stage: Stage) -> None:
    first = stage.upload("train.jsonl", CHAT_ROW * 10)
    assert first == stage.upload("train.jsonl", CHAT_ROW * 10)
    (file,) = stage.vendor.files.values()
    assert (first.ref, f"unitune-{first.sha256[:32]}.jsonl") == (file.id, file.name)
    assert (CHAT_ROW * 10).encode() == file.content


def test_file_that_was_cut_short_on_its_way_is_sent_again(stage: Stage) -> None:
    first = stage.upload("train.jsonl", CHAT_ROW * 10)
    cut = stage.vendor.files[first.ref]
    stage.vendor.files[first.ref] = type(cut)(
        cut.id, cut.name, cut.purpose, cut.content[:-1], cut.created
    )
    assert first.ref != stage.upload("train.jsonl", CHAT_ROW * 10).ref


def test_file_is_found_on_a_later_page(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stage.upload("train.jsonl", CHAT_ROW * 10)
    for count in range(11, 15):
        stage.upload("train.jsonl", CHAT_ROW * count)
    monkeypatch.setattr("unitune_providers.openai.wire.Server.files_page", 2)
    assert first == stage.upload("train.jsonl", CHAT_ROW * 10)


def test_create_call_says_what_the_job_says(stage: Stage) -> None:
    launch = stage.launch(
        {"learning_rate_multiplier": 0.5, "wandb": {"project": "colours"}},
        job={"tuning": Tuning(epochs=3, batch_size=8, seed=7)},
    )
    stage.backend.submit(launch)
    assert created(stage) == {
        "model": MODEL,
        "training_file": launch.training.ref,
        "validation_file": launch.validation and launch.validation.ref,
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": 3,
                    "batch_size": 8,
                    "learning_rate_multiplier": 0.5,
                }
            },
        },
        "seed": 7,
        "suffix": "colours",
        "metadata": {"unitune": LAUNCH_KEY},
        "integrations": [{"type": "wandb", "wandb": {"project": "colours"}}],
    }


def test_auto_is_left_to_openai(stage: Stage) -> None:
    stage.submit()
    assert created(stage)["method"] == {"type": "supervised"}
    assert not {"seed", "integrations", "hyperparameters"} & created(stage).keys()


def test_preference_training_takes_beta(stage: Stage) -> None:
    tuning = Tuning(preference=Preference(beta=0.2))
    stage.succeed(rows=TRIPLE_ROW * 10, job={"method": "dpo", "tuning": tuning})
    assert created(stage)["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}


def test_reinforcement_takes_the_grader_as_it_is(stage: Stage) -> None:
    options = {"grader": GRADER, "reasoning_effort": "low", "eval_samples": 2}
    stage.succeed(options, rows=GRADED_ROW * 10, job={"method": "rft", "model": REASONING})
    assert created(stage)["method"]["reinforcement"] == {
        "grader": GRADER,
        "hyperparameters": {"reasoning_effort": "low", "eval_samples": 2},
    }  # type: ignore[index] - JSON


def test_reinforcement_takes_the_jobs_own_scorer_where_it_is_such_a_grader(stage: Stage) -> None:
    """What rewards answers here is sent as it is, with the names that OpenAI requires."""
    part = {key: value for key, value in GRADER.items() if key != "name"}
    grader = {"type": "multi", "graders": {"same": part}, "calculate_output": "same"}
    scorer = {"type": "grader", "grader": grader}
    tuning = Tuning.model_validate({"reward": {"scorers": scorer}})
    job = {"method": "rft", "model": REASONING, "tuning": tuning}
    stage.succeed(rows=GRADED_ROW * 10, job=job)
    sent = {**grader, "name": "grader", "graders": {"same": GRADER}}
    assert created(stage)["method"]["reinforcement"] == {"grader": sent}  # type: ignore[index] - JSON


def test_two_graders_are_one_too_many(stage: Stage) -> None:
    tuning = Tuning.model_validate({"reward": {"scorers": {"type": "grader", "grader": GRADER}}})
    launch = stage.launch({"grader": GRADER}, job={"method": "rft", "tuning": tuning})
    with pytest.raises(JobError, match=r"options\.openai\.grader and tuning\.reward\.scorers both"):
        stage.backend.submit(launch)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("rft", {}, "openai cannot compute the scorer 'exact'.* options.openai.grader"),
        ("sft", {"learning_rate_multiplier": 0}, "options.openai.learning_rate_multiplier is 0"),
        ("sft", {"learning_rate_multiplyer": 1}, "Did you mean 'learning_rate_multiplier'"),
        ("sft", {"wandb": {}}, "options.openai.wandb.project"),
        ("sft", {"base_url": "example.com"}, "options.openai.base_url is not valid: 'example.com'"),
    ],
)
def test_wrong_option_is_named_and_creates_nothing(
    stage: Stage, method: str, options: dict[str, object], message: str
) -> None:
    launch = stage.launch(job={"method": method})
    wrong = launch.job.model_copy(update={"options": {"openai": options}})
    with pytest.raises(JobError, match=message):
        stage.backend.submit(type(launch)(launch.key, wrong, launch.training, None, stage.folder))
    assert stage.server.received("POST", "/fine_tuning/jobs$") == []


def test_missing_key_names_its_variable(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        stage.backend.poll("ftjob-1", "")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        stage.backend.chat(MODEL)


def test_organisation_and_project_are_sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    stage.submit()
    sent = stage.server.requests[-1].headers
    assert (sent["openai-organization"], sent["openai-project"]) == ("org-1", "proj-1")


def test_find_asks_for_the_key_and_checks_it(stage: Stage) -> None:
    job_id = stage.submit()
    stage.submit(key="r0123456789abcdef-2")
    assert stage.backend.find(LAUNCH_KEY, stage.folder) == [job_id]
    assert stage.server.requests[-1].query["metadata[unitune]"] == ["r0123456789abcdef-1"]


def test_find_does_not_trust_a_filter(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(stage.vendor), "filters", False)
    job_id = stage.submit()
    for attempt in range(2, 6):
        stage.submit(key=f"r0123456789abcdef-{attempt}")
    assert stage.backend.find(LAUNCH_KEY, stage.folder) == [job_id]


def test_states_are_ours_and_words_are_the_vendors(stage: Stage) -> None:
    statuses = stage.follow(stage.submit())
    seen = [(status.state, status.raw) for status in statuses]
    assert seen[0] == (State.QUEUED, "queued")
    assert (State.RUNNING, "running") in seen
    assert seen[-1] == (State.SUCCEEDED, "succeeded")


def test_paused_job_goes_on(stage: Stage) -> None:
    job_id = stage.submit()
    stage.backend.pause(job_id)
    assert State.PAUSED is stage.backend.poll(job_id, "").state
    stage.backend.resume(job_id)
    assert State.SUCCEEDED is stage.follow(job_id)[-1].state


def test_steps_have_losses_and_the_last_is_measured(stage: Stage) -> None:
    events = [event for status in stage.follow(stage.submit()) for event in status.events]
    steps = [event.data for event in events if event.kind == "step"]
    assert [data["step"] for data in steps] == [1, 2, 3, 4]
    assert [data["loss"] for data in steps] == [1.0, 0.666667, 0.5, 0.4]
    assert {data["steps"] for data in steps} == {4}
    (measured,) = [event.data for event in events if event.kind == "validation"]
    assert measured == {"step": 4, "steps": 4, "loss": 0.4}
    assert "Fine-tuning job started" in [event.data.get("text") for event in events]


def test_events_of_many_pages_come_once_and_in_order(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune_providers.openai.wire.Server.page", 3)
    stage.vendor.behavior.steps = 20
    statuses = stage.follow(stage.submit())
    keys = [event.key for status in statuses for event in status.events]
    assert len(keys) == len(set(keys))
    assert keys == [event.key for event in stage.backend.poll(stage.newest, "").events]


def test_failure_says_why_in_the_vendors_words(stage: Stage) -> None:
    stage.vendor.behavior.fails = "We ran out of luck."
    status = stage.follow(stage.submit())[-1]
    assert (status.state, status.model) == (State.FAILED, None)
    assert status.error == "We ran out of luck. [server_error]"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (CHAT_ROW * 9, "must have at least 10 examples"),
        ('{"messages":[{"role":"user","content":"x"}]}\n' * 10, "last message must be"),
        ("not json\n" * 10, "Line 1: not valid JSON"),
        (CHAT_ROW * 9 + TRIPLE_ROW, "Line 10"),
    ],
)
def test_unusable_rows_end_the_job(stage: Stage, rows: str, message: str) -> None:
    status = stage.follow(stage.submit(rows=rows))[-1]
    assert State.FAILED is status.state
    assert status.error is not None
    assert message in status.error
    assert "[invalid_training_file]" in status.error


def test_deleting_what_is_gone_is_no_error(stage: Stage) -> None:
    status = stage.follow(stage.submit())[-1]
    ref = stage.launch().training.ref
    for _ in range(2):
        stage.backend.delete_file(ref)
        stage.backend.delete_model(status.model)
    assert ref not in stage.vendor.files
    assert status.model is not None
    assert stage.vendor.deleted == {status.model.name}


def test_deleting_what_must_stay_is_an_error(stage: Stage) -> None:
    with pytest.raises(BackendError) as caught:
        stage.backend.delete_model(TunedModel(backend="openai", name=MODEL, base=MODEL))
    assert caught.value.status == 403


def test_checkpoints_are_models_oldest_first(stage: Stage) -> None:
    saved = stage.backend.checkpoints(stage.succeed(), MODEL)
    assert [checkpoint.step for checkpoint in saved] == [2, 4]
    assert saved[0].model.name.endswith(":ckpt-step-2")
    assert saved[0].metrics["train_loss"] == 0.666667


def test_import_brings_files_and_hyperparameters(stage: Stage) -> None:
    job_id = stage.succeed(
        {"wandb": {"project": "colours"}},
        rows=TRIPLE_ROW * 10,
        job={
            "method": "dpo",
            "tuning": Tuning(epochs=3, seed=7, preference=Preference(beta=0.2)),
        },
    )
    imported = stage.backend.import_job(job_id)
    assert (imported.base_model, imported.method) == (MODEL, "dpo")
    assert (TRIPLE_ROW * 10).encode() == imported.training == imported.validation
    # What the vendor chose is reported as if it had been requested.
    assert imported.tuning == {
        "epochs": 3,
        "batch_size": 1,
        "seed": 7,
        "preference": {"beta": 0.2},
    }
    wandb = {"project": "colours"}
    assert imported.options == {"learning_rate_multiplier": 1.8, "wandb": wandb}
    assert imported.model is not None
    assert imported.notes == ()


def test_import_says_which_file_is_gone(stage: Stage) -> None:
    launch = stage.launch()
    job_id = stage.backend.submit(launch)
    stage.backend.delete_file(launch.training.ref)
    imported = stage.backend.import_job(job_id)
    assert imported.training is None
    assert imported.model is None
    assert launch.training.ref in imported.notes[0]


def test_import_of_no_job_is_an_unknown_name(stage: Stage) -> None:
    with pytest.raises(NotFoundError, match="no-such-job"):
        stage.backend.import_job("no-such-job")
