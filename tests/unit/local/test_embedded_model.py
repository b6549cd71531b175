"""The embedded default model as it is."""

from __future__ import annotations

from pathlib import Path

import torch

from unitune.data.example import Example, Message
from unitune_local.data.rendering import render, render_prompt
from unitune_local.inference.answers import Sampling
from unitune_local.inference.generate import generate
from unitune_local.models import store
from unitune_local.models.model import load_model, load_tokenizer


def test_its_fingerprint_is_the_same_on_every_machine(default_model: Path) -> None:
    expected = "9e79823d8048acec79505b3f19dd07906748ef3b9ac7e87e9aeaa8442813e3f1"
    assert expected == store.fingerprint(default_model)


def test_batches_answer_as_transformers_does_one_by_one(default_model: Path) -> None:
    tokenizer, model = load_tokenizer(default_model), load_model(default_model, torch.float32)
    questions = ["What is the capital of France?", "Name three colours.", "2 + 2?"]
    prompts = [
        render_prompt(tokenizer, [Message(role="user", content=question)]) for question in questions
    ]
    answers = generate(model, tokenizer, prompts, [Sampling(max_tokens=16)] * len(prompts))
    assert answers[0].text == "The capital of France is Paris."
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        expected = model.generate(ids, attention_mask=mask, max_new_tokens=16, do_sample=False)
        assert expected[0, len(prompt) :].tolist() == answer.ids


def test_its_template_trains_the_answer_and_the_end_of_turn(default_model: Path) -> None:
    tokenizer = load_tokenizer(default_model)
    messages = (Message(role="user", content="hi"), Message(role="assistant", content="\n yo"))
    (rendered,) = render(tokenizer, Example(messages=messages))
    pairs = zip(rendered.ids, rendered.trained, strict=True)
    assert tokenizer.decode([index for index, learnt in pairs if learnt]) == "\n yo<|im_end|>"
    prompt = render_prompt(tokenizer, messages[:1])
    assert prompt == rendered.ids[: len(prompt)]
