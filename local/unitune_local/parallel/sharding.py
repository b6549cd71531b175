"""Spread the frozen layers of a base over the processes of a training, with FSDP2.

A layer is gathered when it is computed, forward and backward. Adapters, embeddings and output head
stay whole in every process. All processes gather a layer together, so they have to compute equally
often (`Ranks.computes_together`).

Source: docs.pytorch.org, torch.distributed.fsdp.fully_shard; tried with torch 2.13.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from unitune.findings import Finding, error
from unitune_local.parallel.ranks import Ranks
from unitune_local.settings import Settings


def shard(model: PeftModel, dtype: torch.dtype, ranks: Ranks) -> None:
    """Keep only this rank's part of each layer's frozen weights.

    The model has adapters and is on the CPU, in its file's dtype, and is read a layer at a time.
    """
    mesh = DeviceMesh.from_group(cast("Any", ranks.group), ranks.device.type)
    base = model.get_base_model()
    whole = set(base.parameters())
    for layer in layers(base):
        frozen = {weight for weight in layer.parameters() if not weight.requires_grad}
        whole -= frozen
        _place(frozen, ranks.device, dtype, copy=False)
        fully_shard(layer, mesh=mesh, ignored_params=set(layer.parameters()) - frozen)
    # A copy, because one tensor of a mapped file keeps all its read pages in memory.
    _place({weight for weight in whole if not weight.requires_grad}, ranks.device, dtype, copy=True)
    for weight in whole:
        weight.data = weight.data.to(ranks.device)
    for buffer in base.buffers():
        buffer.data = buffer.data.to(ranks.device)
    fully_shard(base, mesh=mesh, ignored_params=whole)
    cast("Any", base).config.dtype = dtype


def layers(base: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model, which are gathered one at a time."""
    return (each for each in base.modules() if isinstance(each, GradientCheckpointingLayer))


def shard_findings(settings: Settings) -> Iterator[Finding]:
    """Yield errors for settings that rule out spreading the base."""
    if not settings.shard:
        return
    if settings.processes == 1:
        what = "options.local.shard is true, but a single process would keep all weights."
        yield error("shard", what, "Set options.local.processes, or leave shard out.")
    if settings.quantization is not None:
        what = (
            f"options.local.shard is true, but the {settings.quantization} weights of "
            "bitsandbytes cannot be split."
        )
        yield error("shard", what, "Leave out one of the two.")


def _place(
    weights: set[nn.Parameter], device: torch.device, dtype: torch.dtype, *, copy: bool
) -> None:
    for weight in weights:
        weight.data = weight.data.to(device, dtype, copy=copy)
