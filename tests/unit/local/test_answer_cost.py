"""How long answers take here: by what is computed, and by what was measured."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from unitune.backends.local_capabilities import AnswerLoad
from unitune.data.dataset import Dataset
from unitune.data.example import Message
from unitune.data.load import load
from unitune.models import Reply, Request
from unitune_local import machine
from unitune_local.inference import answer_cost
from unitune_local.inference.answer_cost import GUESSED_BAND, MEASURED_BAND, answer_flops
from unitune_local.inference.chat import LocalChatModel
from unitune_local.models.size import empty_model, size_of

pytestmark = pytest.mark.usefixtures("own_cache")
ONE = AnswerLoad(requests=1, own_tokens=0, shared_tokens=0, answer_tokens=4)


@pytest.fixture
def cases(tmp_path: Path) -> Dataset:
    (tmp_path / "test.jsonl").write_text('{"prompt": "Colour of snow?", "completion": "white"}\n')
    return load(tmp_path / "test.jsonl", use="any")


def test_a_size_is_the_models_own_weights(tiny_model: Path) -> None:
    """As transformers counts them: all but embeddings, norms and the output head is linear."""
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    config = model.config
    assert isinstance(config, LlamaConfig)
    layers = sum(weights.numel() for name, weights in model.named_parameters() if "proj" in name)
    size = size_of(empty_model(tiny_model))
    assert (size.linear, size.matrices) == (layers, layers)
    assert size.parameters == model.num_parameters()
    assert size.head == config.vocab_size * config.hidden_size
    assert (size.hidden, size.layers) == (config.hidden_size, config.num_hidden_layers)


def test_shared_tokens_are_computed_once_and_own_ones_for_each(tiny_model: Path) -> None:
    """A model of 10 weights and no head: 2 operations a weight and token, 5 times as dear ones."""
    size = size_of(empty_model(tiny_model))
    products = replace(size, linear=10, head=0, hidden=0)
    assert answer_flops(products, 30, 1_000, 4) == 2 * 10 * (30 + 5 * 4)
    attention = replace(size, linear=0, head=0, hidden=5, layers=1)
    assert answer_flops(attention, 10, 100, 0) == 4 * 5 * 10 * (100 + 5)


def test_time_grows_with_requests_and_own_tokens(tiny_model: Path, cases: Dataset) -> None:
    loads = [ONE, ONE._replace(requests=10**6), ONE._replace(requests=10**6, own_tokens=500)]
    made = [answer_cost.forecast_answers(str(tiny_model), cases, load) for load in loads]
    assert {(each.low_share, each.high_share) for each in made} == {GUESSED_BAND}
    assert {each.measured_on for each in made} == {None}
    assert made[0].seconds < made[1].seconds < made[2].seconds


def test_what_was_measured_replaces_the_guess(
    tiny_model: Path, cases: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a model answers enough on a machine that can; a few tokens say nothing."""
    monkeypatch.setattr(machine, "overloaded", lambda: False)

    def answer() -> None:
        message = Message(role="user", content="hello")
        request = Request(messages=(message,), max_tokens=6)

        async def reply() -> Reply:
            async with LocalChatModel(str(tiny_model)) as model:
                return await model.reply(request)

        assert asyncio.run(reply()).error is None

    answer()
    assert answer_cost.forecast_answers(str(tiny_model), cases, ONE).measured_on is None
    monkeypatch.setattr(answer_cost, "LEAST_FLOPS", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(machine, "overloaded", lambda: True)
        answer()
    assert answer_cost.forecast_answers(str(tiny_model), cases, ONE).measured_on is None
    answer()
    made = answer_cost.forecast_answers(str(tiny_model), cases, ONE)
    assert made.measured_on is not None
    assert (made.low_share, made.high_share) == MEASURED_BAND
