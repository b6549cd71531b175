"""Attention of a batch under generation, with the prompts' common beginning kept once.

All prompts of a call begin with the same tokens (the system prompt, the shots). Their keys and
values are computed once and stay one copy: every row attends to them and to its own, which lie in
buffers that are made once, so that a step neither grows nor repeats anything. Both parts share one
softmax, so the result is that of the whole sequence.

A model switched to `NAME` takes a `Memory` as a keyword of its forward, and the visible places as
its attention mask. Only plain causal attention can do so (`is_plain`); what serves the other models
stands in `unitune_local.decoding`.

Shapes: B rows, S new tokens of a row, P shared tokens, C places for a row's own tokens, N of them
used; H query heads in G groups of R that share a key head, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from unitune.errors import Unsupported

NAME = "unitune_remembering"
BEYOND_PLAIN = ("softcap", "s_aux", "position_bias", "sliding_window")
"""Keywords by which models ask for more than plain attention."""


@dataclass(frozen=True, slots=True)
class KeysValues:
    """Keys and values of one layer."""

    keys: Tensor  # (B, G, C, D)
    values: Tensor  # (B, G, C, D)


@dataclass(slots=True)
class Memory:
    """Keys and values of a batch in all layers.

    Args:
        capacity: Places for a row's own tokens (C).
        shared: What all rows have seen before: the full memory of one row, or None.
        used: Places filled by earlier forwards (N - S).
        layers: By layer index; made when a layer first sees tokens.
    """

    capacity: int
    shared: Memory | None = None
    used: int = 0
    layers: dict[int, KeysValues] = field(default_factory=dict[int, KeysValues])

    def add(self, layer: int, key: Tensor, value: Tensor) -> KeysValues:
        """Put a layer's new keys and values (B, G, S, D) in place; return all (B, G, N, D)."""
        if layer not in self.layers:
            rows, groups, _, width = key.shape
            shape = (rows, groups, self.capacity, width)
            self.layers[layer] = KeysValues(key.new_empty(shape), value.new_empty(shape))
        places = self.layers[layer]
        end = self.used + key.shape[2]
        places.keys[:, :, self.used : end] = key
        places.values[:, :, self.used : end] = value
        return KeysValues(places.keys[:, :, :end], places.values[:, :, :end])

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices)."""
        for layer, places in self.layers.items():
            self.layers[layer] = KeysValues(
                places.keys.index_select(0, rows), places.values.index_select(0, rows)
            )


def is_plain(model: PreTrainedModel) -> bool:
    """Whether every layer of a model attends to all earlier tokens, and in no other way."""
    config = cast("Any", model.config)
    kinds = cast("list[str]", getattr(config, "layer_types", None) or [])
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and all(kind == "full_attention" for kind in kinds)
        and (bool(kinds) or getattr(config, "sliding_window", None) is None)
        and getattr(config, "attn_logit_softcapping", None) is None
        and not any(name.endswith("sinks") for name, _ in model.named_parameters())
    )


def remembering_attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: Tensor,  # (B, H, S, D)
    key: Tensor,  # (B, G, S, D)
    value: Tensor,  # (B, G, S, D)
    attention_mask: Tensor,  # (B, 1, S, N), bool
    *,
    memory: Memory,
    scaling: float | None = None,
    **extra: object,
) -> tuple[Tensor, None]:
    """Attend from new tokens to the shared ones, the row's own earlier ones, and themselves.

    Args:
        module: The attention layer that asks.
        query: Queries of the new tokens.
        key: Their keys.
        value: Their values.
        attention_mask: Which of a row's own places each query sees.
        memory: What came before; the new keys and values are added to it.
        scaling: Factor of the scores; 1 / sqrt(D) by default.
        extra: What else models hand to attention; most of it concerns other implementations.

    Returns:
        The attended values (B, S, H, D), and None for the weights.
    """
    if asked := [name for name in BEYOND_PLAIN if extra.get(name) is not None]:
        raise Unsupported(f"this attention is plain, but the model asks for {', '.join(asked)}.")
    layer = cast("int", module.layer_idx)
    own = memory.add(layer, key, value)
    rows, heads, new, width = query.shape
    groups = key.shape[1]
    query = query * (width**-0.5 if scaling is None else scaling)
    query = query.reshape(rows, groups, -1, width)  # (B, G, R * S, D)
    scores = query @ own.keys.transpose(2, 3)  # (B, G, R * S, N)
    hidden = ~attention_mask.repeat(1, 1, heads // groups, 1)  # (B, 1, R * S, N)
    # The least number instead of minus infinity: a padded query that sees nothing stays finite.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    before = memory.shared.layers[layer] if memory.shared else None
    if before is not None:
        scores = torch.cat([_over_rows(query, before.keys[0].mT), scores], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)  # (B, G, R * S, P + N)
    own_weights = weights[..., -own.values.shape[2] :]
    attended = own_weights @ own.values  # (B, G, R * S, D)
    if before is not None:
        shared_weights = weights[..., : before.values.shape[2]]
        attended = attended + _over_rows(shared_weights, before.values[0])
    return attended.view(rows, heads, new, width).transpose(1, 2), None


def _over_rows(left: Tensor, right: Tensor) -> Tensor:
    """Multiply (B, G, X, Y) by (G, Y, Z), one large product a group instead of one a row."""
    rows, groups, height, depth = left.shape
    flat = left.transpose(0, 1).reshape(groups, rows * height, depth)
    return (flat @ right).view(groups, rows, height, -1).transpose(0, 1)


cast("Any", AttentionInterface).register(NAME, remembering_attention)
