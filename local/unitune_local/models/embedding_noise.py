"""Add noise to the embeddings of a training (NEFTune)."""

from __future__ import annotations

from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn

from unitune_local.data.attention import Layout


def add_noise(model: PeftModel, alpha: float) -> None:
    """Add noise to the embeddings of micro-batches while the model is in training mode.

    Each value gets noise from -s to s, where s = alpha / sqrt(L d) for a row of L tokens and
    embeddings of d values. L is the row's own length, without padding and other rows of a pack
    (transformers' own hook counts them).

    Source: Jain et al. 2023, "NEFTune: Noisy Embeddings Improve Instruction Finetuning", arXiv
    2310.05914, section 2.
    """
    lengths = torch.zeros(0)

    def note_lengths(_model: nn.Module, _given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal lengths
        if embeddings.training:  # the reload check calls the model without rows
            lengths = row_lengths(keywords.get("layout"), keywords.get("attention_mask"))

    def noisy(embeddings: nn.Module, _given: tuple[Any, ...], values: Tensor) -> Tensor:
        if not embeddings.training:
            return values
        most = alpha / (lengths * values.shape[-1]).sqrt()  # (1, T) or (B, 1)
        noise = torch.rand_like(values, dtype=torch.float32).mul_(2).sub_(1)
        return values + (noise * most[..., None]).to(values.dtype)

    embeddings = cast("nn.Module", cast("Any", model.get_base_model()).get_input_embeddings())
    model.register_forward_pre_hook(note_lengths, with_kwargs=True)
    embeddings.register_forward_hook(noisy)


def row_lengths(layout: Layout | None, attention_mask: Tensor | None) -> Tensor:
    """Return the length of each token's row: (1, T) when packed, else (B, 1)."""
    if layout is None:
        assert attention_mask is not None, "a micro-batch is packed or padded"
        return attention_mask.sum(1, keepdim=True)
    assert layout.prefix == 0, "rows that share a prefix would share its noise"
    own = layout.grid[:, -1] - layout.grid[:, 0] + 1  # (B,)
    return own[layout.places // layout.grid.shape[1]][None]
