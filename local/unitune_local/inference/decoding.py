"""Rows of tokens that grow together: what generation needs of a model, and nothing more.

`Rows` take new tokens and give the logits after the last token. `PrefixCachedRows` keep one copy of
the prompts' common beginning (`unitune_local.inference.prefix_cache`); `CachedRows` use the cache
of transformers, for models whose attention is not plain (sliding windows, sinks, soft caps).

Rows are padded on the left, so that the last token of all rows stands in the same column.

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

# New tokens of one row in one forward: bounds the scores, whose size grows with its square
CHUNK_TOKENS = 512
# Tokens of prompts in one forward, padding included. Chosen by measurement on 2 cores: rows of
# similar length go together, so little is padding, and what one layer makes still fits the cache.
PROMPT_TOKENS = 1024

# Share of the columns that must be padding before they are dropped, which copies the rest
LEAST_TRIMMED = 0.25


class PrefixCachedRows:
    """Rows after a common beginning that was computed once.

    Args:
        model: Switched to attention with a prefix cache by `prefix_caching`.
        shared: PrefixCache of the common beginning, as one row; None when there is none.
        check: Called before each forward; what it raises ends the work.
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
        """Start one row with each prompt; return the logits after them (B, V).

        Equal prompts are computed once.
        """
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
        """Add one token to every row and return the logits after them (B, V)."""
        self._real = functional.pad(self._real, (0, 1), value=True)
        return self._feed(self.cache, tokens[:, None], self._real)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices); one that is named twice becomes two."""
        real = self._real.index_select(0, rows)
        first = int(real.any(0).int().argmax())  # before it there is padding alone
        first = first if first > LEAST_TRIMMED * real.shape[1] else 0
        self._real = real[:, first:]
        self.cache.keep(rows, first)

    def row(self, place: int) -> PrefixCache:
        """Return what one row has seen, the common beginning included and no padding."""
        own, before = int(self._real[place].sum()), self.cache.shared
        alone = PrefixCache(used=own + (before.used if before else 0))
        for layer in self.cache.layers:
            part = self.cache.seen(layer).changed(
                lambda rows: rows[place : place + 1, :, self.cache.used - own :]
            )
            alone.layers[layer] = before.seen(layer).followed_by(part) if before else part
        return alone

    def join(self, others: Sequence[PrefixCache]) -> None:
        """Take more rows, each with all that it has seen; none has a common beginning apart."""
        running = cast("list[int]", cast("Any", self._real.sum(1)).tolist())
        lengths = [*running, *(other.used for other in others)]
        self.cache = self.cache.joined_by(others)
        self._real = _real(lengths, self.cache.used).to(self._model.device)

    def _feed(self, cache: PrefixCache, ids: Tensor, real: Tensor) -> Tensor:
        """Take new tokens (B, S) of rows (B, N) in chunks; return the last logits (B, V)."""
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
        # Renamed within the versions of transformers that are allowed.
        names = inspect.signature(type(model).forward).parameters
        self._keyword = "cache" if "cache" in names else "past_key_values"

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Start one row with each prompt; return the logits after them (B, V)."""
        padded = _left_padded(prompts, self._model.device)
        self._real = padded.real
        return self._forward(padded.ids)

    def add(self, tokens: Tensor) -> Tensor:
        """Add one token to every row and return the logits after them (B, V)."""
        self._real = functional.pad(self._real, (0, 1), value=True)
        return self._forward(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices)."""
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
    """Rows of one width; padding stands on the left."""

    ids: Tensor  # (B, N)
    real: Tensor  # (B, N), bool


def _left_padded(rows: Sequence[Sequence[int]], device: torch.device) -> _Padded:
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    real = _real([len(row) for row in rows], width)
    return _Padded(ids.to(device), real.to(device))


def _real(lengths: Sequence[int], width: int) -> Tensor:
    """Return which tokens of rows of these lengths are real (B, N), padded on the left."""
    return torch.arange(width) >= width - torch.tensor(lengths)[:, None]


def _of_similar_length(prompts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Cut prompts into groups of neighbours that fit one forward; a lone one may be longer."""
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
    """Multiply a lone bfloat16 token on a CPU without oneDNN while the body runs.

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

    As a tensor, because with a number transformers takes a strided view, for which torch on a CPU
    copies the whole output matrix once for every row.
    """
    return torch.tensor([ids.shape[1] - 1], device=ids.device)


def _positions(real: Tensor) -> Tensor:
    """Return each token's position in its row (B, N); padding gets 0."""
    return (real.long().cumsum(1) - 1).clamp(min=0)


@contextmanager
def prefix_caching(model: PreTrainedModel) -> Generator[None]:
    """Switch a model to attention with a prefix cache, and back at the end."""
    use_attention(model, NAME)
    try:
        yield
    finally:
        use_attention(model, None)
