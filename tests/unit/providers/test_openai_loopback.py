"""The server that plays OpenAI refuses what OpenAI refuses, and does not change its mind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import openai
import pytest
from openai import OpenAI
from unit.providers.openai_spec import CHAT_ROW, GRADED_ROW, GRADER, MODEL, TRIPLE_ROW

from unitune import registry
from unitune.job import Data, Job
from unitune.planning.feasibility import offer_findings
from unitune.testing.loopback import Conduct, serve
from unitune_providers.loopback.openai.rows import problem_in
from unitune_providers.loopback.openai.vendor import KEY, OpenAIVendor


@pytest.fixture
def vendor() -> OpenAIVendor:
    return OpenAIVendor(Conduct(queued_polls=0, steps=2))


def client(url: str, key: str = KEY) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": "gpt-5"}, "not available for fine-tuning"),
        ({"training_file": "file-none"}, "invalid training_file"),
        ({"validation_file": "file-none"}, "invalid validation_file"),
        ({"suffix": "x" * 65}, "Invalid suffix"),
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
    vendor: OpenAIVendor, wrong: Mapping[str, Any], words: str
) -> None:
    with serve(vendor) as server, client(server.url) as sdk:
        file = sdk.files.create(file=("a.jsonl", (CHAT_ROW * 10).encode()), purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match=words):
            sdk.fine_tuning.jobs.create(**{"model": MODEL, "training_file": file.id, **wrong})
    assert {} == vendor.jobs


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
    ("method", "row", "words"),
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
    method: str, row: str, words: str | None
) -> None:
    problem = problem_in((row * 10).encode(), method)
    assert words is None if problem is None else words is not None and words in problem


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
    vendor = OpenAIVendor(Conduct(seconds=0.1, steps=2))
    with serve(vendor) as server, client(server.url) as sdk:
        file = sdk.files.create(file=("a.jsonl", (CHAT_ROW * 10).encode()), purpose="fine-tune")
        job = sdk.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        vendor.jobs[job.id].progress.created -= 1
        assert "succeeded" == sdk.fine_tuning.jobs.retrieve(job.id).status


@pytest.mark.parametrize(
    ("model", "day", "codes"),
    [
        ("gpt-4.1", date(2026, 11, 25), {"closed-to", "closes", "stops"}),
        ("gpt-4.1", date(2027, 1, 7), {"closed", "stops"}),
        ("gpt-4.1", date(2027, 1, 14), {"closed", "stopped"}),
        ("gpt-4.1-nano", date(2026, 11, 25), {"refused-model"}),
        ("o4-mini", date(2026, 11, 25), {"refused-model"}),
        ("gpt-6-luna", date(2026, 11, 25), {"refused-model"}),
    ],
)
def test_offer_knows_what_ends_when(model: str, day: date, codes: set[str]) -> None:
    job = Job(name="colours", model=model, backend="openai", data=Data(train="train.jsonl"))
    found = offer_findings(job, registry.offer("openai"), day)
    assert codes == {finding.code for finding in found}


@pytest.mark.parametrize("name", ["openai", "azure", "mantle", "nebius"])
def test_offer_has_a_format_for_each_method_and_sources_for_each_price(name: str) -> None:
    offer = registry.offer(name)
    assert set(offer.methods) == set(offer.formats)
    assert offer.needs
    assert offer.lacks
    for model in offer.models:
        assert set(model.methods or ()) <= set(offer.methods)
    assert all(row.source for row in offer.price_rows())
