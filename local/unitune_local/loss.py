"""The loss of a micro-batch, and which form of micro-batch a model can take.

The loss is the sum over trained tokens of weight times cross-entropy; the caller divides by the
weights of the whole optimiser step, so that cutting a step into parts changes nothing.

Packed batches replace the model's attention, which is right only where attention is plain causal.
`choose_form` reads that from the configuration, and then trusts no configuration: it computes the
loss of two rows in both forms, and packs only when they agree.

Shapes: as in `unitune_local.batches`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from unitune_local import attention
from unitune_local.batches import Batch, TrainingRow, packed, padded

AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Relative difference of two losses that is rounding: the same sums in another order."""

PROBED_TOKENS = 16
"""Of a prompt: more than a template puts before an answer."""


@dataclass(frozen=True, slots=True)
class Form:
    """How micro-batches are laid out.

    Args:
        kind: packed or padded.
        share: Whether a shared prefix is computed once.
        multiple: Lengths are multiples of it.
        reason: Why not the best form; empty when it is.
    """

    kind: Literal["packed", "padded"]
    share: bool
    multiple: int = 1
    reason: str = ""

    def batch(self, rows: Sequence[TrainingRow], device: torch.device) -> Batch:
        """Return rows as a micro-batch on a device."""
        if self.kind == "packed":
            return packed(rows, share=self.share, multiple=self.multiple).to(device)
        return padded(rows, multiple=self.multiple).to(device)


def loss_sum(model: nn.Module, batch: Batch) -> Tensor:
    """Return the weighted sum of the losses of a micro-batch's trained tokens, a scalar."""
    return (token_losses(model, batch) * batch.weights).sum()


def token_losses(model: nn.Module, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Return the loss of each trained token of a micro-batch, in float32.

    Args:
        model: With adapters or without.
        batch: The micro-batch.
        temperature: Of the distribution whose loss it is.
    """
    inputs: dict[str, object] = {"logits_to_keep": batch.keep, "use_cache": False}
    if batch.layout is not None:
        inputs |= {"position_ids": batch.positions, "layout": batch.layout}
    else:
        inputs |= {"attention_mask": batch.attention_mask}
    logits: Tensor = cast("Any", model)(input_ids=batch.ids, **inputs).logits.flatten(0, 1)
    if batch.picks is not None:
        logits = logits[batch.picks]  # (N, V)
    logits = logits.float() / temperature
    return functional.cross_entropy(logits, batch.targets, reduction="none")  # (N,)


def choose_form(
    model: PeftModel, rows: Sequence[TrainingRow], *, share: bool, multiple: int = 1
) -> Form:
    """Return the best form that this model computes rightly, and switch its attention to it.

    Args:
        model: With its adapters, on its device.
        rows: Of the training; the two shortest are computed in both forms.
        share: Whether a shared prefix may be computed once.
        multiple: Lengths are to be multiples of it.
    """
    base = cast("PreTrainedModel", model.get_base_model())
    simple = Form("padded", share=False, multiple=multiple)
    if reason := attention.not_plain(base.config):
        return replace(simple, reason=reason)
    form = Form("packed", share=share, multiple=multiple)
    probe = [_probed(row) for row in sorted(rows, key=lambda row: len(row.ids))[:2]]
    expected = _probe(model, simple, probe)
    try:
        use_attention(model, attention.NAME)
        actual = _probe(model, form, probe)
    except (TypeError, ValueError, RuntimeError) as error:
        use_attention(model, "sdpa")
        return replace(simple, reason=f"its attention cannot be replaced ({error})")
    if abs(actual - expected) <= AGREEMENT[base.dtype] * abs(expected):
        return form
    use_attention(model, "sdpa")
    reason = f"packed rows give another loss ({actual:.4f} instead of {expected:.4f})"
    return replace(simple, reason=reason)


def use_attention(model: PeftModel, name: str) -> None:
    """Switch the attention of the base model: ``sdpa``, or `unitune_local.attention.NAME`."""
    cast("Any", model.get_base_model()).set_attn_implementation(name)


def _probed(row: TrainingRow) -> TrainingRow:
    """Return a row; one that is a prompt alone as if its end were to be learnt.

    Of several tokens, as the last ones are the template's: certain, so that rounding shows.
    """
    if row.trained_tokens:
        return row
    count = min(PROBED_TOKENS, len(row.ids) - 1)
    return replace(row, trained=(*row.trained[:-count], *(True,) * count))


def _probe(model: PeftModel, form: Form, rows: Sequence[TrainingRow]) -> float:
    was_training = model.training
    model.eval()
    with torch.no_grad():
        loss = loss_sum(model, form.batch(rows, cast("torch.device", model.device))).item()
    model.train(was_training)
    return loss
