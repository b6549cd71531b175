"""Asking over chat completions: what is sent, what a reply holds, and that no request raises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.providers.openai_spec import MODEL, Stage, on_stage

from unitune.data.example import Message, TextPart
from unitune.models import Reply, Request, TunedModel
from unitune.testing.contract_base import reply_once

QUESTION = Message(role="user", content="Colour of snow?")
ASKED = Request(messages=(QUESTION,))
CHAT = "/chat/completions$"


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with on_stage(tmp_path, monkeypatch) as stage:
        stage.vendor.behavior.replies = {"Colour of snow?": "white as can be"}
        yield stage


@pytest.fixture
def tuned(stage: Stage) -> TunedModel:
    model = stage.follow(stage.submit())[-1].model
    assert model is not None
    return model


def ask(stage: Stage, model: str | TunedModel, request: Request = ASKED) -> Reply:
    chat = stage.backend.chat(model)
    return reply_once(chat, request)


def test_tuned_model_answers_with_what_it_used(stage: Stage, tuned: TunedModel) -> None:
    reply = ask(stage, tuned)
    assert (reply.text, reply.finish_reason, reply.error) == ("white as can be", "stop", None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 4)
    assert reply.seconds is not None
    assert 0 < reply.seconds < 10


def test_untuned_model_and_checkpoint_can_be_asked(stage: Stage, tuned: TunedModel) -> None:
    assert ask(stage, MODEL).text == "I do not know."
    early = stage.backend.checkpoints(stage.newest, MODEL)[0].model
    assert early != tuned
    assert ask(stage, early).text == "white as can be"


def test_everything_that_the_request_says_is_sent(stage: Stage) -> None:
    tool = {"type": "function", "function": {"name": "look_up"}}
    talk = (
        Message(role="system", content=(TextPart(type="text", text="Be short."),)),
        Message(role="assistant", content="Yes?", weight=0),
        QUESTION,
    )
    request = Request(
        messages=talk, tools=(tool,), max_tokens=9, temperature=0.5, seed=3, stop=("\n", ".")
    )
    assert ask(stage, MODEL, request).error is None
    assert stage.server.received("POST", CHAT)[-1].json == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Colour of snow?"},
        ],
        "tools": [tool],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "seed": 3,
        "stop": ["\n", "."],
    }


def test_answer_that_is_cut_says_so(stage: Stage, tuned: TunedModel) -> None:
    reply = ask(stage, tuned, Request(messages=(QUESTION,), max_tokens=2))
    assert (reply.text, reply.finish_reason) == ("white as", "length")


def test_refusal_and_filter_are_answers(stage: Stage) -> None:
    stage.vendor.finishes = {"Colour of snow?": "refusal"}
    assert ask(stage, MODEL).finish_reason == "refusal"
    assert ask(stage, MODEL).text == "I cannot help with that."
    stage.vendor.finishes = {"Colour of snow?": "content_filter"}
    reply = ask(stage, MODEL)
    assert (reply.text, reply.finish_reason, reply.error) == ("", "content_filter", None)


def test_fingerprint_names_vendor_and_model(stage: Stage, tuned: TunedModel) -> None:
    assert stage.backend.chat(MODEL).fingerprint == f"openai:{MODEL}"
    assert stage.backend.chat(tuned).fingerprint == f"openai:{tuned.name}"
