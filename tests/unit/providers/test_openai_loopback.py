"""The server that plays OpenAI refuses what OpenAI refuses, and does not change its mind."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import date
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from unit.providers.openai_spec import CHAT_ROW, GRADED_ROW, GRADER, MODEL, TRIPLE_ROW
from vendors.openai.rows import problem_in
from vendors.openai.vendor import KEY, OpenAIVendor

from unitune.backends import registry
from unitune.job.job import Data, Job
from unitune.planning.feasibility import offer_findings
from unitune.testing.loopback import serve
from unitune.testing.vendor_setup import ServerBehavior

REINFORCED = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}


@pytest.fixture
def vendor() -> OpenAIVendor:
    return OpenAIVendor(ServerBehavior(queued_polls=0, steps=2))


def client(url: str, key: str = KEY) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "gpt-5"}, "not available for fine-tuning"),
        ({"training_file": "file-none"}, "invalid training_file"),
        ({"validation_file": "file-none"}, "invalid validation_file"),
        ({"suffix": "x" * 65}, "Invalid suffix"),
        ({"suffix": "ä b/c.d"}, "Invalid suffix"),
        ({"hyperparameters": {"n_epochs": 99}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"junk": 1}}, "hyperparameters.junk"),
        ({"hyperparameters": {}, "method": {"type": "supervised"}}, "Only one of"),
        ({"model": MODEL, "method": REINFORCED}, "'reinforcement' is not supported"),
        ({"model": "o4-mini-2025-04-16"}, "'supervised' is not supported"),
        ({"seed": -1}, "Invalid seed"),
        ({"metadata": {"k": "v" * 513}}, "Invalid metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "Invalid metadata"),
        ({"method": {"type": "ppo"}}, "method.type"),
        ({"method": {"type": "dpo", "supervised": {}}}, "does not go with type dpo"),
        ({"method": {"type": "reinforcement"}}, "Invalid grader"),
        ({"integrations": [{"type": "wandb"}]}, "Invalid integration"),
        ({"extra_body": {"trainingType": "Standard"}}, "Unrecognized request argument"),
    ],
)
def test_malformed_create_is_refused(
    vendor: OpenAIVendor, wrong: Mapping[str, Any], message: str
) -> None:
    with serve(vendor) as server, client(server.url) as sdk:
        file = sdk.files.create(file=("a.jsonl", (CHAT_ROW * 10).encode()), purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match=message):
            sdk.fine_tuning.jobs.create(**{"model": MODEL, "training_file": file.id, **wrong})
    assert vendor.jobs == {}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("supervised", "n_epochs", 51),
        ("supervised", "n_epochs", 1.5),
        ("supervised", "batch_size", 257),
        ("supervised", "learning_rate_multiplier", 0),
        ("supervised", "beta", 1),
        ("dpo", "beta", 2.1),
        ("reinforcement", "compute_multiplier", 11),
        ("reinforcement", "reasoning_effort", "extreme"),
        ("reinforcement", "eval_interval", 0),
    ],
)
def test_hyperparameter_out_of_bounds_is_refused(
    vendor: OpenAIVendor, kind: str, name: str, value: object
) -> None:
    inner = {"hyperparameters": {name: value}, **({"grader": GRADER} if kind[0] == "r" else {})}
    with serve(vendor) as server, client(server.url) as sdk:
        file = sdk.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match=name):
            sdk.fine_tuning.jobs.create(
                model=MODEL,
                training_file=file.id,
                method={"type": kind, kind: inner},  # type: ignore[misc] - what must be refused
            )


@pytest.mark.parametrize(
    ("method", "row", "message"),
    [
        ("supervised", CHAT_ROW, None),
        ("dpo", TRIPLE_ROW, None),
        ("reinforcement", GRADED_ROW, None),
        ("supervised", GRADED_ROW, "unexpected key 'answer'"),
        ("supervised", '{"messages":[{"role":"bot","content":"x"}]}\n', "unknown role 'bot'"),
        ("supervised", '{"messages":[{"role":"user"}]}\n', "without content"),
        ("supervised", '{"messages":[{"role":"user","content":"x","weight":1}]}\n', "weight"),
        ("supervised", "[]\n", "not a JSON object"),
        ("dpo", CHAT_ROW, "unexpected key 'messages'"),
        ("dpo", TRIPLE_ROW.replace('"assistant"', '"user"'), "must be from the assistant"),
        ("reinforcement", CHAT_ROW, "last message must be from the user"),
    ],
)
def test_rows_are_checked_as_the_vendor_documents_them(
    method: str, row: str, message: str | None
) -> None:
    problem = problem_in((row * 10).encode(), method)
    assert message is None if problem is None else message is not None and message in problem


def test_wrong_key_and_unknown_paths_are_refused(vendor: OpenAIVendor) -> None:
    with serve(vendor) as server:
        with client(server.url, "sk-wrong") as sdk, pytest.raises(openai.AuthenticationError):
            sdk.models.list()
        with client(server.url) as sdk, pytest.raises(openai.NotFoundError):
            sdk.containers.list()


def test_tuned_models_are_listed_until_they_are_deleted(vendor: OpenAIVendor) -> None:
    with serve(vendor) as server, client(server.url) as sdk:
        file = sdk.files.create(file=("a.jsonl", (CHAT_ROW * 10).encode()), purpose="fine-tune")
        job = sdk.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        while job.status != "succeeded":
            job = sdk.fine_tuning.jobs.retrieve(job.id)
        assert job.fine_tuned_model is not None
        assert job.fine_tuned_model in [model.id for model in sdk.models.list()]
        sdk.models.delete(job.fine_tuned_model)
        assert job.fine_tuned_model not in [model.id for model in sdk.models.list()]


def test_job_on_the_clock_ends_by_itself() -> None:
    vendor = OpenAIVendor(ServerBehavior(seconds=0.1, steps=2))
    with serve(vendor) as server, client(server.url) as sdk:
        file = sdk.files.create(file=("a.jsonl", (CHAT_ROW * 10).encode()), purpose="fine-tune")
        job = sdk.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        vendor.jobs[job.id].progress.created -= 1
        assert sdk.fine_tuning.jobs.retrieve(job.id).status == "succeeded"


@pytest.mark.parametrize("model", ["gpt-4.1-nano", "o4-mini", "gpt-6-luna"])
def test_offer_refuses_models_that_cannot_be_tuned(model: str) -> None:
    job = Job(name="colours", model=model, backend="openai", data=Data(train="train.jsonl"))
    findings = offer_findings(job, registry.offer("openai"), date(2026, 11, 25))
    assert {finding.code for finding in findings} == {"refused-model"}


@pytest.mark.parametrize("name", ["openai", "azure", "mantle", "nebius"])
def test_offer_has_a_format_for_each_method(name: str) -> None:
    offer = registry.offer(name)
    assert set(offer.methods) == set(offer.formats)
    assert offer.needs
    assert offer.lacks
    for model in offer.models:
        assert set(model.methods or ()) <= set(offer.methods)


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ({"type": "python"}, "'name'"),
        ({**GRADER, "operation": "is"}, "'operation'"),
        ({"type": "string_check", "name": "x"}, "'input'"),
        (
            {"type": "multi", "name": "m", "graders": {"a": GRADER}, "calculate_output": ")("},
            "calculate_output",
        ),
        (
            {"type": "multi", "name": "m", "graders": {"a": GRADER}, "calculate_output": "a + b"},
            "'b', which is no grader",
        ),
    ],
)
def test_a_grader_without_its_fields_is_refused(
    vendor: OpenAIVendor, grader: Mapping[str, Any], message: str
) -> None:
    with serve(vendor) as server, client(server.url) as sdk:
        file = sdk.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match="Invalid grader") as caught:
            sdk.fine_tuning.jobs.create(
                model="o4-mini-2025-04-16",
                training_file=file.id,
                method={"type": "reinforcement", "reinforcement": {"grader": grader}},  # type: ignore[typeddict-item] - what must be refused
            )
        assert message in str(caught.value)


def test_files_that_no_training_takes_are_refused(vendor: OpenAIVendor) -> None:
    with serve(vendor) as server, client(server.url) as sdk:
        with pytest.raises(openai.BadRequestError, match="empty"):
            sdk.files.create(file=("a.jsonl", b""), purpose="fine-tune")
        batch = sdk.files.create(file=("a.jsonl", CHAT_ROW.encode()), purpose="batch")
        with pytest.raises(openai.BadRequestError, match="invalid training_file"):
            sdk.fine_tuning.jobs.create(model=MODEL, training_file=batch.id)


@pytest.mark.parametrize("limit", [0, 101])
def test_a_limit_out_of_bounds_is_refused(vendor: OpenAIVendor, limit: int) -> None:
    with (
        serve(vendor) as server,
        client(server.url) as sdk,
        pytest.raises(openai.BadRequestError, match="'limit'"),
    ):
        sdk.fine_tuning.jobs.list(limit=limit)


@pytest.mark.parametrize("body", ["{", "[]", '"x"'])
@pytest.mark.parametrize("path", ["/chat/completions", "/fine_tuning/jobs", "/batches"])
def test_a_body_that_is_no_object_is_refused(vendor: OpenAIVendor, path: str, body: str) -> None:
    with serve(vendor) as server:
        answer = httpx2.post(
            f"{server.url}/v1{path}",
            content=body,
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"temperature": 0}, "temperature"),
        ({"max_tokens": 9}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
    ],
)
def test_a_model_that_thinks_refuses_what_it_does_not_take(
    vendor: OpenAIVendor, settings: Mapping[str, Any], param: str
) -> None:
    talk: Any = [{"role": "user", "content": "Why?"}]
    with serve(vendor) as server, client(server.url) as sdk:
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.chat.completions.create(model="gpt-6-luna", messages=talk, **settings)
        assert param == caught.value.param
        answer = sdk.chat.completions.create(
            model="gpt-6-luna", messages=talk, temperature=1, max_completion_tokens=100
        )
    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("length", "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 100


def test_a_call_of_a_tool_without_its_answer_is_refused(vendor: OpenAIVendor) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    talk: Any = [{"role": "assistant", "tool_calls": [call]}, {"role": "user", "content": "?"}]
    with (
        serve(vendor) as server,
        client(server.url) as sdk,
        pytest.raises(openai.BadRequestError, match="did not have response messages: c1"),
    ):
        sdk.chat.completions.create(model=MODEL, messages=talk)


def test_hyperparameters_are_auto_and_then_numbers_and_told_of_supervised_jobs_alone(
    vendor: OpenAIVendor,
) -> None:
    """Epochs as in OpenAI's cookbook: 10 rows are fewer than 100 examples in 3 epochs, so 10."""
    vendor.behavior.queued_polls = 1
    with serve(vendor) as server, client(server.url) as sdk:
        file = sdk.files.create(file=("a.jsonl", (CHAT_ROW * 10).encode()), purpose="fine-tune")
        job = sdk.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        assert job.hyperparameters.n_epochs == "auto"
        while job.status != "succeeded":
            job = sdk.fine_tuning.jobs.retrieve(job.id)
        assert job.hyperparameters.n_epochs == 10
        assert job.trained_tokens == 10 * vendor.jobs[job.id].tokens
        results = sdk.files.content(job.result_files[0]).content
        triples = sdk.files.create(
            file=("b.jsonl", (TRIPLE_ROW * 10).encode()), purpose="fine-tune"
        )
        dpo = sdk.fine_tuning.jobs.create(
            model=MODEL, training_file=triples.id, method={"type": "dpo"}
        )
        assert "hyperparameters" in dpo.to_dict()
        assert dpo.hyperparameters is None
        assert sdk.models.retrieve(MODEL).id == MODEL
    assert base64.b64decode(results).startswith(b"step,total_steps,train_loss")
