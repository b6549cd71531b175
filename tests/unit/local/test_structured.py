"""Answers of a local model that are held to a JSON Schema; jsonschema is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from support.tiny_model import tiny_tokenizer
from transformers import PreTrainedModel

from unitune.data.example import Message
from unitune.models import Request
from unitune.testing.contract_base import reply_once
from unitune_local.inference.answers import Sampling
from unitune_local.inference.chat import LocalChatModel
from unitune_local.inference.generate import generate
from unitune_local.inference.structured import SchemaError, grammar_of

TOKENIZER = tiny_tokenizer()
SCHEMAS: dict[str, Any] = {
    "object": {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "label": {"enum": ["card", "cash", "größer"]}},
        "required": ["ok", "label"],
        "additionalProperties": False,
    },
    "nested": {
        "$defs": {"point": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}},
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}},
        "required": ["at"],
        "additionalProperties": False,
    },
    "choice": {"anyOf": [{"const": None}, {"type": "integer", "minimum": 3, "maximum": 12}]},
}


def follows(text: str, schema: Any) -> bool:
    return Draft202012Validator(schema).is_valid(json.loads(text))


def prompt(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_finished_answer_follows_its_schema(
    model: PreTrainedModel, name: str, temperature: float
) -> None:
    """A model of random weights writes noise where nothing holds it."""
    grammar = grammar_of(SCHEMAS[name])
    settings = [
        Sampling(200, temperature=temperature, seed=seed, grammar=grammar) for seed in range(6)
    ]
    answers = generate(model, TOKENIZER, [prompt(f"hello {at}") for at in range(6)], settings)
    finished = [answer for answer in answers if answer.finish_reason == "stop"]
    assert finished or temperature == 0  # greedy noise may write blanks until its limit
    for answer in finished:
        assert follows(answer.text, SCHEMAS[name])


def test_an_answer_beside_it_is_what_it_is_alone(model: PreTrainedModel) -> None:
    grammar = grammar_of(SCHEMAS["object"])
    prompts = [prompt("hello"), prompt("other")]
    held, free = Sampling(40, grammar=grammar), Sampling(20)
    both = generate(model, TOKENIZER, prompts, [held, free])
    alone = [
        generate(model, TOKENIZER, [ids], [setting])[0]
        for ids, setting in zip(prompts, [held, free], strict=True)
    ]
    assert both == alone


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strin"}, "strin"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"properties": {"a": {"not": {"type": "string"}}}}, "not"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused_by_name(schema: Any, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        grammar_of(schema)


def test_a_local_contender_is_held_to_the_schema_of_its_request(tiny_model: Path) -> None:
    chat = LocalChatModel(str(tiny_model), dtype=torch.float32)
    asked = Request(
        messages=(Message(role="user", content="hello"),),
        max_tokens=200,
        temperature=1.0,
        response_schema=SCHEMAS["object"],
    )
    reply = reply_once(chat, asked)
    assert reply.finish_reason == "stop"
    assert follows(reply.text, SCHEMAS["object"])
    broken = asked.model_copy(update={"response_schema": {"type": "strin"}})
    with pytest.raises(SchemaError, match="strin"):
        reply_once(chat, broken)
