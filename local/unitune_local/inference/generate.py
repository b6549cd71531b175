"""Answer many prompts at once with a local model.

Batches change the order of sums, so logits differ in the last bits. In float32 that does not change
answers; in bfloat16 it may, where two tokens are nearly tied.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unitune.errors import Interrupted
from unitune_local import machine
from unitune_local.data.batches import common_length
from unitune_local.inference.answers import Answer, Ending, Generated, Sampling, next_tokens
from unitune_local.inference.decoding import CachedRows, PrefixCachedRows, Rows, prefix_caching
from unitune_local.inference.prefix_cache import is_plain
from unitune_local.models.model import use_attention

# Chosen by measurement on 2 cores: 128 rows at once give 1.2 times the answers of 64
BATCH_SIZE = 256
# Maximum bytes of a batch's keys and values on a CPU or Apple GPU; a single row may take more
MEMORY_BYTES = 1 << 30
# Maximum tokens of a batch on a CPU, including answers: about ten seconds for the embedded model on
# 2 cores. Unlike a time, this makes the same batches on every run.
SLICE_TOKENS = 8192
# Rows of a batch on a CPU however long they are: each token of a batch costs a pass over all
# weights, which few rows would hardly share (one by one, 24 rows took 3 times the processor time)
FEWEST_ROWS = 32
# Share of a batch that must have finished before its rows are dropped, which copies the rest
LEAST_DROPPED = 0.25


def generate(  # noqa: PLR0913 - the last three are rarely given
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: Sequence[Sampling],
    *,
    batch_size: int = BATCH_SIZE,
    interrupt: threading.Event | None = None,
    done: Callable[[Sequence[int], Sequence[Generated]], None] | None = None,
    grew: Callable[[str], None] | None = None,
) -> list[Generated]:
    """Return the answers to all prompts, in order.

    Args:
        model: Model in evaluation mode.
        tokenizer: Tokenizer of the model.
        prompts: Token ids, at least one each; with the answer they fit the model's context.
        settings: Settings of each answer.
        batch_size: Maximum number of rows at once.
        interrupt: Event that stops generation before the next token.
        done: Called after each token with the places and the answers that it ended.
        grew: Called after each token with the text so far of each unfinished answer.

    Raises:
        Interrupted: `interrupt` was set.
    """
    plain = is_plain(model)
    common = common_length(prompts) if plain else 0
    ending = Ending.of(model, tokenizer)
    answers = [
        Answer(
            place,
            list(prompt[common:]),
            sampling,
            ending,
            opened=ending.has_opened_thought(prompt),
        )
        for place, (prompt, sampling) in enumerate(zip(prompts, settings, strict=True))
    ]

    def check() -> None:
        if interrupt is not None and interrupt.is_set():
            raise Interrupted("the model was stopped while it answered")

    def tell(step: Sequence[Answer]) -> None:
        if done is not None and (ended := [answer for answer in step if answer.done]):
            done([answer.place for answer in ended], [answer.finished() for answer in ended])
        if grew is not None:
            for answer in step:
                if not answer.done:
                    grew(answer.text_so_far())

    start = time.perf_counter()
    with torch.inference_mode(), prefix_caching(model) if plain else nullcontext():
        shared = None
        if common:
            beginning = PrefixCachedRows(model)
            beginning.begin([prompts[0][:common]])
            shared = beginning.cache
        _share_time(answers, start)
        for batch in _batches(answers, batch_size, model):
            rows = PrefixCachedRows(model, shared, check) if plain else CachedRows(model)
            _answer_batch(rows, batch, model.device, check, tell)
    return [answer.finished() for answer in answers]


def generate_in_training(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: Sequence[Sampling],
) -> list[Generated]:
    """Return the answers of a model in training, and restore its state."""
    base = cast("Any", model.get_base_model())  # includes the adapters in its layers
    attention, was_training = base.config._attn_implementation, model.training  # noqa: SLF001 - it has no other name
    model.eval()
    answers = generate(base, tokenizer, prompts, settings)
    use_attention(model, attention)
    model.train(was_training)
    return answers


def _answer_batch(
    rows: Rows,
    batch: list[Answer],
    device: torch.device,
    check: Callable[[], None],
    tell: Callable[[Sequence[Answer]], None],
) -> None:
    start = time.perf_counter()
    logits = rows.begin([answer.prompt for answer in batch])  # (B, V)
    start = _share_time(batch, start, [len(answer.prompt) for answer in batch])
    alive = batch
    while True:
        step = [(row, answer) for row, answer in enumerate(alive) if not answer.done]
        for (_, answer), token in zip(step, next_tokens(logits, step), strict=True):
            answer.add(token)
        start = _share_time([answer for _, answer in step], start)
        tell([answer for _, answer in step])
        check()
        going = [row for row, answer in enumerate(alive) if not answer.done]
        if not going:
            return
        if len(going) <= (1 - LEAST_DROPPED) * len(alive):
            rows.keep(torch.tensor(going, device=device))
            alive = [alive[row] for row in going]
        logits = rows.add(torch.tensor([answer.ids[-1] for answer in alive], device=device))


def _share_time(
    answers: Sequence[Answer], start: float, tokens: Sequence[int] | None = None
) -> float:
    now, tokens = time.perf_counter(), tokens or [1] * len(answers)
    for answer, own in zip(answers, tokens, strict=True):
        answer.seconds += (now - start) * own / sum(tokens)
    return now


def _batches(
    answers: list[Answer], batch_size: int, model: PreTrainedModel
) -> Iterator[list[Answer]]:
    """Yield answers of similar length within the budgets, the longest first."""
    most = batch_bytes(model.device) // bytes_per_token(model)
    batch: list[Answer] = []
    for answer in sorted(answers, key=lambda item: len(item.prompt), reverse=True):
        wider = [*batch, answer]
        longest_prompt = len(wider[0].prompt)
        tokens = len(wider) * (longest_prompt + max(each.sampling.max_tokens for each in wider))
        slow = model.device.type == "cpu" and len(wider) > FEWEST_ROWS and tokens > SLICE_TOKENS
        if batch and (len(wider) > batch_size or tokens > most or slow):
            yield batch
            batch = []
        batch.append(answer)
    if batch:
        yield batch


def batch_bytes(device: torch.device) -> int:
    """Return the maximum bytes of one batch's keys and values.

    On a GPU this is half of the free memory, including torch's cache. It is rounded down to a power
    of two, so that small differences of free memory do not change the batches.
    """
    if device.type != "cuda":
        return MEMORY_BYTES
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    free = machine.available_bytes(device.type) + cached
    return max(MEMORY_BYTES, 1 << (free // 2).bit_length() >> 1)


def bytes_per_token(model: PreTrainedModel) -> int:
    """Return the bytes of one token's keys and values in all layers, or 1 if it has none."""
    config = cast("Any", model.config).get_text_config()
    heads = int(getattr(config, "num_attention_heads", None) or 0)
    if heads == 0:  # a state-space model, whose state does not grow
        return 1
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2 * int(config.num_hidden_layers) * groups * width * model.dtype.itemsize
