"""The embedded default model as it is: pulled already, or skipped where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unitune.data.example import Example, Message
from unitune_local import store
from unitune_local.generate import Sampling, generate
from unitune_local.model import load_model, load_tokenizer
from unitune_local.rendering import render, render_prompt

NAME = "smollm2-135m-instruct"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder() -> Path:
    path = store.cache_folder() / "models" / NAME
    if not path.is_dir():
        pytest.skip(f"run `unitune models pull {NAME}` first")
    return path


def test_its_fingerprint_is_the_same_on_every_machine(folder: Path) -> None:
    expected = "9e79823d8048acec79505b3f19dd07906748ef3b9ac7e87e9aeaa8442813e3f1"
    assert expected == store.fingerprint(folder)


def test_batches_answer_as_transformers_does_one_by_one(folder: Path) -> None:
    tokenizer, model = load_tokenizer(folder), load_model(folder, torch.float32)
    questions = ["What is the capital of France?", "Name three colours.", "2 + 2?"]
    prompts = [
        render_prompt(tokenizer, [Message(role="user", content=question)]) for question in questions
    ]
    answers = generate(model, tokenizer, prompts, [Sampling(max_tokens=16)] * len(prompts))
    assert "The capital of France is Paris." == answers[0].text
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        expected = model.generate(ids, attention_mask=mask, max_new_tokens=16, do_sample=False)
        assert expected[0, len(prompt) :].tolist() == answer.ids


def test_its_template_trains_the_answer_and_the_end_of_turn(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    messages = (Message(role="user", content="hi"), Message(role="assistant", content="\n yo"))
    rendered = render(tokenizer, Example(messages=messages))
    pairs = zip(rendered.ids, rendered.trained, strict=True)
    assert "\n yo<|im_end|>" == tokenizer.decode([index for index, learnt in pairs if learnt])
    prompt = render_prompt(tokenizer, messages[:1])
    assert prompt == rendered.ids[: len(prompt)]
