from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.known import known

from unitune.data.example import Message
from unitune.models import Request, TunedModel
from unitune.run.run import launch
from unitune.testing import FakeBackend, Script
from unitune.testing.fake_vendor import events, moment

from .conftest import MakeJob


def ask(model: str | TunedModel, question: str) -> str:
    chat = FakeBackend().chat(model)
    reply = asyncio.run(chat.reply(Request(messages=(Message(role="user", content=question),))))
    return reply.error or reply.text


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    steps = draw(st.integers(1, 9))
    return Script(
        states=tuple(draw(st.lists(st.sampled_from(["queued", "odd"]), max_size=3))),
        steps=steps,
        steps_per_poll=draw(st.integers(1, 4)),
        fail_at_step=draw(st.none() | st.integers(1, steps)),
    )


@given(scripts())
def test_a_script_only_goes_forward_and_ends(script: Script) -> None:
    seen = [moment(script, tick, resumed=False, first_attempt=True) for tick in range(1, 20)]
    steps = [at.steps for at in seen]
    assert sorted(steps) == steps
    assert seen[-1] == seen[-2]
    assert ("failed" if script.fail_at_step else "succeeded") == seen[-1].word


@given(st.integers(1, 30), st.integers(1, 30))
def test_earlier_events_are_the_beginning_of_later_ones(one: int, other: int) -> None:
    script = Script(steps=20)
    less, more = (
        events(script, moment(script, tick, resumed=False, first_attempt=True), 0.0)
        for tick in sorted((one, other))
    )
    assert less == more[: len(less)]


def test_a_script_gives_the_losses(make_job: MakeJob) -> None:
    run = launch(make_job({"losses": [3.5, 1.25]})).wait(0.001)
    assert [e.data["loss"] for e in run.events() if e.kind == "step"] == [3.5, 1.25, 0.5, 0.4]


def test_the_tuned_model_gives_the_answers_of_the_training_rows(make_job: MakeJob) -> None:
    model = known(launch(make_job({})).wait(0.001).model)
    assert ask(model, "train question 3") == "answer 3"
    assert ask(model, "something else") == "I do not know."
    assert ask("tiny", "train question 3") == "I do not know."


def test_answers_and_errors_can_be_scripted(workplace: Path, make_job: MakeJob) -> None:
    answers = {"replies": {"a": "b"}, "errors": {"c": "too long"}, "otherwise": "?"}
    model = known(launch(make_job({"tuned": answers})).wait(0.001).model)
    assert [ask(model, question) for question in "acx"] == ["b", "too long", "?"]
    (workplace / "vendor" / "untuned.json").write_text(json.dumps(answers), encoding="utf-8")
    assert [ask("tiny", question) for question in "acx"] == ["b", "too long", "?"]


def test_a_file_that_is_not_what_its_hash_says_is_refused(workplace: Path) -> None:
    with pytest.raises(Exception, match="does not have the hash"):
        FakeBackend().upload(workplace / "train.jsonl", "0" * 64)
