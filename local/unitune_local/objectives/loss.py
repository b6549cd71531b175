"""Compute the loss of a micro-batch, and choose the layout of a model's micro-batches.

The loss is the sum over trained tokens of weight times cross-entropy. The caller divides by the
weights of the whole step, so that cutting a step into parts changes nothing.

Shapes: as in `unitune_local.data.batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import checkpoint
from transformers import PreTrainedModel

from unitune.errors import Unsupported
from unitune_local.data import attention
from unitune_local.data.batches import Batch, TrainingRow, packed, padded
from unitune_local.models.model import use_attention
from unitune_local.settings import Settings

# Function of logits (N, V) and targets (N,); its result begins with N
Measure = Callable[[Tensor, Tensor], Tensor]

# Relative difference of two losses that is rounding: the same sums in another order
AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}

# Tokens whose logits are held at once in chunks: with 150,000 words, half a gigabyte
LOGIT_CHUNK = 256

PROBED_TOKENS = 16  # at the end of a prompt: more than a template puts before an answer


def most_logits(settings: Settings) -> int | None:
    """Return the number of tokens whose logits are held at once; None: all."""
    return LOGIT_CHUNK if settings.chunked_cross_entropy else None


@dataclass(frozen=True, slots=True)
class Form:
    """Layout of micro-batches."""

    kind: Literal["packed", "padded"]
    share: bool  # a shared prefix is computed once
    multiple: int = 1  # lengths are multiples of it
    most_logits: int | None = None  # trained tokens whose logits are held at once; None: all
    reason: str = ""  # why the best layout cannot be used; empty if it is
    # Dtype that float32 weights are computed in; None: float32
    autocast: torch.dtype | None = None

    def batch(self, rows: Sequence[TrainingRow], device: torch.device) -> Batch:
        """Return rows as a micro-batch on a device."""
        if self.kind == "packed":
            batch = packed(rows, share=self.share, multiple=self.multiple)
        else:
            batch = padded(rows, multiple=self.multiple)
        return replace(batch.to(device), most_logits=self.most_logits, autocast=self.autocast)


def loss_sum(model: nn.Module, batch: Batch) -> Tensor:
    """Return the weighted sum of the losses of a micro-batch's trained tokens, a scalar."""
    return (token_losses(model, batch) * batch.weights).sum()


def _computed_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context that computes float32 weights in another dtype; None: in float32."""
    if dtype is None or device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, dtype)


def token_losses(model: nn.Module, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Return the loss of each trained token of a micro-batch, in float32."""
    return _measured(model, batch, partial(_cross_entropy, temperature=temperature))  # (N,)


def losses_and_entropies(
    model: nn.Module, batch: Batch, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the loss of each trained token, and the entropy of the model there, in nats.

    The entropy has no gradient.
    """
    both = _measured(model, batch, partial(_loss_and_entropy, temperature=temperature))  # (N, 2)
    return both[:, 0], both[:, 1].detach()


def _measured(model: nn.Module, batch: Batch, measure: Measure) -> Tensor:
    inputs: dict[str, object] = {"logits_to_keep": batch.keep, "use_cache": False}
    if batch.layout is not None:
        inputs |= {"position_ids": batch.positions, "layout": batch.layout}
    else:
        inputs |= {"attention_mask": batch.attention_mask}
    with _computed_in(batch.autocast, batch.ids.device):
        if batch.most_logits is not None:
            return _chunked(model, batch, inputs, measure)
        logits: Tensor = cast("Any", model)(input_ids=batch.ids, **inputs).logits.flatten(0, 1)
        if batch.picks is not None:
            logits = logits[batch.picks]  # (N, V)
        return measure(logits, batch.targets)


def _chunked(model: nn.Module, batch: Batch, inputs: dict[str, object], measure: Measure) -> Tensor:
    """Measure the logits of a few tokens at a time, and recompute them in the backward pass."""
    head = cast("nn.Module", cast("Any", model).get_output_embeddings())
    with _passing_through(head):
        hidden: Tensor = cast("Any", model)(input_ids=batch.ids, **inputs).logits.flatten(0, 1)
    if batch.picks is not None:
        hidden = hidden[batch.picks]  # (N, H)

    def losses(states: Tensor, targets: Tensor) -> Tensor:
        return measure(head(states), targets)

    again = cast("Any", checkpoint).checkpoint
    parts = (cast("Any", each).split(batch.most_logits) for each in (hidden, batch.targets))
    chunks = zip(*parts, strict=True)
    return torch.cat([again(losses, *chunk, use_reentrant=False) for chunk in chunks])


@contextmanager
def _passing_through(layer: nn.Module) -> Generator[None]:
    own = vars(layer).get("forward")

    def same(states: Tensor) -> Tensor:
        return states

    cast("Any", layer).forward = same
    try:
        yield
    finally:
        vars(layer).pop("forward")
        if own is not None:
            cast("Any", layer).forward = own


def _cross_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = logits.float() / temperature
    return functional.cross_entropy(logits, targets, reduction="none")  # (N,)


def _loss_and_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    chances = functional.log_softmax(logits.float() / temperature, dim=-1)  # (N, V)
    losses = functional.nll_loss(chances, targets, reduction="none")
    with torch.no_grad():
        # In parts, as two more copies of all logits would need too much memory.
        parts = cast("Any", chances.detach()).split(LOGIT_CHUNK)
        entropies = torch.cat([-(part.exp() * part).sum(-1) for part in parts])
    return torch.stack([losses, entropies], dim=1)  # (N, 2)


def choose_form(model: PeftModel, rows: Sequence[TrainingRow], settings: Settings) -> Form:
    """Return the best form that this model computes correctly, and switch its attention to it.

    Packing is only right for plain causal attention. The configuration may be wrong about that, so
    the two shortest rows are computed in both forms, whose losses must agree.

    Raises:
        Unsupported: The model does more with its logits than its output head.
    """
    base = cast("PreTrainedModel", model.get_base_model())
    chunk, autocast = most_logits(settings), settings.autocast
    simple = Form("padded", False, settings.length_multiple, chunk, autocast=autocast)
    dtype = autocast or base.dtype
    probe = [_probed(row) for row in sorted(rows, key=lambda row: len(row.ids))[:2]]
    expected = _probe(model, replace(simple, most_logits=None), probe)
    if chunk is not None and not _agree(_probe(model, simple, probe), expected, dtype):
        raise Unsupported(
            "this model changes its logits after the output head, so they cannot be computed in "
            "chunks. Set options.local.chunked_cross_entropy to false."
        )
    if reason := attention.not_plain(base.config):
        return replace(simple, reason=reason)
    form = replace(simple, kind="packed", share=settings.share_prefix)
    try:
        use_attention(model, attention.NAME)
        actual = _probe(model, form, probe)
    except (TypeError, ValueError, RuntimeError) as error:
        use_attention(model, None)
        return replace(simple, reason=f"its attention cannot be replaced ({error})")
    if _agree(actual, expected, dtype):
        return form
    use_attention(model, None)
    reason = f"packed rows give a different loss ({actual:.4f} instead of {expected:.4f})"
    return replace(simple, reason=reason)


def _probed(row: TrainingRow) -> TrainingRow:
    """Return a row; a prompt alone is treated as if its end was trained on.

    Several tokens are, because the losses of the template's last tokens are mostly rounding.
    """
    if row.trained_tokens:
        return row
    count = min(PROBED_TOKENS, len(row.ids) - 1)
    return replace(row, trained=(*row.trained[:-count], *(True,) * count))


def _agree(actual: float, expected: float, dtype: torch.dtype) -> bool:
    return abs(actual - expected) <= AGREEMENT[dtype] * abs(expected)


def _probe(model: PeftModel, form: Form, rows: Sequence[TrainingRow]) -> float:
    was_training = model.training
    model.eval()
    with torch.no_grad():
        loss = loss_sum(model, form.batch(rows, cast("torch.device", model.device))).item()
    model.train(was_training)
    return loss
