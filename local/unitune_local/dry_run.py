"""What a micro-batch holds in memory, found by computing it without numbers.

Model and micro-batch are made of torch's fake tensors, which have shape and type but no content:
forward and backward then run as in a training, allocate nothing and take a moment, however large
the model. All that the run would hold at once is added up, whether saved for the backward
or passing, so that no formula has to know the architecture. The weights need not be here.

Not here: what a process holds besides (`unitune_local.memory`).

Source: torch._subclasses.fake_tensor, which torch.compile is built on. An operation whose shape
depends on numbers cannot be run so; for such models `unitune_local.memory` has a formula.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PreTrainedConfig

from unitune_local import attention
from unitune_local.batches import Batch, TrainingRow
from unitune_local.loads import part_load
from unitune_local.lora import add_adapter
from unitune_local.loss import Form, layer_kinds, loss_sum, use_attention
from unitune_local.memory import Shape, config_of, live_bytes
from unitune_local.settings import Settings

FEW_LAYERS = 3
"""Of layers that are all alike, so many are run, and one less; the others hold as much as that one.
The embedded model's 30 layers give the same sum to the byte."""


def held_bytes(
    folder: Path, shape: Shape, settings: Settings, form: Form, rows: Sequence[TrainingRow]
) -> int:
    """Return the most that forward and backward of a micro-batch hold beside the weights.

    The gradients of the adapters are counted in, as the first micro-batch makes them. A model that
    cannot be run without numbers is reckoned by its shape.

    Args:
        folder: Of the base model; only its configuration is read.
        shape: Of the model.
        settings: Of the training.
        form: How micro-batches are laid out.
        rows: Of the micro-batch.
    """
    device = torch.device(settings.device)
    batch = form.batch(rows, torch.device("cpu"))
    model = _hollow_model(folder, settings)
    layers = _equal_layers(model)
    count = len(layers)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _give_fake_weights(model, device)
            use_attention(model, attention.NAME if form.kind == "packed" else "sdpa")
            batch = batch.to(device)
            if count <= FEW_LAYERS:
                return _peak(model, batch)
            del layers[FEW_LAYERS:]
            few = _peak(model, batch)
            del layers[FEW_LAYERS - 1 :]
            return few + (count - FEW_LAYERS) * (few - _peak(model, batch))
    except (RuntimeError, TypeError, NotImplementedError):
        return live_bytes(shape, settings, part_load(rows, form))


def _peak(model: PeftModel, batch: Batch) -> int:
    with _Held() as held:
        torch.autograd.backward(loss_sum(model, batch))
    model.zero_grad()
    return held.peak


def _equal_layers(model: PeftModel) -> nn.ModuleList:
    """Return the model's layers, or none where they are not all alike."""
    lists = (one for one in model.modules() if isinstance(one, nn.ModuleList))
    layers = next(lists, nn.ModuleList())  # the outermost: experts stand inside
    config = cast("PreTrainedConfig", cast("Any", model.get_base_model()).config)
    alike = len({str(layer) for layer in layers}) == 1 and len(layer_kinds(config)) == 1
    return layers if alike else nn.ModuleList()


class _Held(TorchDispatchMode):
    """Adds up what tensors hold from the operation that makes them until nobody has them."""

    def __init__(self) -> None:
        cast("Any", super()).__init__()
        self.now = self.peak = 0
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        given = {_storage(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _storage(tensor) not in given:  # a view holds no more
                self._watch(tensor.untyped_storage())
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = _identity(storage), storage.nbytes()
        if key in self._watched:
            return

        def freed(_: object) -> None:
            del self._watched[key]
            self.now -= size

        self._watched[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storage(tensor: Tensor) -> int:
    return _identity(tensor.untyped_storage())


def _identity(storage: torch.UntypedStorage) -> int:
    return int(cast("Any", storage)._cdata)  # noqa: SLF001 - torch tells storages apart by it


def _hollow_model(folder: Path, settings: Settings) -> PeftModel:
    """Return the model with its adapters, on torch's device without memory."""
    with torch.device("meta"):
        base = cast("Any", AutoModelForCausalLM).from_config(
            config_of(folder), dtype=settings.torch_dtype, attn_implementation="sdpa"
        )
        return add_adapter(base, settings).train()


def _give_fake_weights(model: nn.Module, device: torch.device) -> None:
    """Put a fake tensor of its own shape on the device in place of each weight and buffer."""
    fakes: dict[Tensor, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if weight not in fakes:
                fake = torch.empty(weight.shape, dtype=weight.dtype, device=device)
                fakes[weight] = nn.Parameter(fake, requires_grad=weight.requires_grad)
            module.register_parameter(name, fakes[weight])
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            fake = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
            module.register_buffer(name, fake)
