"""Prepare models for training with adapters or in full, and recognise fully tuned ones."""

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
from unitune_local.models.model import (
    add_adapter,
    add_noise,
    config_of,
    keep_inputs_alone,
    round_weights,
)
from unitune_local.models.model_folder import ADAPTER
from unitune_local.settings import Settings


class FullModel(nn.Module):
    """Model whose weights are all trained, with the `PeftModel` methods that a training uses."""

    def __init__(self, base: PreTrainedModel) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=True)

    def forward(self, *inputs: object, **keywords: object) -> object:
        """Return the output of the model."""
        return cast("Any", self.base)(*inputs, **keywords)

    def get_base_model(self) -> PreTrainedModel:
        """Return the model itself."""
        return self.base

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def trained_model(base: PreTrainedModel, settings: Settings) -> PeftModel:
    """Return a base model ready to be trained, with adapters or in full.

    Raises:
        Unsupported: The settings need gradient checkpointing, which the architecture lacks.
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
    """Round weights that were float32 only for the training to the dtype of their files."""
    if settings.full:
        round_weights(cast("PreTrainedModel", model.get_base_model()), saved_dtype(base))
        return
    for name, weight in model.named_parameters():
        if ".modules_to_save." in name:
            weight.data = weight.data.to(settings.torch_dtype)


def saved_dtype(base: Path) -> torch.dtype:
    """Return the dtype that a fully tuned model is saved in: that of the base's files."""
    return cast("torch.dtype | None", cast("Any", config_of(base)).dtype) or torch.float32


def is_full(folder: Path) -> bool:
    """Return whether a folder holds a fully tuned model instead of an adapter."""
    return (folder / ABOUT).is_file() and not (folder / ADAPTER).exists()


def full_findings(settings: Settings) -> Iterator[Finding]:
    """Yield errors for settings that cannot be combined with full training."""
    if not settings.full:
        return
    for name in ("quantization", "shard"):
        if getattr(settings, name):
            what = f"tuning.full trains every weight, but options.local.{name} needs frozen ones."
            yield error("full", what, f"Leave out tuning.full or {name}.")
