"""Compute exact attention over packed rows, with the prefix that they share only once.

A micro-batch is one sequence ``[prefix | row 1 | row 2 | … | tail]``: the prefix attends to itself,
each row to the prefix and itself, and the tail only rounds the length. A mask takes memory with the
square of a row's length, so long rows are computed span by span without one.

Shapes: T tokens of the packed sequence, P of them prefix; B rows, S longest row (rounded up); H
query heads, G key heads, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedConfig

from unitune_local import machine

NAME = "unitune_packed"
# Scores up to which plain products are used. Torch's own attention, whose backward is slow in
# bfloat16 on CPUs, took 2 to 5 times as long. Beyond, plain products need too much memory.
LARGEST_PLAIN_SCORES = 2**24
# Cells of a mask. On a CPU, spans without a larger mask were as fast or faster, and each layer
# keeps 4 bytes a cell for the backward pass.
LARGEST_MASK = 2**18
CAUSAL = (-1, 0)  # window of flash attention: all keys before a query, counted from the end of both


class Span(NamedTuple):
    """Neighbouring tokens that see their predecessors and all of some earlier ranges."""

    start: int
    end: int
    context: tuple[tuple[int, int], ...] = ()

    @property
    def keys(self) -> tuple[tuple[int, int], ...]:
        """Ranges of the tokens that the last token of the span sees."""
        return (*self.context, (self.start, self.end))


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of the rows in a packed sequence."""

    prefix: int  # tokens shared by all rows, at the start of the sequence (P); 0 for none
    # Each row's positions in the sequence; after a row's end, its last position is repeated
    grid: Tensor  # (B, S)
    # Cell in the flattened grid of each token after the prefix; arbitrary for the tail
    places: Tensor  # (T - P,)
    spans: tuple[Span, ...]  # all tokens, in order
    # Cumulative lengths of the queries and of the keys of the spans
    ends: Tensor  # (2, spans + 1), int32
    # Keys that a row's query sees, for all rows or for each row. None: a mask would be large, or
    # the single row needs none.
    mask: Tensor | None  # (S, P + S) or (B, 1, S, P + S), bool

    def to(self, device: torch.device) -> Layout:
        """Return the same layout on a device."""
        grid, places, ends = (each.to(device) for each in (self.grid, self.places, self.ends))
        mask = None if self.mask is None else self.mask.to(device)
        return Layout(self.prefix, grid, places, self.spans, ends, mask)


def lay_out(
    prefix: int,
    lengths: list[int],
    longest: int,
    tail: int,
    forks: Sequence[tuple[int, int] | None] = (),
) -> Layout:
    """Return the layout of a prefix followed by rows of these lengths and a tail.

    The grid is as wide as `longest`. Forks are the starts of each row's two answers after the
    prefix, if it has two.
    """
    sizes = torch.tensor(lengths)
    starts = prefix + sizes.cumsum(0) - sizes
    columns = torch.arange(longest)
    grid = starts[:, None] + columns.minimum(sizes[:, None] - 1)  # (B, S)
    rows = torch.nonzero((columns < sizes[:, None]).flatten()).flatten()
    places = torch.cat([rows, rows.new_zeros(tail)])  # (T - P,)
    spans = _spans(prefix, lengths, tail, forks)
    sizes_of_keys = [sum(end - start for start, end in span.keys) for span in spans]
    counts = [[0, *(span.end - span.start for span in spans)], [0, *sizes_of_keys]]
    ends = torch.tensor(counts).cumsum(1).int()  # (2, spans + 1)
    cells = longest * (prefix + longest) * (len(lengths) if any(forks) else 1)
    if len(spans) == 1 or cells > LARGEST_MASK:
        return Layout(prefix, grid, places, spans, ends, None)
    seen = columns[:, None] >= columns[None, :]  # (S, S)
    if any(forks):
        # The worse answer does not see the better one before it. A row without a fork has an empty
        # better answer.
        starts = zip(*(fork or (0, 0) for fork in forks), strict=True)
        better, worse = map(torch.tensor, starts)
        between = (columns >= better[:, None]) & (columns < worse[:, None])  # (B, S)
        behind = columns >= worse[:, None]  # (B, S)
        seen = (seen & ~(behind[:, :, None] & between[:, None, :]))[:, None]  # (B, 1, S, S)
    opening = torch.ones(*seen.shape[:-1], prefix, dtype=torch.bool)
    return Layout(prefix, grid, places, spans, ends, torch.cat([opening, seen], dim=-1))


def _spans(
    prefix: int, lengths: list[int], tail: int, forks: Sequence[tuple[int, int] | None]
) -> tuple[Span, ...]:
    shared = ((0, prefix),) if prefix else ()
    spans = [Span(0, prefix)] if prefix else []
    at = prefix
    for number, length in enumerate(lengths):
        end = at + length + (tail if number == len(lengths) - 1 else 0)
        if forks and (fork := forks[number]):
            better, worse = at + fork[0], at + fork[1]
            prompt = (*shared, (at, better)) if better > at else shared
            spans += [Span(at, better, shared)] if better > at else []
            spans += [Span(better, worse, prompt), Span(worse, end, prompt)]
        else:
            spans.append(Span(at, end, shared))
        at += length
    return tuple(spans)


def not_plain(config: PreTrainedConfig) -> str:
    """Return why a model's configuration rules out plain causal attention, or an empty text."""
    text = cast("Any", config).get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its layers are {', '.join(sorted(kinds))}"
    uses_window = getattr(text, "use_sliding_window", True)
    if uses_window and getattr(text, "sliding_window", None) is not None:
        return f"its attention slides over a window of {text.sliding_window} tokens"
    if getattr(text, "attn_logit_softcapping", None) is not None:
        return "its attention scores are capped"
    return ""


def packed_attention(  # noqa: PLR0913 - transformers' signature of an attention function
    module: nn.Module,  # noqa: ARG001 - part of the signature
    query: Tensor,  # (1, H, T, D)
    key: Tensor,  # (1, G, T, D)
    value: Tensor,  # (1, G, T, D)
    attention_mask: Tensor | None,  # noqa: ARG001 - the layout replaces it
    *,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend within the prefix and from each row to the prefix and itself; return (1, T, H, D)."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    if dropout == 0.0 and machine.has_flash_attention(query):
        return _by_flash(query[0], key[0], value[0], layout, scaling)[None], None
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key = key.repeat_interleave(repeats, dim=1)
        value = value.repeat_interleave(repeats, dim=1)
    if layout.mask is None:
        parts = [_by_span(query, key, value, each, scaling, dropout) for each in layout.spans]
        return torch.cat(parts, dim=2).transpose(1, 2), None  # (1, T, H, D)
    shared = layout.prefix
    rows = [_grid_of(part[0], layout) for part in (query, key, value)]  # each (B, H, S, D)
    if shared == 0:
        within = _attend(rows[0], rows[1], rows[2], layout.mask, scaling, dropout)
        return _flat_of(within, layout)[None], None
    opening = functional.scaled_dot_product_attention(
        query[:, :, :shared],
        key[:, :, :shared],
        value[:, :, :shared],
        is_causal=True,
        dropout_p=dropout,
        scale=scaling,
    )  # (1, H, P, D)
    count = layout.grid.shape[0]
    keys, values = (
        torch.cat([part[:, :, :shared].expand(count, -1, -1, -1), row], dim=2)
        for part, row in ((key, rows[1]), (value, rows[2]))
    )  # (B, H, P + S, D)
    within = _attend(rows[0], keys, values, layout.mask, scaling, dropout)  # (B, H, S, D)
    return torch.cat([opening[0].transpose(0, 1), _flat_of(within, layout)])[None], None


def _by_flash(
    query: Tensor,  # (H, T, D)
    key: Tensor,  # (G, T, D)
    value: Tensor,  # (G, T, D)
    layout: Layout,
    scaling: float | None,
) -> Tensor:
    """Attend with one call of flash attention; returns (T, H, D)."""
    spans = layout.spans
    if any(span.context for span in spans):
        ranges = [each for span in spans for each in span.keys]
        key, value = (
            torch.cat([part[:, start:end] for start, end in ranges], dim=1) for part in (key, value)
        )  # (G, K, D)
    return variable_length(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        layout.ends[0],
        layout.ends[1],
        max(span.end - span.start for span in spans),
        max(sum(end - start for start, end in span.keys) for span in spans),
        scale=scaling,
        window_size=CAUSAL,
        enable_gqa=True,
    )


# Tests replace it with one that a CPU can compute
variable_length = cast("Any", varlen_attn)


def _by_span(  # noqa: PLR0913, PLR0917 - the arguments of attention
    query: Tensor,  # (1, H, T, D)
    key: Tensor,  # (1, H, T, D)
    value: Tensor,  # (1, H, T, D)
    span: Span,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Attend from the tokens of a span to what they see; returns (1, H, tokens of span, D)."""

    def of(part: Tensor, ranges: Sequence[tuple[int, int]]) -> Tensor:
        return torch.cat([part[:, :, start:end] for start, end in ranges], dim=2)

    own = span.end - span.start
    keys, values = of(key, span.keys), of(value, span.keys)
    queries, mask = query[:, :, span.start : span.end], None
    if span.context and own * keys.shape[2] <= LARGEST_MASK:
        mask = torch.ones(own, keys.shape[2], dtype=torch.bool, device=query.device)
        mask = mask.tril(keys.shape[2] - own)
    elif span.context:  # the context is recomputed, which needs no mask
        queries = of(query, span.keys)
    return _attend(queries, keys, values, mask, scaling, dropout)[:, :, -own:]


def _attend(  # noqa: PLR0913, PLR0917 - the arguments of attention
    query: Tensor,  # (B, H, S, D)
    key: Tensor,  # (B, H, P + S, D)
    value: Tensor,  # (B, H, P + S, D)
    mask: Tensor | None,  # (S, P + S) or (B, 1, S, P + S); None: causal, with P = 0
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Attend with the fastest kernel: on a CPU in bfloat16, plain products for short rows."""
    scores_size = query.numel() // query.shape[-1] * key.shape[2]
    plain = query.dtype is torch.bfloat16 and query.device.type == "cpu"
    if not plain or scores_size > LARGEST_PLAIN_SCORES:
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
        )
    if mask is None:
        mask = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).tril()
    bias = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = torch.softmax(query * scale @ key.transpose(2, 3) + bias, dim=-1)  # (B, H, S, P + S)
    return functional.dropout(weights, dropout) @ value


def _grid_of(part: Tensor, layout: Layout) -> Tensor:
    """Return (H, T, D) as padded rows (B, H, S, D)."""
    rows, longest = layout.grid.shape
    cells = part.index_select(1, layout.grid.flatten())  # (H, B * S, D)
    return cells.view(part.shape[0], rows, longest, part.shape[2]).transpose(0, 1)


def _flat_of(rows: Tensor, layout: Layout) -> Tensor:
    """Return padded rows (B, H, S, D) as tokens (T - P, H, D)."""
    return rows.transpose(1, 2).flatten(0, 1).index_select(0, layout.places)


AttentionInterface.register(NAME, packed_attention)  # pyright: ignore[reportUnknownMemberType]  # its callable is open
