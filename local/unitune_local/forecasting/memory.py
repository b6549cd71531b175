"""What a model and one micro-batch of its training hold in memory, before any weight is loaded.

The model is built on torch's meta device, whose tensors have shape and type but no content. A
forward pass there shows, through `torch.autograd.graph.saved_tensors_hooks`, every tensor that is
kept for the backward pass, whatever the architecture. What a process holds besides is measured or
guessed in `unitune_local.forecasting.cost_model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from unitune.errors import UserError
from unitune_local.data import attention
from unitune_local.data.batches import Batch, TrainingRow
from unitune_local.models.model import add_adapter, config_of, keep_inputs_alone, use_attention
from unitune_local.objectives.loss import Form, loss_sum
from unitune_local.settings import Dimensions, Settings

LOGIT_BYTES = 8
"""Of each logit during the backward pass: its gradient in float32 and in the model's dtype."""
CHUNK_LOGIT_BYTES = 8
"""Of each logit that is computed again: itself and its log-probability, in float32."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model and of its adapters."""

    parameters: int  # of the base
    linear: int  # weights that every token is multiplied with, the output head apart
    adapter: int  # weights of the adapters
    layers: int
    hidden: int
    mlp: int
    vocabulary: int
    context: int


def dimensions_of(folder: Path) -> Dimensions:
    """Return what the default settings of a model folder depend on."""
    text = cast("Any", config_of(folder)).get_text_config()
    return Dimensions(context=int(text.max_position_embeddings), hidden=int(text.hidden_size))


def meta_model(folder: Path, settings: Settings) -> PeftModel:
    """Return the model with the adapters that the settings would add, on torch's meta device.

    Raises:
        UserError: No linear layer has a name among the targets.
    """
    with torch.device("meta"):
        base = cast("Any", AutoModelForCausalLM).from_config(
            config_of(folder), dtype=settings.torch_dtype, attn_implementation="sdpa"
        )
        _check_targets(base, settings)
        return add_adapter(base, settings).train()


def shape_of(model: PeftModel) -> Shape:
    """Return the size of a model with adapters."""
    base = cast("Any", model.get_base_model())
    text, head = base.config.get_text_config(), base.get_output_embeddings()
    weights = list(model.parameters())
    return Shape(
        parameters=sum(weight.numel() for weight in weights if not weight.requires_grad),
        linear=sum(
            layer.weight.numel()
            for layer in model.modules()
            if isinstance(layer, nn.Linear) and layer is not head and not layer.weight.requires_grad
        ),
        adapter=sum(weight.numel() for weight in weights if weight.requires_grad),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
    )


def held_bytes(model: PeftModel, form: Form, rows: Sequence[TrainingRow]) -> int:
    """Return what forward and backward of a micro-batch hold beside the weights.

    A model that cannot be run without numbers (where to route a token, say) is estimated. Where
    layers are computed again (gradient checkpointing), it is their inputs, and all of one layer.
    """
    use_attention(model, attention.NAME if form.kind == "packed" else "sdpa")
    batch = form.batch(rows, torch.device("meta"))
    count, longest = batch.ids.shape
    if batch.attention_mask is not None:  # a mask of this form is not looked into
        mask = torch.ones(count, 1, longest, longest, dtype=torch.bool, device="meta")
        batch = replace(batch, attention_mask=mask)
    shape, base = shape_of(model), cast("Any", model.get_base_model())
    logits = count * batch.keep.numel()
    logit_bytes = LOGIT_BYTES
    if form.most_logits is not None:
        logits, logit_bytes = min(logits, form.most_logits), LOGIT_BYTES + CHUNK_LOGIT_BYTES
    gradients = 4 * shape.adapter + logit_bytes * logits * shape.vocabulary
    values = _saved_bytes(model, batch, shape)
    if base.is_activation_checkpointing:
        base.activation_checkpointing_disable()
        values += (_saved_bytes(model, batch, shape) - values) // shape.layers
        keep_inputs_alone(model)
    return values + gradients


def _saved_bytes(model: PeftModel, batch: Batch, shape: Shape) -> int:
    own = {id(weight.untyped_storage()) for weight in [*model.parameters(), *model.buffers()]}
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # the same object for all views of it
        if id(storage) not in own:
            saved[id(storage)] = storage
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss_sum(model, batch)
    except (RuntimeError, NotImplementedError):
        tokens, itemsize = batch.ids.numel(), model.dtype.itemsize
        if cast("Any", model.get_base_model()).is_activation_checkpointing:
            return tokens * shape.layers * shape.hidden * itemsize
        logits = 0 if batch.most_logits else batch.ids.shape[0] * batch.keep.numel()
        # Inputs and outputs of norms, projections, attention and MLP, as most models have them.
        values = tokens * shape.layers * (12 * shape.hidden + 4 * shape.mlp)
        return values * itemsize + LOGIT_BYTES * logits * shape.vocabulary
    return sum(storage.nbytes() for storage in saved.values())


def _check_targets(model: nn.Module, settings: Settings) -> None:
    head = cast("Any", model).get_output_embeddings()
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    names = {
        name.rpartition(".")[2]
        for name, layer in modules
        if isinstance(layer, nn.Linear) and layer is not head
    }
    if settings.targets != "all" and names.isdisjoint(settings.targets):
        raise UserError(
            f"tuning.lora.targets is {list(settings.targets)}, but the model has no linear layer "
            f"of such a name. It has {', '.join(sorted(names))}."
        )
