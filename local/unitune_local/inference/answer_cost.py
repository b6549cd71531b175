"""What answers take on this machine: seconds, from the tokens that are computed.

A prompt costs its own tokens, those that all prompts share once; an answer its tokens, one by one.
Seconds of an operation are measured whenever a model answers enough here, and kept in the cache
under all that they depend on; before that they are guessed from a short measurement of matrix
products. On a CPU they are processor seconds, which the waiting for a processor is no part of.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from pydantic import BaseModel, ValidationError
from torch import nn
from transformers import AutoModelForCausalLM

from unitune.backends.forecasts import AnswerForecast, AnswerLoad
from unitune.data.dataset import Dataset, spread
from unitune.data.example import digest
from unitune.security.spec import Closed
from unitune.workspace.filesystem import replacing
from unitune.workspace.today import today
from unitune_local import machine
from unitune_local.data.batches import common_length
from unitune_local.data.rendering import TemplateError, render_prompt
from unitune_local.models import store
from unitune_local.models.model import config_of, load_tokenizer
from unitune_local.models.model_folder import cache_folder

Measured = TypeVar("Measured", bound=BaseModel)
GENERATED_WEIGHT = 5.0
"""An operation of a generated token takes as long as so many of a prompt's, since few rows are
computed at once. Of the embedded model: 126 answers of 7 tokens took 5 s, and of 152 tokens 79 s,
to prompts of the same length."""
REACHED_SHARE = {"float32": 0.6, "bfloat16": 0.7}
"""Of the measured matrix products per second, in answers on a CPU: the embedded model reached 0.4
to 0.8 in bfloat16. In float32 as in a training (`cost_model`)."""
GUESSED_BAND, MEASURED_BAND = (0.4, 2.5), (0.7, 1.4)
"""Low and high as shares of what is expected."""
LOAD_SECONDS = 5.0
"""From the first request to the first token: torch, weights, kernels."""
LEAST_FLOPS = 1e12
"""Operations from which a measurement counts: some seconds of a small machine."""
SAMPLE_ROWS = 200


class ModelSize(NamedTuple):
    """What the operations of an answer depend on."""

    linear: int  # weights that every token is multiplied with, the output head apart
    head: int  # weights of the output head, for each token that is generated
    width: int  # hidden size, in all layers

    def work(self, new: float, before: float, answer: float) -> float:
        """Return the operations of one answer, those of its tokens by `GENERATED_WEIGHT`.

        Args:
            new: Tokens of its prompt that are computed for it alone.
            before: Tokens that were computed before, for all prompts.
            answer: Tokens that are generated.
        """
        tokens, generated = new + answer, GENERATED_WEIGHT * answer
        pairs = tokens * (before + tokens / 2)
        products = self.linear * (new + generated) + self.head * (1 + generated)
        return 2 * products + 4 * self.width * pairs


class AnswerRate(Closed):
    """Seconds of an operation when a model answers here; guessed where no day is named."""

    flop_seconds: float
    measured_on: date | None = None


def size_of(folder: Path) -> ModelSize:
    """Return the size of the model in a folder, without its weights."""
    config = config_of(folder)
    with torch.device("meta"):
        model = cast("Any", AutoModelForCausalLM).from_config(config)
    text, head = cast("Any", config).get_text_config(), model.get_output_embeddings()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    linear = sum(layer.weight.numel() for layer in layers if layer is not head)
    width = int(text.hidden_size) * int(text.num_hidden_layers)
    return ModelSize(linear, int(head.weight.numel()), width)


def forecast_answers(model: str, cases: Dataset, loads: Sequence[AnswerLoad]) -> AnswerForecast:
    """Return how long requests for the answers of such cases would take.

    Args:
        model: Its name, or its folder.
        cases: What is requested, in the rows' own messages.
        loads: How often, with what beside.
    """
    folder, device = store.resolve(model), machine.device()
    dtype = machine.best_dtype(device)
    size, rate = size_of(folder), answer_rate(folder, device.type, dtype)
    tokenizer = load_tokenizer(folder)
    prompts: list[list[int]] = []
    for row in spread(cases.rows, SAMPLE_ROWS):
        try:
            prompts.append(render_prompt(tokenizer, row.example.prompt, row.example.tools))
        except TemplateError:
            continue  # such a row is a finding of its own
    common = common_length(prompts)
    own = sum(len(prompt) - common for prompt in prompts) / max(len(prompts), 1)
    flops = [
        load.requests
        * size.work(own + load.own_tokens, common + load.shared_tokens, load.answer_tokens)
        for load in loads
    ]
    low, high = MEASURED_BAND if rate.measured_on else GUESSED_BAND
    return AnswerForecast(
        seconds=tuple(LOAD_SECONDS + operations * rate.flop_seconds for operations in flops),
        low_share=low,
        high_share=high,
        measured_on=rate.measured_on,
    )


def answer_rate(folder: Path, device: str, dtype: torch.dtype) -> AnswerRate:
    """Return the rate that was measured for a model here, or a guess."""
    place = torch.device(device)
    if (kept := recall(AnswerRate, _name(folder, place, dtype))) is not None:
        return kept
    rate = machine.products_per_second(place, dtype, *machine.PROBE_WIDTHS)
    threads = machine.cores() if device == "cpu" else 1
    share = REACHED_SHARE[str(dtype).removeprefix("torch.")]
    return AnswerRate(flop_seconds=1 / (rate * threads * share))


@contextmanager
def measured(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    answered: Sequence[tuple[Sequence[int], int]],
) -> Generator[None]:
    """Keep what the answers of the body took, if they were enough and the machine not overloaded.

    Args:
        folder: Of the model.
        device: Where it answers.
        dtype: Of its weights.
        answered: To be filled in the body: each prompt, and the tokens of its answer.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    yield
    seconds = (clock() - start) / (machine.cores() if device.type == "cpu" else 1)
    common = common_length([prompt for prompt, _ in answered])
    tokens = sum(len(prompt) - common + answer for prompt, answer in answered)
    if not tokens:
        return
    size = size_of(folder)
    flops = sum(size.work(len(prompt) - common, common, answer) for prompt, answer in answered)
    if flops >= LEAST_FLOPS and not machine.overloaded():
        rate = AnswerRate(flop_seconds=seconds / flops, measured_on=today())
        keep(rate, _name(folder, device, dtype))


def _name(folder: Path, device: torch.device, dtype: torch.dtype) -> str:
    depends_on = [
        GENERATED_WEIGHT,
        machine.processor(device.type),
        machine.cores(),
        torch.__version__,
        str(dtype),
        list(size_of(folder)),
    ]
    return f"answers-{digest(depends_on)}"


def keep(measured: BaseModel, name: str) -> None:
    """Store what was measured on this machine, under a name that says what it depends on."""
    file = _calibration(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as draft:
        draft.write(measured.model_dump_json(indent=2))


def recall(kind: type[Measured], name: str) -> Measured | None:
    """Return what was measured on this machine, if anything was."""
    try:
        return kind.model_validate_json(_calibration(name).read_text(encoding="utf-8"))
    except (OSError, ValidationError):  # the latter: written by another version
        return None


def _calibration(name: str) -> Path:
    return cache_folder() / "calibrations" / f"{name}.json"
