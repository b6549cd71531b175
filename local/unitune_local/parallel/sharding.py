"""A frozen base whose layers are spread over the processes of a training: FSDP2.

Each process keeps an equal part of every layer's frozen weights; a layer is put together when it is
computed, forward and backward, and taken apart again. Adapters, embeddings and the output head are
whole in every process, so that gradients, optimiser and checkpoints are as without. A layer can be
put together only by all processes at once: they have to compute equally often
(`Ranks.computes_together`).

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
    """Keep of each layer's frozen weights this rank's part alone.

    Args:
        model: With adapters, on the CPU, as its file has it, so that no more of that is read than a
            layer at a time.
        dtype: That frozen weights are to have.
        ranks: Who share them.
    """
    mesh = DeviceMesh.from_group(cast("Any", ranks.group), ranks.device.type)
    base = model.get_base_model()
    whole = set(base.parameters())
    for layer in layers(base):
        frozen = {weight for weight in layer.parameters() if not weight.requires_grad}
        whole -= frozen
        _place(frozen, ranks.device, dtype, copy=False)
        fully_shard(layer, mesh=mesh, ignored_params=set(layer.parameters()) - frozen)
    # A copy, as one tensor of a mapped file keeps all pages of it that were read.
    _place({weight for weight in whole if not weight.requires_grad}, ranks.device, dtype, copy=True)
    for weight in whole:
        weight.data = weight.data.to(ranks.device)
    for buffer in base.buffers():
        buffer.data = buffer.data.to(ranks.device)
    fully_shard(base, mesh=mesh, ignored_params=whole)
    cast("Any", base).config.dtype = dtype


def layers(base: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model, one of which is put together at a time."""
    return (each for each in base.modules() if isinstance(each, GradientCheckpointingLayer))


def shard_findings(settings: Settings) -> Iterator[Finding]:
    """Yield why the base cannot be spread over processes, if it is to be."""
    if not settings.shard:
        return
    if settings.processes == 1:
        what = "options.local.shard is true, and one process trains, which would keep all of it."
        yield error("shard", what, "Set options.local.processes, or leave shard out.")
    if settings.quantization is not None:
        what = (
            f"options.local.shard is true, and so are weights in {settings.quantization}: what "
            "bitsandbytes makes of them cannot be taken apart."
        )
        yield error("shard", what, "Leave out one of the two.")


def _place(
    weights: set[nn.Parameter], device: torch.device, dtype: torch.dtype, *, copy: bool
) -> None:
    for weight in weights:
        weight.data = weight.data.to(device, dtype, copy=copy)
