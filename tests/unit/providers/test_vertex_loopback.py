"""The server that plays Vertex AI refuses what Google refuses, and looks at the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials
from vendors.vertex.vendor import BUCKET, KEY, VertexVendor

from unitune.testing.loopback import serve

pytestmark = pytest.mark.filterwarnings("ignore:The SDK.s tuning implementation")
ROWS, PAIRS = f"gs://{BUCKET}/rows.jsonl", f"gs://{BUCKET}/pairs.jsonl"
BROKEN, ABSENT = f"gs://{BUCKET}/broken.jsonl", f"gs://{BUCKET}/absent.jsonl"
MODEL = "gemini-3.5-flash-lite"
TURN = {"role": "user", "parts": [{"text": "Hi"}]}
ROW: Mapping[str, Any] = {"contents": [TURN, {"role": "model", "parts": [{"text": "Hello"}]}]}
PAIR: Mapping[str, Any] = {"contents": [TURN], "completions": [{"score": 1}, {"score": 0}]}


@pytest.fixture
def client() -> Iterator[genai.Client]:
    vendor = VertexVendor()
    vendor.storage.put(ROWS, f"{json.dumps(ROW)}\n".encode() * 10)
    vendor.storage.put(PAIRS, f"{json.dumps(PAIR)}\n".encode() * 10)
    vendor.storage.put(BROKEN, b'{"contents": []}\nno row\n')
    with (
        serve(vendor) as server,
        genai.Client(
            vertexai=True,
            project="my-project",
            location="us-central1",
            credentials=Credentials(KEY),
            http_options=types.HttpOptions(base_url=server.url),
        ) as client,
    ):
        yield client


def tune(client: genai.Client, rows: str = ROWS, base: str = MODEL, **config: Any) -> Any:
    return client.tunings.tune(
        base_model=base,
        training_dataset=types.TuningDataset(gcs_uri=rows),
        config=types.CreateTuningJobConfig(**config),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": "gemini-of-nobody"},
        {"rows": ABSENT},
        {"validation_dataset": types.TuningValidationDataset(gcs_uri=ABSENT)},
        {"epoch_count": 0},
        {"learning_rate_multiplier": -1.0},
        {"labels": {f"label-{number}": "x" for number in range(65)}},
        {"tuned_model_display_name": "x" * 129},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_what_google_refuses_is_refused_and_makes_no_job(
    client: genai.Client, wrong: dict[str, Any]
) -> None:
    with pytest.raises(errors.ClientError, match="INVALID_ARGUMENT"):
        tune(client, **wrong)
    assert list(client.tunings.list()) == []


@pytest.mark.parametrize(
    ("rows", "method", "ends"),
    [
        (ROWS, "SUPERVISED_FINE_TUNING", "JOB_STATE_SUCCEEDED"),
        (PAIRS, "PREFERENCE_TUNING", "JOB_STATE_SUCCEEDED"),
        (PAIRS, "SUPERVISED_FINE_TUNING", "JOB_STATE_FAILED"),
        (ROWS, "PREFERENCE_TUNING", "JOB_STATE_FAILED"),
        (BROKEN, "SUPERVISED_FINE_TUNING", "JOB_STATE_FAILED"),
    ],
)
def test_a_job_fails_whose_rows_are_not_of_its_method(
    client: genai.Client, rows: str, method: str, ends: str
) -> None:
    job = tune(client, rows, method=method)
    for _ in range(6):
        job = client.tunings.get(name=job.name)
    assert ends == job.state.value
    assert (ends == "JOB_STATE_FAILED") == (job.error is not None)


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (MODEL, {"temperature": 5.0}),
        (MODEL, {"temperature": -1.0}),
        ("gemini-2.5-flash", {"thinking_config": {"thinking_level": "LOW"}}),
    ],
)
def test_settings_of_an_answer_out_of_range_are_refused(
    client: genai.Client, model: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(errors.ClientError, match="INVALID_ARGUMENT"):
        client.models.generate_content(
            model=model, contents="Why?", config=types.GenerateContentConfig(**wrong)
        )
