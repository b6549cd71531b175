"""What a tuning job says of itself, and what libraries raise, in our words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("google.genai", reason="needs the extra `vertex`")
pytest.importorskip("google.cloud.storage", reason="needs the extra `vertex`")

import httpx2
import requests
from google.api_core import exceptions as core
from google.auth import exceptions as auth
from google.cloud.storage import exceptions as storage
from google.genai import errors, types

from unitune.backends import registry
from unitune.backends.protocol import State
from unitune.errors import BackendError, Unreachable, Unsupported, UserError
from unitune_providers.vertex.errors import vendor_errors
from unitune_providers.vertex.importing import imported
from unitune_providers.vertex.jobs import STATES, events_of, state_of, status_of
from unitune_providers.vertex.options import VertexOptions

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def job(**fields: Any) -> types.TuningJob:
    return types.TuningJob.model_validate({"create_time": NOW, "update_time": NOW, **fields})


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
    assert (State.FAILED, "JOB_STATE_FAILED") == (state_of(ended), status_of(ended, "").raw)


def test_job_without_a_word_is_unknown() -> None:
    seen = status_of(job(), "")
    assert (State.UNKNOWN, "JOB_STATE_UNSPECIFIED") == (seen.state, seen.raw)


def test_expired_job_failed_and_says_so_itself() -> None:
    seen = status_of(job(state="JOB_STATE_EXPIRED"), "")
    assert (State.FAILED, "Vertex AI gives no reason (JOB_STATE_EXPIRED)") == (
        seen.state,
        seen.error,
    )


def test_rows_that_were_left_out_are_a_warning() -> None:
    stats = {
        "tuning_dataset_example_count": 8,
        "total_billable_token_count": 90,
        "tuning_step_count": 4,
        "dropped_example_reasons": ["too long", "too long", "empty"],
    }
    seen = job(state="JOB_STATE_RUNNING", tuning_data_stats={"supervised_tuning_data_stats": stats})
    counted, dropped = events_of(seen)[1:]
    assert {"rows": 8, "billable_tokens": 90, "steps": 4}.items() <= counted.data.items()
    assert ("warning", "Vertex AI left rows out: too long; empty") == (
        dropped.kind,
        dropped.data["text"],
    )


def test_cursor_brings_only_what_is_new_even_if_it_comes_late() -> None:
    first = status_of(job(state="JOB_STATE_RUNNING", end_time=NOW), "")
    later = job(state="JOB_STATE_RUNNING", start_time=NOW, end_time=NOW)
    second = status_of(later, first.cursor)
    assert ["created", "ended"] == [event.key for event in first.events]
    assert ["started"] == [event.key for event in second.events]
    assert () == status_of(later, second.cursor).events


def test_published_name_of_a_base_is_shortened() -> None:
    made = job(
        state="JOB_STATE_SUCCEEDED",
        base_model="publishers/google/models/gemini-3.5-flash",
        tuned_model={"model": "projects/p/locations/l/models/1@1", "endpoint": "e"},
    )
    model = status_of(made, "").model
    assert model is not None
    assert ("gemini-3.5-flash", "e") == (model.base, model.name)


def test_imported_preference_job_keeps_beta() -> None:
    spec = {"training_dataset_uri": "gs://b/t", "hyper_parameters": {"beta": 0.3}}
    found = imported(job(base_model="gemini-3.5-flash", preference_optimization_spec=spec), _rows)
    assert ("dpo", {"beta": 0.3}, b"rows") == (found.method, found.options, found.training)


def test_imported_data_set_that_is_no_file_is_told() -> None:
    spec = {"training_dataset_uri": "projects/p/locations/l/datasets/1"}
    found = imported(job(base_model="gemini-3.5-flash", supervised_tuning_spec=spec), _rows)
    assert found.training is None
    assert "no file in Cloud Storage" in found.notes[0]


def test_other_kinds_of_tuning_cannot_be_imported() -> None:
    with pytest.raises(Unsupported, match="by hand"):
        imported(job(distillation_spec={}), _rows)


def _rows(uri: str) -> bytes | None:
    return b"rows" if uri else None


def test_offer_names_what_options_replace() -> None:
    text = " ".join(registry.offer("vertex").lacks)
    assert "learning_rate_multiplier" in VertexOptions.model_fields
    assert "options.vertex.learning_rate_multiplier" in text


RESPONSE = requests.Response()
RESPONSE.status_code = 503


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (
            errors.ClientError(403, {"error": {"message": "no", "status": "DENIED"}}),
            BackendError,
            403,
        ),
        (errors.ServerError(503, {}), BackendError, 503),
        (core.Forbidden("no"), BackendError, 403),
        (core.RetryError("gave up", core.TooManyRequests("slow")), BackendError, 429),
        (core.RetryError("gave up", requests.ConnectionError("cut")), Unreachable, None),
        (auth.RefreshError("invalid_grant"), BackendError, 401),
        (auth.TransportError("no route"), Unreachable, None),
        (auth.DefaultCredentialsError("none"), UserError, None),
        (storage.InvalidResponse(RESPONSE, "busy"), BackendError, 503),
        (storage.DataCorruption(RESPONSE, "hash differs"), Unreachable, None),
        (requests.Timeout("slow"), Unreachable, None),
        (httpx2.ReadTimeout("slow"), Unreachable, None),
        (httpx2.RemoteProtocolError("cut"), Unreachable, None),
        (json.JSONDecodeError("no json", "<html>", 0), Unreachable, None),
        (ConnectionResetError("reset"), Unreachable, None),
    ],
)
def test_foreign_errors_become_ours(error: Exception, kind: type[Exception], status: int) -> None:
    with pytest.raises(kind, match="to look") as raised, vendor_errors("look"):
        raise error
    assert type(raised.value) is kind
    assert status == getattr(raised.value, "status", None)


def test_our_own_errors_pass_as_they_are() -> None:
    with pytest.raises(KeyError), vendor_errors("look"):
        raise KeyError
