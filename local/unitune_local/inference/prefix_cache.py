"""Compute attention during generation with one copy of the prompts' common prefix.

Every row attends to the shared keys and values and to its own, under one softmax. A row's buffer
grows in blocks: products over a whole buffer need no copy of it.

Shapes: B rows, S new tokens of a row, P shared tokens, C places for a row's own tokens; H query
heads in G groups of R that share a key head, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from unitune.errors import Unsupported
from unitune_local.data.attention import not_plain
from unitune_local.models.model import use_attention

NAME = "unitune_prefix_cache"
BLOCK = 32  # places by which a row's buffer grows; unused ones are masked
# Keywords of models that need more than plain attention
BEYOND_PLAIN = ("softcap", "s_aux", "position_bias", "sliding_window")


@dataclass(frozen=True, slots=True)
class KeysValues:
    """Keys and values of one layer."""

    keys: Tensor  # (B, G, C, D)
    values: Tensor  # (B, G, C, D)

    @property
    def places(self) -> int:
        """Number of tokens that a row has room for (C)."""
        return self.keys.shape[2]

    def changed(self, change: Callable[[Tensor], Tensor]) -> KeysValues:
        """Apply a change to keys and values."""
        return KeysValues(change(self.keys), change(self.values))

    def followed_by(self, *others: KeysValues) -> KeysValues:
        """Return these places followed by those of others."""
        parts = (self, *others)
        keys, values = [part.keys for part in parts], [part.values for part in parts]
        return KeysValues(torch.cat(keys, dim=2), torch.cat(values, dim=2))


@dataclass(slots=True)
class PrefixCache:
    """Keys and values of a batch in all layers."""

    shared: PrefixCache | None = None  # cache of the common prefix, as one row
    used: int = 0  # places filled by earlier forwards (N - S)
    # By layer index; created when a layer first gets tokens
    layers: dict[int, KeysValues] = field(default_factory=dict[int, KeysValues])
    spare: int = 0  # last rows of every layer, free for rows to join

    @property
    def rows(self) -> int:
        """Rows in use (B)."""
        return next((each.keys.shape[0] for each in self.layers.values()), 0) - self.spare

    def places(self, new: int) -> int:
        """Return the places of every layer after so many new tokens (C)."""
        needed = self.used + new
        held = next((layer.places for layer in self.layers.values()), needed)
        return held if needed <= held else needed + BLOCK

    def add(self, layer: int, key: Tensor, value: Tensor) -> KeysValues:
        """Append a layer's new keys and values (B, G, S, D); return all (B, G, C, D)."""
        if layer not in self.layers:
            self.layers[layer] = KeysValues(key.contiguous(), value.contiguous())
            return self.layers[layer]
        end = self.used + key.shape[2]
        places = self.layers[layer]
        if places.places < end:
            more = self.places(key.shape[2]) - places.places
            places = places.changed(lambda part: _widened(part, after=more))
            self.layers[layer] = places
        own = places.changed(lambda part: part[: key.shape[0]])
        own.keys[:, :, self.used : end] = key
        own.values[:, :, self.used : end] = value
        return own

    def seen(self, layer: int) -> KeysValues:
        """Return a layer's keys and values in the used rows and places."""
        return self.layers[layer].changed(lambda part: part[: self.rows, :, : self.used])

    def keep(self, rows: Tensor, first: int = 0) -> None:
        """Keep only the rows with these indices, and drop the places before the first needed one.

        Where most rows stay, the others are moved into the gaps, and nothing else is copied.
        """
        if first or 2 * len(rows) < self.rows + self.spare or len(rows) > self.rows:
            for layer, places in self.layers.items():
                at = rows.to(places.keys.device)  # layers may be on several GPUs
                kept = places.changed(lambda part, at=at: part[:, :, first:].index_select(0, at))
                self.layers[layer] = kept
            self.used, self.spare = self.used - first, 0
            return
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for places in self.layers.values():
            to, source = (each.to(places.keys.device) for each in (moved, rows[moved]))
            for part in (places.keys, places.values):
                part[to] = part[source]
        self.spare += self.rows - len(rows)

    def joined_by(self, others: Sequence[PrefixCache]) -> PrefixCache:
        """Return a cache with the rows of others after these.

        Without enough room, it is a copy with room for a quarter more; otherwise it is this cache.
        """
        count, start = sum(other.rows for other in others), self.rows
        if count > self.spare or self.used < max(other.used for other in others):
            return joined([self, *others] if start else others, (start + count) // 4)
        for other in others:
            for layer, places in self.layers.items():
                new = other.seen(layer)
                for part, more in ((places.keys, new.keys), (places.values, new.values)):
                    part[start : start + other.rows, :, self.used - other.used : self.used] = more
            start += other.rows
        self.spare -= count
        return self


def joined(parts: Sequence[PrefixCache], spare: int = 0) -> PrefixCache:
    """Return the rows of caches with the same shared cache as one, with room for a block more.

    Narrower caches are padded on the left; `spare` free rows follow.
    """
    whole = PrefixCache(parts[0].shared, max(part.used for part in parts), spare=spare)
    for layer in parts[0].layers:
        own = [
            part.seen(layer).changed(
                lambda rows, before=whole.used - part.used: _widened(rows, before, BLOCK)
            )
            for part in parts
        ]
        room = own[0].changed(lambda part: part.new_zeros(spare, *part.shape[1:]))
        own.append(room)
        whole.layers[layer] = KeysValues(
            torch.cat([part.keys for part in own]), torch.cat([part.values for part in own])
        )
    return whole


def _widened(part: Tensor, before: int = 0, after: int = 0) -> Tensor:
    return functional.pad(part, (0, 0, before, after))


def is_plain(model: PreTrainedModel) -> bool:
    """Return whether every layer of a model attends to all earlier tokens, and in no other way."""
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and not not_plain(model.config)
        and not any(name.endswith("sinks") for name, _ in model.named_parameters())
        and _hands_keywords_on(model)
    )


HAND_KEYWORDS_ON: dict[type[PreTrainedModel], bool] = {}


def _hands_keywords_on(model: PreTrainedModel) -> bool:
    """Return whether a model passes keywords to its attention, by trying one token per class."""
    if type(model) not in HAND_KEYWORDS_ON:
        one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=model.device)
        use_attention(model, NAME)
        try:
            with torch.inference_mode():
                cast("Any", model)(
                    one,
                    attention_mask=seen,
                    position_ids=one,
                    use_cache=False,
                    prefix_cache=PrefixCache(),
                )
            HAND_KEYWORDS_ON[type(model)] = True
        except TypeError:
            HAND_KEYWORDS_ON[type(model)] = False
        finally:
            use_attention(model, None)
    return HAND_KEYWORDS_ON[type(model)]


def prefix_cache_attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: Tensor,  # (B, H, S, D)
    key: Tensor,  # (B, G, S, D)
    value: Tensor,  # (B, G, S, D)
    attention_mask: Tensor,  # (B, 1, S, C), bool
    *,
    prefix_cache: PrefixCache,
    scaling: float | None = None,
    **extra: object,
) -> tuple[Tensor, None]:
    """Attend from new tokens to the shared ones, the row's earlier ones, and themselves.

    Returns the attended values (B, S, H, D), and None for the weights.
    """
    if wanted := [name for name in BEYOND_PLAIN if extra.get(name) is not None]:
        raise Unsupported(f"the model's attention uses {', '.join(wanted)}, which is unsupported.")
    layer = cast("int", module.layer_idx)
    own = prefix_cache.add(layer, key, value)
    rows, heads, new, width = query.shape
    groups = key.shape[1]
    query = query * (width**-0.5 if scaling is None else scaling)
    query = query.reshape(rows, groups, -1, width)  # (B, G, R * S, D)
    scores = query @ own.keys.transpose(2, 3)  # (B, G, R * S, C)
    hidden = ~attention_mask  # (B, 1, S, C)
    if new > 1:
        hidden = hidden.repeat(1, 1, heads // groups, 1)  # (B, 1, R * S, C)
    # The smallest number instead of minus infinity keeps padded queries that see nothing finite.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    before = prefix_cache.shared.seen(layer) if prefix_cache.shared else None
    if before is not None:
        scores = torch.cat([_over_rows(query, before.keys[0].mT), scores], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)  # (B, G, R * S, P + C)
    own_weights = weights[..., -own.values.shape[2] :]
    attended = own_weights @ own.values  # (B, G, R * S, D)
    if before is not None:
        shared_weights = weights[..., : before.values.shape[2]]
        attended = attended + _over_rows(shared_weights, before.values[0])
    return attended.view(rows, heads, new, width).transpose(1, 2), None


def _over_rows(left: Tensor, right: Tensor) -> Tensor:
    """Multiply (B, G, X, Y) by (G, Y, Z) with one large product per group."""
    rows, groups, height, depth = left.shape
    flat = left.transpose(0, 1).reshape(groups, rows * height, depth)
    return (flat @ right).view(groups, rows, height, -1).transpose(0, 1)


cast("Any", AttentionInterface).register(NAME, prefix_cache_attention)
