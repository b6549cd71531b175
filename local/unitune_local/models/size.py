"""Read the size of a model, and store the speed that this machine reached with it.

Speeds are measured whenever a model trains or answers long enough, and guessed until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from peft import PeftModel
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import PreTrainedModel

from unitune.data.example import digest
from unitune.documents import Closed
from unitune.errors import UserError
from unitune.files.filesystem import replacing
from unitune_local import machine
from unitune_local.models.adapter import trained_model
from unitune_local.models.model import config_of, empty_model
from unitune_local.models.model_folder import cache_folder
from unitune_local.settings import Dimensions, Settings

CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
# Shares of the measured matrix products per second that the embedded model reached on a CPU
CPU_SHARES = {
    ("training", "float32"): 0.6,
    ("training", "bfloat16"): 0.25,
    ("answers", "float32"): 0.6,
    ("answers", "bfloat16"): 0.7,
}
SLOW_SHARE = 0.25  # share of other dtypes
GPU_SHARE = 0.3  # share on a GPU; not measured


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of a model with its adapters, as far as time and memory depend on it."""

    parameters: int  # weights of the base model
    matrices: int  # of these, weights in products of the layers, including all experts
    linear: int  # weights that one token is multiplied with, without the output head
    head: int  # weights of the output head
    features: int  # values of one token that enter and leave these products, in all layers
    layers: int
    hidden: int
    heads: int
    trained: int  # weights that are trained
    stores_scores: bool  # attention stores a score of each pair of tokens
    packs: bool  # its attention can be replaced

    @property
    def trains_all(self) -> bool:
        """True if the weights of the base model are trained themselves."""
        return self.trained >= self.parameters


class Speed(Closed):
    """Seconds of one operation on this machine, and its memory as a share of the formula's."""

    flop_seconds: float
    memory_share: float = 1.0
    measured_on: date | None = None  # None: guessed
    busy_share: float = 0.0  # share of the processor that other programs used


class Conditions(NamedTuple):
    """Everything but the machine that a speed depends on."""

    use: Literal["training", "answers"]
    size: ModelSize
    device: str
    dtype: torch.dtype
    threads: int  # of one process
    quantization: str | None = None

    @property
    def key(self) -> str:
        """Name that the speed is stored under."""
        size = replace(self.size, trained=0)  # the formula accounts for these
        depends_on = [self.use, asdict(size), *map(str, self[2:])]
        depends_on += [machine.processor(self.device), torch.__version__]
        return f"{self.use}-{digest(depends_on)}"


def context_of(folder: Path) -> int | None:
    """Return the longest sequence that a model supports, if its configuration states it."""
    text = cast("Any", config_of(folder)).get_text_config()
    given = (getattr(text, name, None) for name in CONTEXT_FIELDS)
    return next((int(length) for length in given if length), None)


def dimensions_of(folder: Path, sequence_length: int | Literal["auto"]) -> Dimensions:
    """Return the dimensions of a model that the default settings depend on.

    Raises:
        UserError: The model does not state its context, and no sequence length is given.
    """
    context = context_of(folder)
    if context is None:
        if sequence_length == "auto":
            raise UserError(
                f"the configuration of the model in {folder} does not state its context length. "
                "Set tuning.sequence_length."
            )
        context = sequence_length
    return Dimensions(context, int(cast("Any", config_of(folder)).get_text_config().hidden_size))


def empty_tuned_model(folder: Path, settings: Settings) -> PeftModel:
    """Return a model without weights, with adapters; raises as `trained_model`."""
    model = empty_model(folder, settings.torch_dtype)
    with torch.device("meta"):
        return trained_model(model, settings)


def size_of(model: PreTrainedModel | PeftModel) -> ModelSize:
    """Return the size of a model; only experts that the router chooses count as work."""
    base = cast("Any", model.get_base_model() if isinstance(model, PeftModel) else model)
    text, head = base.config.get_text_config(), base.get_output_embeddings()
    weights = dict(cast("PreTrainedModel", base).named_parameters())
    own = [weight.numel() for name, weight in weights.items() if ".lora_" not in name]
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    # For each matrix: its products with one token, its rows and its columns
    matrices = _products(base).values()
    products = [(1 if each.ndim == 2 else chosen, *each.shape[-2:]) for each in matrices]
    return ModelSize(
        parameters=sum(own),
        matrices=sum(weight.numel() for weight in matrices),
        linear=sum(times * rows * columns for times, rows, columns in products),
        head=head.weight.numel(),
        features=sum(times * (rows + columns) for times, rows, columns in products),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=getattr(text, "num_attention_heads", None) or 1,
        trained=sum(weight.numel() for weight in weights.values() if weight.requires_grad),
        stores_scores=not base._supports_sdpa,  # noqa: SLF001 - transformers offers no other way
        packs=base._supports_attention_backend,  # noqa: SLF001 - transformers offers no other way
    )


def _products(base: PreTrainedModel) -> Mapping[str, Tensor]:
    """Return the matrices of all layers by name; experts of a kind form one."""
    head = cast("Any", base.get_output_embeddings())
    others = [part for part in base.modules() if isinstance(part, nn.Embedding)]
    apart = {id(part.weight) for part in (head, *others)}
    return {
        name: weight
        for name, weight in base.named_parameters()
        if id(weight) not in apart
        and ".lora_" not in name
        and (weight.ndim == 2 or (weight.ndim == 3 and ".experts." in name))
    }


def speed_of(conditions: Conditions) -> Speed:
    """Return the speed measured under these conditions, or a guess."""
    try:
        return Speed.model_validate_json(speed_file(conditions.key).read_text(encoding="utf-8"))
    except (OSError, ValidationError):  # ValidationError: written by another version
        pass
    device, name = torch.device(conditions.device), str(conditions.dtype).removeprefix("torch.")
    rate = machine.products_per_second(device, conditions.dtype)
    if device.type != "cpu":
        return Speed(flop_seconds=1 / (rate * GPU_SHARE))
    share = CPU_SHARES.get((conditions.use, name), SLOW_SHARE)
    return Speed(flop_seconds=1 / (conditions.threads * rate * share))


def speed_file(key: str) -> Path:
    """Return the file of a speed."""
    return cache_folder() / "calibrations" / f"{key}.json"


def keep_speed(speed: Speed, key: str) -> None:
    """Store a measured speed for later forecasts, under the key of its conditions."""
    file = speed_file(key)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as draft:
        draft.write(speed.model_dump_json(indent=2))
