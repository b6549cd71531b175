"""Full fine-tuning: a model of which every weight is trained, and the folder that it is saved in.

Weights and optimiser are float32 and the computation may be in fewer bits (`Settings.autocast`).
What is saved has the dtype of the base model's own files, and is a model folder like any other,
with ``unitune.json`` as beside an adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from unitune.backends.exports import ABOUT
from unitune.findings import Finding, error
from unitune_local.models.embedding_noise import add_noise
from unitune_local.models.model import (
    add_adapter,
    config_of,
    keep_inputs_alone,
    round_weights,
)
from unitune_local.models.model_folder import ADAPTER
from unitune_local.settings import Settings


class FullModel(nn.Module):
    """A model whose weights are all trained, with what a training uses of a `PeftModel`."""

    def __init__(self, base: PreTrainedModel) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=True)

    def forward(self, *inputs: object, **keywords: object) -> object:
        """Compute what the model does."""
        return cast("Any", self.base)(*inputs, **keywords)

    def get_base_model(self) -> PreTrainedModel:
        """Return the model itself."""
        return self.base

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the model where this class has none, as `PeftModel` does."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def trained_model(base: PreTrainedModel, settings: Settings) -> PeftModel:
    """Return a base model ready to be trained by settings: with adapters, or all of it.

    Raises:
        Unsupported: The architecture has no gradient checkpointing, and the settings want it.
    """
    if not settings.full:
        model = add_adapter(base, settings)
        for weight in model.parameters():
            if weight.requires_grad:  # modules_to_save are copies in the base's dtype
                weight.data = weight.data.float()
        return model
    model = cast("PeftModel", FullModel(base))
    if settings.gradient_checkpointing:
        keep_inputs_alone(model)
    if settings.neftune_noise_alpha:
        add_noise(model, settings.neftune_noise_alpha)
    return model


def round_trained(model: PeftModel, base: Path, settings: Settings) -> None:
    """Round weights that were float32 for the training alone, as their files will have them."""
    if settings.full:
        round_weights(cast("PreTrainedModel", model.get_base_model()), saved_dtype(base))
        return
    for name, weight in model.named_parameters():
        if ".modules_to_save." in name:
            weight.data = weight.data.to(settings.torch_dtype)


def saved_dtype(base: Path) -> torch.dtype:
    """Return the dtype that a fully tuned model is saved in: that of the base's own files."""
    return cast("torch.dtype | None", cast("Any", config_of(base)).dtype) or torch.float32


def is_full(folder: Path) -> bool:
    """Whether a training has left a whole model in a folder, and not an adapter."""
    return (folder / ABOUT).is_file() and not (folder / ADAPTER).exists()


def full_findings(settings: Settings) -> Iterator[Finding]:
    """Yield why a model cannot be trained in full by settings, if it is to be."""
    if not settings.full:
        return
    for name in ("quantization", "shard"):
        if getattr(settings, name):
            what = f"tuning.full trains every weight, and options.local.{name} is for frozen ones."
            yield error("full", what, f"Leave out tuning.full or {name}.")
