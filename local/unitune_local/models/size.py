"""Read the size of a model, and keep the speed that this machine reached with it.

The time of a training or an answer is a number of operations, which follows from the size, times
the seconds of one operation. That factor is measured whenever a model trains or answers long
enough, and kept in the cache. Until then it is guessed from a short measurement of matrix products.
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
from unitune.errors import UserError
from unitune.security.spec import Closed
from unitune.workspace.filesystem import replacing
from unitune_local import machine
from unitune_local.models.full import trained_model
from unitune_local.models.model import config_of, empty_model
from unitune_local.models.model_folder import cache_folder
from unitune_local.settings import Dimensions, Settings

CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
# Shares of the measured matrix products per second that a whole model reaches on a CPU. They were
# measured with the embedded model.
CPU_SHARES = {
    ("training", "float32"): 0.6,
    ("training", "bfloat16"): 0.25,
    ("answers", "float32"): 0.6,
    ("answers", "bfloat16"): 0.7,
}
SLOW_SHARE = 0.25  # of other dtypes
GPU_SHARE = 0.3  # of what its products reach; not measured


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The size of a model with its adapters, as far as time and memory depend on it."""

    parameters: int  # weights of the base model
    matrices: int  # of them those in products of the layers, of all experts
    linear: int  # weights that one token is multiplied with, the output head apart
    head: int  # weights of the output head
    features: int  # values of one token that enter and leave these products, in all layers
    layers: int
    hidden: int
    heads: int
    trained: int  # weights that are trained
    stores_scores: bool  # whether attention keeps a score of each pair of tokens
    packs: bool  # whether its attention can be replaced

    @property
    def trains_all(self) -> bool:
        """Whether the weights of the base model are trained themselves."""
        return self.trained >= self.parameters


class Speed(Closed):
    """The seconds of one operation on this machine, and its memory as a share of the formula's."""

    flop_seconds: float
    memory_share: float = 1.0
    measured_on: date | None = None  # None: guessed
    busy_share: float = 0.0  # share of the processor that other programs used meanwhile


class Conditions(NamedTuple):
    """Everything that a speed depends on, beside the machine."""

    use: Literal["training", "answers"]
    size: ModelSize
    device: str
    dtype: torch.dtype
    threads: int  # of one process
    quantization: str | None = None

    @property
    def key(self) -> str:
        """Name under which the speed is kept."""
        size = replace(self.size, trained=0)  # which the formula accounts for
        depends_on = [self.use, asdict(size), *map(str, self[2:])]
        depends_on += [machine.processor(self.device), torch.__version__]
        return f"{self.use}-{digest(depends_on)}"


def context_of(folder: Path) -> int | None:
    """Return the longest sequence that a model was made for, if its configuration states it."""
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
                f"the model in {folder} does not state how many tokens it was made for. Set "
                "tuning.sequence_length."
            )
        context = sequence_length
    return Dimensions(context, int(cast("Any", config_of(folder)).get_text_config().hidden_size))


def empty_tuned_model(folder: Path, settings: Settings) -> PeftModel:
    """Return an empty model with the adapters of some settings.

    Raises:
        UserError: No linear layer has a name among the targets.
    """
    model = empty_model(folder, settings.torch_dtype)
    with torch.device("meta"):
        return trained_model(model, settings)


def size_of(model: PreTrainedModel | PeftModel) -> ModelSize:
    """Return the size of a model. Of its experts, only those chosen by the router count as work."""
    base = cast("Any", model.get_base_model() if isinstance(model, PeftModel) else model)
    text, head = base.config.get_text_config(), base.get_output_embeddings()
    weights = dict(cast("PreTrainedModel", base).named_parameters())
    own = [weight.numel() for name, weight in weights.items() if ".lora_" not in name]
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    # Of one token: how often it is multiplied with a matrix, and the rows and columns of that.
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
        packs=base._supports_attention_backend,  # noqa: SLF001 - likewise
    )


def _products(base: PreTrainedModel) -> Mapping[str, Tensor]:
    """Return the matrices of all layers by name, those of experts as one for each kind."""
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
    """Return the speed that was measured under these conditions, or a guess."""
    try:
        return Speed.model_validate_json(speed_file(conditions.key).read_text(encoding="utf-8"))
    except (OSError, ValidationError):  # the latter: written by another version
        pass
    device, name = torch.device(conditions.device), str(conditions.dtype).removeprefix("torch.")
    rate = machine.products_per_second(device, conditions.dtype)
    if device.type != "cpu":
        return Speed(flop_seconds=1 / (rate * GPU_SHARE))
    share = CPU_SHARES.get((conditions.use, name), SLOW_SHARE)
    return Speed(flop_seconds=1 / (conditions.threads * rate * share))


def speed_file(key: str) -> Path:
    """Return the file that keeps a speed."""
    return cache_folder() / "calibrations" / f"{key}.json"


def keep_speed(speed: Speed, key: str) -> None:
    """Keep a measured speed for later forecasts, under the key of its conditions."""
    file = speed_file(key)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as draft:
        draft.write(speed.model_dump_json(indent=2))
