"""Forecast how long answers take on this machine; on a CPU, in processor seconds."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from unitune.backends.local_capabilities import AnswerForecast, AnswerLoad
from unitune.data.dataset import Dataset, spread
from unitune.workspace.user_settings import today
from unitune_local import machine
from unitune_local.data.batches import common_length
from unitune_local.data.chat_text import TemplateError
from unitune_local.data.rendering import render_prompt
from unitune_local.models import store
from unitune_local.models.model import empty_model, load_tokenizer
from unitune_local.models.size import Conditions, ModelSize, Speed, keep_speed, size_of, speed_of

# Time of an operation for a generated token, relative to a prompt's, since few rows are computed at
# once. With the embedded model, 126 answers of 7 tokens took 5 s, and of 152 tokens 79 s, to
# prompts of the same length.
GENERATED_WEIGHT = 5.0
# Low and high end as shares of the expected time; not measured on a GPU
MEASURED_BAND, GUESSED_BAND, GPU_BAND = (0.65, 1.35), (0.4, 2.5), (0.1, 5.0)
LOAD_SECONDS = 5.0  # from the first request to the first token: torch, weights, kernels
LEAST_FLOPS = 1e12  # operations from which a measurement counts: some seconds on a small machine
SAMPLE_ROWS = 200


def answer_flops(size: ModelSize, new: float, before: float, answer: float) -> float:
    """Return the operations of one answer, those of its tokens times `GENERATED_WEIGHT`.

    Args:
        size: Size of the model.
        new: Prompt tokens computed only for this answer.
        before: Prompt tokens computed once for all prompts.
        answer: Generated tokens.
    """
    tokens, generated = new + answer, GENERATED_WEIGHT * answer
    pairs = tokens * (before + tokens / 2)
    products = size.linear * (new + generated) + size.head * (1 + generated)
    return 2 * products + 4 * size.hidden * size.layers * pairs


def answer_conditions(size: ModelSize, device: str, dtype: torch.dtype) -> Conditions:
    """Return the conditions under which a model answers on this machine."""
    return Conditions("answers", size, device, dtype, machine.cores() if device == "cpu" else 1)


def answer_seconds(
    size: ModelSize,
    speed: Speed,
    prompts: Sequence[Sequence[int]],
    load: AnswerLoad,
    group: int = 1,
) -> float:
    """Return the seconds that answers take once the model is loaded.

    Each prompt is computed once for the `group` of its answers; prompts may be a sample.
    """
    common = common_length(prompts)
    own = sum(len(prompt) - common for prompt in prompts) / max(len(prompts), 1) / group
    new, before = own + load.own_tokens, common + load.shared_tokens
    flops = answer_flops(size, new, before, load.answer_tokens)
    return load.requests * flops * speed.flop_seconds


def forecast_answers(model: str, cases: Dataset, load: AnswerLoad) -> AnswerForecast:
    """Return how long the answers to such cases would take."""
    folder, device = store.resolve(model), machine.device()
    tokenizer = load_tokenizer(folder)
    prompts: list[list[int]] = []
    for row in spread(cases.rows, SAMPLE_ROWS):
        try:
            prompts.append(render_prompt(tokenizer, row.example.prompt, row.example.tools))
        except TemplateError:
            continue  # reported as a finding elsewhere
    size = size_of(empty_model(folder))
    speed = speed_of(answer_conditions(size, device.type, machine.best_dtype(device)))
    low, high = MEASURED_BAND
    if speed.measured_on is None:
        low, high = GUESSED_BAND if device.type == "cpu" else GPU_BAND
    return AnswerForecast(
        seconds=LOAD_SECONDS + answer_seconds(size, speed, prompts, load),
        low_share=low,
        high_share=high,
        measured_on=speed.measured_on,
    )


@contextmanager
def measured(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    answered: Sequence[tuple[Sequence[int], int]],
) -> Generator[None]:
    """Store the speed of the body's answers, unless they are few or the machine is overloaded.

    The body fills `answered` with each prompt and the number of tokens in its answer.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    yield
    seconds = clock() - start
    common = common_length([prompt for prompt, _ in answered])
    if not sum(len(prompt) - common + answer for prompt, answer in answered):
        return
    conditions = answer_conditions(size_of(empty_model(folder)), device.type, dtype)
    flops = sum(
        answer_flops(conditions.size, len(prompt) - common, common, answer)
        for prompt, answer in answered
    )
    if flops >= LEAST_FLOPS and not machine.overloaded():
        per_flop = seconds / conditions.threads / flops
        keep_speed(Speed(flop_seconds=per_flop, measured_on=today()), conditions.key)
