"""Rows of tokens that grow together: what generation needs of a model, and nothing more.

`Rows` take new tokens and give the logits after the last one. `RememberedRows` do so with one copy
of the prompts' common beginning, in `unitune_local.remembering`; `CachedRows` with the cache of
transformers, for models whose attention is not plain (sliding windows, sinks, soft caps), which
then see every prompt whole.

Rows are padded on the left, so that the last token of all rows stands in the same column.

Shapes: B rows, S new tokens of a row, N tokens of a row so far, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from unitune_local.remembering import NAME, Memory

CHUNK_TOKENS = 512
"""New tokens of one row in one forward: bounds the scores, whose size grows with its square."""


class Rows(Protocol):
    """Rows of tokens that grow together."""

    def feed(self, ids: Tensor, real: Tensor) -> Tensor:
        """Add tokens to every row.

        Args:
            ids: The tokens (B, S).
            real: Which of them are no padding (B, S).

        Returns:
            The logits after the last one (B, V), in float32.
        """
        ...

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices)."""
        ...


class RememberedRows:
    """Rows after a common beginning that was computed once.

    Args:
        model: Switched to remembering attention by `remembering`.
        count: Number of rows (B).
        capacity: Tokens that a row will hold at most, the common beginning apart.
        shared: Memory of the common beginning, as one row; None when there is none.
    """

    def __init__(
        self, model: PreTrainedModel, count: int, capacity: int, shared: Memory | None = None
    ) -> None:
        self.memory = Memory(capacity, shared)
        self._model = model
        self._before = shared.used if shared else 0
        self._real = torch.zeros(count, 0, dtype=torch.bool, device=model.device)  # (B, N)

    def feed(self, ids: Tensor, real: Tensor) -> Tensor:
        """Add tokens (B, S) to every row and return the logits after the last one (B, V)."""
        *early, last = range(0, ids.shape[1], CHUNK_TOKENS)
        for start in early:
            self._feed(ids[:, start : start + CHUNK_TOKENS], real[:, start : start + CHUNK_TOKENS])
        return self._feed(ids[:, last:], real[:, last:])

    def _feed(self, ids: Tensor, real: Tensor) -> Tensor:
        new = ids.shape[1]
        self._real = torch.cat([self._real, real], dim=1)
        seen = torch.ones(new, self._real.shape[1], dtype=torch.bool, device=ids.device)
        mask = self._real[:, None, None, :] & seen.tril(self.memory.used)  # (B, 1, S, N)
        output = cast("Any", self._model)(
            ids,
            attention_mask=mask,
            position_ids=self._before + _positions(self._real)[:, -new:],
            use_cache=False,
            logits_to_keep=_last(ids),
            memory=self.memory,
        )
        self.memory.used += new
        return cast("Tensor", output.logits)[:, -1].float()

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices)."""
        self._real = self._real.index_select(0, rows)
        self.memory.keep(rows)


class CachedRows:
    """Rows of any causal language model, with the cache of transformers.

    Args:
        model: The model.
        count: Number of rows (B).
    """

    def __init__(self, model: PreTrainedModel, count: int) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._real = torch.zeros(count, 0, dtype=torch.bool, device=model.device)  # (B, N)
        # Renamed within the versions of transformers that are allowed.
        names = inspect.signature(type(model).forward).parameters
        self._keyword = "cache" if "cache" in names else "past_key_values"

    def feed(self, ids: Tensor, real: Tensor) -> Tensor:
        """Add tokens (B, S) to every row and return the logits after the last one (B, V)."""
        self._real = torch.cat([self._real, real], dim=1)
        output = cast("Any", self._model)(
            ids,
            attention_mask=self._real.long(),
            position_ids=_positions(self._real)[:, -ids.shape[1] :],
            use_cache=True,
            logits_to_keep=_last(ids),
            **{self._keyword: self._cache},
        )
        return cast("Tensor", output.logits)[:, -1].float()

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices)."""
        self._real = self._real.index_select(0, rows)
        self._cache.batch_select_indices(rows)


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
def remembering(model: PreTrainedModel) -> Generator[None]:
    """Switch a model to remembering attention, and back at the end."""
    before = cast("Any", model.config)._attn_implementation  # noqa: SLF001 - there is no getter
    switch = cast("Callable[[str], None]", cast("Any", model).set_attn_implementation)
    switch(NAME)
    try:
        yield
    finally:
        switch(before)
