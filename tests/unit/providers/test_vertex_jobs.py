"""What a tuning job says of itself, in our words, by the types of Google's own SDK."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.auth import exceptions as auth
from google.genai import types

from unitune.backends import registry
from unitune.backends.protocol import State, Status
from unitune.errors import Unreachable, Unsupported, UserError
from unitune.security.json_fields import Fields
from unitune_providers.vertex import cloud
from unitune_providers.vertex.backend import VertexBackend
from unitune_providers.vertex.jobs import STATES, VertexOptions, events_of, imported, state_of

NOW, LATER = datetime(2026, 11, 25, tzinfo=UTC), datetime(2026, 11, 26, tzinfo=UTC)


def job(**fields: Any) -> Fields:
    """Return a job as the SDK's types write it."""
    made = types.TuningJob.model_validate({"create_time": NOW, "update_time": NOW, **fields})
    return Fields(json.loads(made.model_dump_json(by_alias=True, exclude_none=True)))


def status_of(made: Fields, cursor: str) -> Status:
    """Return what a poll makes of a job."""
    backend = VertexBackend()
    backend._job = lambda _: made
    return backend.poll("a-job", cursor)


def test_every_state_that_the_sdk_knows_is_ours() -> None:
    known = {state.value for state in types.JobState} - {"JOB_STATE_UNSPECIFIED"}
    assert known == set(STATES)


@pytest.mark.parametrize(
    ("finer", "state"),
    [
        ("WAITING_FOR_QUOTA", State.QUEUED),
        ("WAITING_FOR_CAPACITY", State.QUEUED),
        ("PROCESSING_DATASET", State.VALIDATING),
        ("TUNING", State.RUNNING),
        ("POST_PROCESSING", State.RUNNING),
        ("UNSPECIFIED", State.RUNNING),
    ],
)
def test_running_job_is_told_more_finely(finer: str, state: State) -> None:
    word = f"TUNING_JOB_STATE_{finer}"
    seen = status_of(job(state="JOB_STATE_RUNNING", tuning_job_state=word), "")
    assert (state, f"JOB_STATE_RUNNING {word}") == (seen.state, seen.raw)


def test_finer_word_does_not_change_an_end() -> None:
    ended = job(state="JOB_STATE_FAILED", tuning_job_state="TUNING_JOB_STATE_WAITING_FOR_QUOTA")
    assert (state_of(ended), status_of(ended, "").raw) == (State.FAILED, "JOB_STATE_FAILED")


def test_job_without_a_word_is_unknown() -> None:
    seen = status_of(job(), "")
    assert (seen.state, seen.raw) == (State.UNKNOWN, "JOB_STATE_UNSPECIFIED")


def test_expired_job_failed_and_says_so_itself() -> None:
    seen = status_of(job(state="JOB_STATE_EXPIRED"), "")
    assert (
        seen.state,
        seen.error,
    ) == (State.FAILED, "no reason given (JOB_STATE_EXPIRED)")


def test_rows_that_were_left_out_are_a_warning() -> None:
    stats = {
        "tuning_dataset_example_count": 8,
        "total_billable_token_count": 90,
        "tuning_step_count": 4,
        "dropped_example_reasons": ["too long", "too long", "empty"],
    }
    seen = job(state="JOB_STATE_RUNNING", tuning_data_stats={"supervised_tuning_data_stats": stats})
    _, counted, dropped = events_of(seen)
    assert {"rows": 8, "billable_tokens": 90, "steps": 4}.items() <= counted.data.items()
    assert (
        dropped.kind,
        dropped.data["text"],
    ) == ("warning", "Vertex AI dropped rows: too long; empty")


def test_cursor_brings_only_what_is_new_though_the_job_is_updated() -> None:
    epochs = {"completed_epoch_count": 1}
    first = status_of(job(state="JOB_STATE_RUNNING", tuning_job_metadata=epochs), "")
    moved = {"start_time": NOW, "update_time": LATER}
    more = job(state="JOB_STATE_RUNNING", tuning_job_metadata=epochs, **moved)
    second = status_of(more, first.cursor)
    assert [event.key for event in first.events] == ["created", "epoch 1"]
    assert [event.key for event in second.events] == ["started"]
    assert status_of(more, second.cursor).events == ()


def test_published_name_of_a_base_is_shortened() -> None:
    made = job(
        state="JOB_STATE_SUCCEEDED",
        base_model="publishers/google/models/gemini-3.5-flash",
        tuned_model={"model": "projects/p/locations/l/models/1@1", "endpoint": "e"},
    )
    model = status_of(made, "").model
    assert model is not None
    assert (model.base, model.name) == ("gemini-3.5-flash", "e")


def read_rows(uri: str) -> bytes | None:
    return b"rows" if uri else None


def test_imported_preference_job_keeps_beta() -> None:
    spec = {"training_dataset_uri": "gs://b/t", "hyper_parameters": {"beta": 0.3}}
    training_job = imported(
        job(base_model="gemini-3.5-flash", preference_optimization_spec=spec), read_rows
    )
    assert (
        training_job.method,
        training_job.tuning,
        training_job.training,
    ) == ("dpo", {"preference": {"beta": 0.3}}, b"rows")


def test_imported_data_set_that_is_no_file_is_told() -> None:
    spec = {"training_dataset_uri": "projects/p/locations/l/datasets/1"}
    training_job = imported(
        job(base_model="gemini-3.5-flash", supervised_tuning_spec=spec), read_rows
    )
    assert training_job.training is None
    assert "not a file in Cloud Storage" in training_job.notes[0]


def test_other_kinds_of_tuning_cannot_be_imported() -> None:
    with pytest.raises(Unsupported, match="cannot be imported"):
        imported(job(distillation_spec={}), read_rows)


def test_offer_names_what_options_replace() -> None:
    text = " ".join(registry.offer("vertex").lacks)
    assert "learning_rate_multiplier" in VertexOptions.model_fields
    assert "options.vertex.learning_rate_multiplier" in text


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (auth.RefreshError("invalid_grant"), UserError),
        (auth.TransportError("no route"), Unreachable),
        (auth.DefaultCredentialsError("none"), UserError),
    ],
)
def test_credentials_that_give_no_token_are_an_error_of_ours(
    error: Exception, kind: type[Exception]
) -> None:
    class Broken(cloud.TokenCredentials):
        def refresh(self, request: object) -> None:  # noqa: ARG002 - as google-auth calls it
            raise error

    with pytest.raises(kind) as raised:
        cloud.token_of(Broken(None))
    assert type(raised.value) is kind
