"""Decode rows of tokens that grow together, padded on the left.

Shapes: B rows, S new tokens of a row, N tokens of a row so far, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from unitune_local.inference.prefix_cache import NAME, PrefixCache, joined
from unitune_local.models.model import use_attention

# New tokens of a row per forward; limits the scores, whose size grows with its square
CHUNK_TOKENS = 512
# Prompt tokens per forward, including padding. Chosen by measurement on 2 cores: rows of similar
# length need little padding, and what a layer computes still fits the cache.
PROMPT_TOKENS = 1024

# Share of padding columns above which they are dropped, which copies the rest
LEAST_TRIMMED = 0.25


class PrefixCachedRows:
    """Rows after a common prefix (`shared`, a cache of one row) that is computed once.

    The model is switched by `prefix_caching`. `check` is called before each forward and may raise.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        shared: PrefixCache | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.cache = PrefixCache(shared)
        self._check = check
        self._model = model
        self._real = torch.zeros(0, 0, dtype=torch.bool)  # (B, N)

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Start a row for each prompt, equal ones computed once; return their logits (B, V)."""
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        different = list(places)
        caches: list[PrefixCache] = []
        logits: list[Tensor] = []
        for group in _of_similar_length(different):
            padded = _left_padded(group, self._model.device)
            caches.append(PrefixCache(self.cache.shared))
            logits.append(self._feed(caches[-1], padded.ids, padded.real))
        self.cache = joined(caches)
        self._real = _left_padded(different, self._model.device).real
        after = torch.cat(logits)
        if len(different) == len(prompts):
            return after
        rows = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=after.device)
        self.keep(rows)
        return after.index_select(0, rows)

    def add(self, tokens: Tensor) -> Tensor:
        """Add a token to every row and return the logits after them (B, V)."""
        self._real = functional.pad(self._real, (0, 1), value=True)
        return self._feed(self.cache, tokens[:, None], self._real)

    def keep(self, rows: Tensor) -> None:
        """Keep only the rows with these indices; a repeated index copies its row."""
        real = self._real.index_select(0, rows)
        first = int(real.any(0).int().argmax())  # columns before it are padding
        first = first if first > LEAST_TRIMMED * real.shape[1] else 0
        self._real = real[:, first:]
        self.cache.keep(rows, first)

    def row(self, place: int) -> PrefixCache:
        """Return the cache of one row, with the common prefix and without padding."""
        own, before = int(self._real[place].sum()), self.cache.shared
        alone = PrefixCache(used=own + (before.used if before else 0))
        for layer in self.cache.layers:
            part = self.cache.seen(layer).changed(
                lambda rows: rows[place : place + 1, :, self.cache.used - own :]
            )
            alone.layers[layer] = before.seen(layer).followed_by(part) if before else part
        return alone

    def join(self, others: Sequence[PrefixCache]) -> None:
        """Add rows, given by caches that include any common prefix."""
        running = cast("list[int]", cast("Any", self._real.sum(1)).tolist())
        lengths = [*running, *(other.used for other in others)]
        self.cache = self.cache.joined_by(others)
        self._real = _real(lengths, self.cache.used).to(self._model.device)

    def _feed(self, cache: PrefixCache, ids: Tensor, real: Tensor) -> Tensor:
        *early, last = range(0, ids.shape[1], CHUNK_TOKENS)
        for start in early:
            self._forward(cache, ids[:, start : start + CHUNK_TOKENS], real)
        return self._forward(cache, ids[:, last:], real)

    def _forward(self, cache: PrefixCache, ids: Tensor, real: Tensor) -> Tensor:
        self._check()
        new, start = ids.shape[1], cache.used
        end, places = start + new, cache.places(new)
        seen = torch.ones(new, places, dtype=torch.bool, device=ids.device).tril(start)  # (S, C)
        there = functional.pad(real[:, :places], (0, max(0, places - real.shape[1])))  # (B, C)
        before = cache.shared.used if cache.shared else 0
        model = cast("Any", self._model)
        with _streaming(self._model, ids):
            output = model(
                ids,
                attention_mask=there[:, None, None] & seen,  # (B, 1, S, C)
                position_ids=before + _positions(real)[:, start:end],
                use_cache=False,
                logits_to_keep=_last(ids),
                prefix_cache=cache,
            )
        cache.used = end
        return cast("Tensor", output.logits)[:, -1]


class CachedRows:
    """Rows of any causal language model, with the cache of transformers."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._real = torch.zeros(0, 0, dtype=torch.bool)  # (B, N)
        # The keyword was renamed within the supported versions of transformers.
        names = inspect.signature(type(model).forward).parameters
        self._keyword = "cache" if "cache" in names else "past_key_values"

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Start a row for each prompt; return the logits after them (B, V)."""
        padded = _left_padded(prompts, self._model.device)
        self._real = padded.real
        return self._forward(padded.ids)

    def add(self, tokens: Tensor) -> Tensor:
        """Add a token to every row and return the logits after them (B, V)."""
        self._real = functional.pad(self._real, (0, 1), value=True)
        return self._forward(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Keep only the rows with these indices."""
        self._real = self._real.index_select(0, rows)
        self._cache.batch_select_indices(rows)

    def _forward(self, ids: Tensor) -> Tensor:
        with _streaming(self._model, ids):
            output = cast("Any", self._model)(
                ids,
                attention_mask=self._real.long(),
                position_ids=_positions(self._real)[:, -ids.shape[1] :],
                use_cache=True,
                logits_to_keep=_last(ids),
                **{self._keyword: self._cache},
            )
        return cast("Tensor", output.logits)[:, -1]


Rows = PrefixCachedRows | CachedRows


class _Padded(NamedTuple):
    ids: Tensor  # (B, N)
    real: Tensor  # (B, N), bool


def _left_padded(rows: Sequence[Sequence[int]], device: torch.device) -> _Padded:
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    real = _real([len(row) for row in rows], width)
    return _Padded(ids.to(device), real.to(device))


def _real(lengths: Sequence[int], width: int) -> Tensor:
    """Return which tokens of left-padded rows are real (B, N)."""
    return torch.arange(width) >= width - torch.tensor(lengths)[:, None]


def _of_similar_length(prompts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Split prompts into neighbours that fit one forward; a single one may be longer."""
    start, widest = 0, 0
    for place, prompt in enumerate(prompts):
        wider = max(widest, len(prompt))
        if place > start and wider * (place + 1 - start) > PROMPT_TOKENS:
            yield prompts[start:place]
            start, wider = place, len(prompt)
        widest = wider
    yield prompts[start:]


@contextmanager
def _streaming(model: PreTrainedModel, ids: Tensor) -> Generator[None]:
    """Multiply a single bfloat16 token on a CPU without oneDNN while the body runs.

    oneDNN repacks every weight for each product, which only several tokens repay: on 1 core the
    products of the embedded model take 39 ms with it and 22 ms without.
    """
    onednn = cast("Any", torch.backends.mkldnn)
    lone = ids.numel() == 1 and model.device.type == "cpu" and model.dtype is torch.bfloat16
    if not (lone and onednn.enabled):
        yield
        return
    onednn.enabled = False
    try:
        yield
    finally:
        onednn.enabled = True


def _last(ids: Tensor) -> Tensor:
    """Return the last column's index, for `logits_to_keep`.

    It is a tensor, because for a number transformers takes a strided view, for which torch on a CPU
    copies the whole output matrix once for every row.
    """
    return torch.tensor([ids.shape[1] - 1], device=ids.device)


def _positions(real: Tensor) -> Tensor:
    """Return each token's position in its row (B, N); padding gets 0."""
    return (real.long().cumsum(1) - 1).clamp(min=0)


@contextmanager
def prefix_caching(model: PreTrainedModel) -> Generator[None]:
    """Switch a model to attention with a prefix cache while the body runs."""
    use_attention(model, NAME)
    try:
        yield
    finally:
        use_attention(model, None)
