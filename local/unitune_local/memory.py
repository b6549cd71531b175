"""What a training takes, from the model's shape alone: memory and arithmetic; and what is there.

The shape is read off a model without weights, so that any architecture counts right. The formulas
are derived, not fitted.

Letters: N parameters, L layers, H hidden width, K key-value width, M MLP width, V vocabulary,
T computed tokens of a micro-batch.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from unitune.errors import UserError
from unitune_local.loads import Load
from unitune_local.settings import Dimensions, Settings

ADAPTER_BYTES = 12
"""Of each adapter weight between two steps: itself and two moments, in float32."""
LOGIT_BYTES = 16
"""Of each logit: as computed, in float32, its log-softmax and its gradient."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model and of its adapters.

    Args:
        parameters: All weights of the base.
        linear: Weights that every token is multiplied with, the output head apart.
        adapter: Weights of the adapters.
        layers: Number of layers.
        hidden: Width between layers.
        key_value: Width of keys, all heads together.
        heads: Query heads.
        mlp: Width inside the MLP.
        vocabulary: Rows of the output head.
        context: Tokens that the model was made for.
    """

    parameters: int
    linear: int
    adapter: int
    layers: int
    hidden: int
    key_value: int
    heads: int
    mlp: int
    vocabulary: int
    context: int


def dimensions_of(folder: Path) -> Dimensions:
    """Return what the default settings of a model folder depend on."""
    text = cast("Any", config_of(folder)).get_text_config()
    return Dimensions(context=int(text.max_position_embeddings), hidden=int(text.hidden_size))


def shape_of(folder: Path, settings: Settings) -> Shape:
    """Return the shape of a model folder with the adapters that the settings would add.

    Raises:
        UserError: No linear layer has a name among the targets.
    """
    config = config_of(folder)
    with torch.device("meta"):
        model = cast("nn.Module", cast("Any", AutoModelForCausalLM).from_config(config))
    head = cast("Any", model).get_output_embeddings()
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    layers = {
        name: layer for name, layer in modules if isinstance(layer, nn.Linear) and layer is not head
    }
    adapted = [
        layer
        for name, layer in layers.items()
        if settings.targets == "all" or name.rpartition(".")[2] in settings.targets
    ]
    if not adapted:
        names = sorted({name.rpartition(".")[2] for name in layers})
        raise UserError(
            f"tuning.lora.targets is {list(settings.targets)}, but the model has no linear layer "
            f"of such a name. It has {', '.join(names)}."
        )
    text = cast("Any", config).get_text_config()
    heads = text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        parameters=sum(weight.numel() for weight in model.parameters()),
        linear=sum(layer.weight.numel() for layer in layers.values()),
        adapter=settings.rank * sum(one.in_features + one.out_features for one in adapted),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        key_value=head_width * (getattr(text, "num_key_value_heads", None) or heads),
        heads=heads,
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
    )


def live_bytes(shape: Shape, settings: Settings, part: Load) -> int:
    """Return what a micro-batch holds beside the weights, for models that refuse a dry run.

    Args:
        shape: Of the model.
        settings: Of the training.
        part: The micro-batch.

    Source: derived; per layer and token the saved inputs and outputs of norms, projections,
    attention and MLP are 9 H + 3 K + 4 M values. In bfloat16 the two norms keep 4 H values more in
    float32, and attention keeps scores and weights.
    """
    width = settings.torch_dtype.itemsize
    per_token = (9 * shape.hidden + 3 * shape.key_value + 4 * shape.mlp) * width
    per_pair = 0
    if settings.torch_dtype is torch.bfloat16:
        per_token += 4 * shape.hidden * 4
        per_pair = 2 * shape.heads * width
    activations = shape.layers * (part.computed * per_token + part.pairs * per_pair)
    return activations + part.logits * shape.vocabulary * LOGIT_BYTES + 4 * shape.adapter


def step_flops(shape: Shape, load: Load) -> float:
    """Return the floating-point operations of forward and backward.

    Args:
        shape: Of the model.
        load: What is computed.

    Source: 2 operations a weight and token forward, 2 for the gradient of the input, and 2 more for
    the gradient of an adapter's weight; attention likewise with 4 H a pair, three times over.
    """
    linear = (4 * shape.linear + 6 * shape.adapter) * load.computed
    head = 4 * shape.vocabulary * shape.hidden * load.logits
    return float(linear + head + 12 * shape.hidden * shape.layers * load.pairs)


def available_bytes(device: str) -> int:
    """Return the memory that a new process could have, on a GPU or on this machine."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    return min([free, *_group_limits()])


def peak_of_process(device: str) -> int:
    """Return the most memory that this process has held so far, on a GPU or on this machine.

    The kernel's own mark is read where there is one, as ``ru_maxrss`` may be the parent's.
    Source: https://docs.kernel.org/filesystems/proc.html (VmHWM), 2026-11-25.
    """
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    (mark,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(mark.split()[1]) * 1024


def _group_limits(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return what is left of this process's control group, version 2 or 1.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, memory.current) and
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, 2026-11-25.
    """
    left: list[int] = []
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most = (root / limit).read_text(encoding="utf-8").strip()
            now = (root / used).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if most.isdecimal():
            left.append(int(most) - int(now))
    return left


def config_of(folder: Path) -> PreTrainedConfig:
    """Return the configuration of a model folder."""
    auto = cast("Any", AutoConfig)
    return cast(
        "PreTrainedConfig",
        auto.from_pretrained(folder, trust_remote_code=False, local_files_only=True),
    )
