"""Answers of a local model to many prompts at once, the same as one by one.

The tokens that all prompts begin with are computed once. The rest goes in batches of similar
length, within budgets of memory and of tokens, so that first answers come while others are still
generated; finished rows leave their batch. Greedy or sampled; what a row samples depends on its own
seed, never on its neighbours. (Batches change the order of sums inside matrix products, so logits
differ in the last bits; in float32 that does not change answers, in bfloat16 it may where two
tokens are nearly tied.)

Not here: chat messages (`unitune_local.inference.chat`), and how a model takes tokens
(`unitune_local.inference.decoding`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unitune.errors import Interrupted
from unitune_local.data.rendering import turn_end
from unitune_local.inference.decoding import CachedRows, PrefixCachedRows, Rows, prefix_caching
from unitune_local.inference.prefix_cache import PrefixCache, is_plain

BATCH_SIZE = 256
"""Chosen by measurement on 2 cores: 128 rows at once give 1.2 times the answers of 64."""
MEMORY_BYTES = 1 << 30
"""Most that the keys and values of one batch may take; a lone row may take more."""
SLICE_TOKENS = 8192
"""Most tokens of a batch on a CPU, its answers included: some ten seconds for the embedded model on
2 cores, after which its answers are passed on. By tokens and not by the clock, so that the same
prompts make the same batches on every run."""
FEWEST_ROWS = 32
"""Rows of a batch on a CPU however long they are: each token of a batch costs a pass over all
weights, which few rows would hardly share (one by one, 24 rows took 3 times the processor time)."""
DRAWN_BLOCK = 256
"""Tokens whose chances are added up first."""
LEAST_DROPPED = 0.25
"""Share of a batch that must have finished before its rows are dropped, which copies the rest."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one prompt is answered.

    Args:
        max_tokens: Longest answer in tokens, at least 1.
        temperature: 0 is greedy.
        seed: Of the sampling, when the temperature is not 0.
        stop: Strings that end the answer and are not part of it.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer.

    Args:
        ids: Generated token ids, the one that ended the answer included.
        text: The answer, without special tokens and cut before a stop string.
        finish_reason: stop: the model or a stop string ended it; length: max_tokens did.
        seconds: Its share of the time, by the rows that were computed together.
    """

    ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"]
    seconds: float = field(compare=False)


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
    """Answer all prompts.

    Args:
        model: In evaluation mode.
        tokenizer: Of the model.
        prompts: Token ids, at least one each; with the answer they fit the model's context.
        settings: One for each prompt.
        batch_size: Most rows at once.
        interrupt: When it is set, generation stops before the next token.
        done: Called after each token with the places and answers that it has ended.
        grew: Called after each token with the text so far of an answer that goes on.

    Returns:
        One answer for each prompt, in their order.

    Raises:
        Interrupted: `interrupt` was set.
    """
    plain = is_plain(model)
    common = common_length(prompts) if plain and len(prompts) > 1 else 0
    ending = _Ending(stop_ids(model, tokenizer), tokenizer)
    answers = [
        _Answer(place, list(prompt[common:]), sampling, ending)
        for place, (prompt, sampling) in enumerate(zip(prompts, settings, strict=True))
    ]
    check = partial(_check, interrupt or threading.Event())

    def tell(step: Sequence[_Answer]) -> None:
        if done is not None and (ended := [answer for answer in step if answer.done]):
            done([answer.place for answer in ended], [answer.finished() for answer in ended])
        if grew is not None:
            for answer in step:
                if not answer.done:
                    grew(answer.text_so_far())

    start = time.perf_counter()
    with torch.inference_mode(), prefix_caching(model) if plain else nullcontext():
        shared = _cache_of(model, prompts[0][:common]) if common else None
        _share_time(answers, start)
        for batch in _batches(answers, batch_size, model):
            rows = PrefixCachedRows(model, shared, check) if plain else CachedRows(model)
            _answer_batch(rows, batch, model.device, check, tell)
    return [answer.finished() for answer in answers]


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end an answer: the model's, the tokenizer's and the template's."""
    own = cast("int | list[int] | None", getattr(model.generation_config, "eos_token_id", None))
    ids: list[int | None] = [*own] if isinstance(own, list) else [own]
    ids.append(cast("int | None", tokenizer.eos_token_id))
    if cast("Any", tokenizer).chat_template:
        ids.append(turn_end(tokenizer))
    return frozenset(index for index in ids if index is not None)


@dataclass(frozen=True, slots=True)
class _Ending:
    """What ends an answer, and turns it into text."""

    stops: frozenset[int]
    tokenizer: PreTrainedTokenizerBase

    def text(self, ids: list[int]) -> str:
        """Return the text of ids without special tokens."""
        decode = cast("Any", self.tokenizer).decode
        text = decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return cast("str", text)


class _Answer:
    """One answer as it grows.

    Args:
        place: Of its prompt among all.
        prompt: Token ids, those common to all prompts apart.
        sampling: How it is answered.
        ending: What ends it.
    """

    def __init__(self, place: int, prompt: list[int], sampling: Sampling, ending: _Ending) -> None:
        self.place = place
        self.prompt = prompt
        self.sampling = sampling
        self.ids: list[int] = []
        self.done = False
        self.seconds = 0.0
        self._ending = ending
        self._random = torch.Generator().manual_seed(sampling.seed)

    def draw(self) -> float:
        """Return the next of this answer's own stream of random numbers, from 0 to 1."""
        return torch.rand(1, generator=self._random, dtype=torch.float64).item()

    def add(self, token: int) -> None:
        """Take one more token, and see whether it ends the answer."""
        self.ids.append(token)
        full = len(self.ids) >= self.sampling.max_tokens
        self.done = full or token in self._ending.stops or self._stopped()

    def finished(self) -> Generated:
        """Return the answer as text."""
        ended = self.ids[-1] in self._ending.stops
        text = self._ending.text(self.ids[:-1] if ended else self.ids)
        cut = self._stop_at(text)
        reason = "stop" if ended or cut is not None else "length"
        return Generated(self.ids, text[:cut], reason, self.seconds)

    def text_so_far(self) -> str:
        """Return the text that stays: no part of a character, or of a stop string."""
        text = self._ending.text(self.ids).rstrip("\N{REPLACEMENT CHARACTER}")
        begun = (
            length
            for stop in self.sampling.stop
            for length in range(1, len(stop))
            if text.endswith(stop[:length])
        )
        return text[: len(text) - max(begun, default=0)]

    def _stopped(self) -> bool:
        stop = self.sampling.stop
        return bool(stop) and self._stop_at(self._ending.text(self.ids)) is not None

    def _stop_at(self, text: str) -> int | None:
        places = [place for stop in self.sampling.stop if (place := text.find(stop)) >= 0]
        return min(places, default=None)


def _check(interrupt: threading.Event) -> None:
    if interrupt.is_set():
        raise Interrupted("the model was stopped while it answered")


def _answer_batch(
    rows: Rows,
    batch: list[_Answer],
    device: torch.device,
    check: Callable[[], None],
    tell: Callable[[Sequence[_Answer]], None],
) -> None:
    """Let the answers of one batch grow until all are done, and tell of each step's."""
    start = time.perf_counter()
    logits = rows.begin([answer.prompt for answer in batch])  # (B, V)
    start = _share_time(batch, start, [len(answer.prompt) for answer in batch])
    alive = batch
    while True:
        step = [(row, answer) for row, answer in enumerate(alive) if not answer.done]
        for (_, answer), token in zip(step, _next_tokens(logits, step), strict=True):
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


def _next_tokens(logits: Tensor, step: Sequence[tuple[int, _Answer]]) -> list[int]:
    """Return the next token of each answer from the logits of its row: the likeliest, or a draw."""
    tokens = logits.argmax(-1)  # (B,)
    if sampled := [(row, answer) for row, answer in step if answer.sampling.temperature > 0]:
        rows = torch.tensor([row for row, _ in sampled], device=logits.device)
        temperatures = torch.tensor([answer.sampling.temperature for _, answer in sampled])
        draws = torch.tensor([answer.draw() for _, answer in sampled], dtype=torch.float64)
        drawn = draw_tokens(logits.index_select(0, rows).float().cpu(), temperatures, draws)
        tokens.index_copy_(0, rows, drawn.to(tokens.device))
    return cast("list[int]", cast("Any", tokens[[row for row, _ in step]]).tolist())


def draw_tokens(logits: Tensor, temperatures: Tensor, draws: Tensor) -> Tensor:
    """Return the token (B,) at which the chances, added up, pass a draw from 0 to 1.

    First the block of tokens in which they do, and then the token in it: adding up all in float64
    took a quarter of the time of a step of the embedded model.

    Args:
        logits: In float32, on the CPU (B, V).
        temperatures: Of each row (B,).
        draws: In float64 (B,).
    """
    count, size = logits.shape
    chances = (logits - logits.amax(1, keepdim=True)).div_(temperatures[:, None]).exp_()
    blocks = functional.pad(chances, (0, -size % DRAWN_BLOCK)).view(count, -1, DRAWN_BLOCK)
    sums = blocks.sum(2, dtype=torch.float64).cumsum(1)  # (B, blocks)
    places = (draws * sums[:, -1])[:, None]  # (B, 1)
    block = torch.searchsorted(sums, places, right=True).clamp(max=sums.shape[1] - 1)
    before = functional.pad(sums, (1, 0)).gather(1, block)
    inner = blocks[torch.arange(count), block[:, 0]].double().cumsum(1)
    within = torch.searchsorted(inner, places - before, right=True).clamp(max=DRAWN_BLOCK - 1)
    return (block * DRAWN_BLOCK + within)[:, 0].clamp(max=size - 1)


def _share_time(
    answers: Sequence[_Answer], start: float, tokens: Sequence[int] | None = None
) -> float:
    """Share the time since a start among the answers that took it, and return the time now.

    Args:
        answers: That were at work.
        start: In seconds.
        tokens: By which they took it; equally by default.
    """
    now, tokens = time.perf_counter(), tokens or [1] * len(answers)
    for answer, own in zip(answers, tokens, strict=True):
        answer.seconds += (now - start) * own / sum(tokens)
    return now


def common_length(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, leaving each at least one of its own."""
    shortest = min(len(prompt) for prompt in prompts)
    for place in range(shortest - 1):
        if any(prompt[place] != prompts[0][place] for prompt in prompts):
            return place
    return shortest - 1


def _cache_of(model: PreTrainedModel, beginning: Sequence[int]) -> PrefixCache:
    """Return the keys and values of the tokens that all prompts begin with."""
    rows = PrefixCachedRows(model)
    rows.begin([beginning])
    return rows.cache


def _batches(
    answers: list[_Answer], batch_size: int, model: PreTrainedModel
) -> Iterator[list[_Answer]]:
    """Yield answers of similar length, the longest first, within the budgets."""
    most = MEMORY_BYTES // _bytes_per_token(model)
    batch: list[_Answer] = []
    for answer in sorted(answers, key=lambda item: len(item.prompt), reverse=True):
        wider = [*batch, answer]
        tokens = len(wider) * _room(wider)
        slow = model.device.type == "cpu" and len(wider) > FEWEST_ROWS and tokens > SLICE_TOKENS
        if batch and (len(wider) > batch_size or tokens > most or slow):
            yield batch
            batch = []
        batch.append(answer)
    if batch:
        yield batch


def _room(batch: list[_Answer]) -> int:
    """Return the tokens that a row of this batch may come to hold, padding included."""
    longest_prompt = max(len(answer.prompt) for answer in batch)
    return longest_prompt + max(answer.sampling.max_tokens for answer in batch)


def _bytes_per_token(model: PreTrainedModel) -> int:
    """Return the size of one token's keys and values in all layers."""
    config = cast("Any", model.config).get_text_config()
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2 * int(config.num_hidden_layers) * groups * width * model.dtype.itemsize
