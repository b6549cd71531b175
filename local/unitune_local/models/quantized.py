"""Base models whose linear layers are kept in 4 or 8 bits by bitsandbytes.

The weights in their files are larger than what is made of them, so they are read one at a time and
never mapped: pages of a mapped file would stay with the process as long as one of its tensors does,
and the embeddings, which are not quantised, are such tensors.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from unitune.errors import Unsupported
from unitune.workspace.install import install_command
from unitune_local.models.model_folder import weight_files
from unitune_local.settings import Quantization

PACKS = "support_avx512bf16_for_cpu"
"""Whether bitsandbytes packs a layer for a kernel without gradients, and it is trained no more."""


def load_quantized(
    path: Path,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: str | torch.device,
    quantization: Quantization,
) -> PreTrainedModel:
    """Load a model whose linear layers but the output head are quantised.

    Args:
        path: Its folder.
        config: The configuration in there.
        dtype: Of the other weights, and of what is computed.
        device: Where it is to be.
        quantization: What linear layers become.

    Raises:
        Unsupported: bitsandbytes is not installed.
    """
    chosen = _bitsandbytes(quantization, dtype)
    with torch.device("meta"):  # for its class alone
        empty = cast("Any", AutoModelForCausalLM).from_config(config)
    reading = cast("Any", safe_open)
    files = [reading(file, framework="pt", backend="pread") for file in weight_files(path)]
    model = empty.from_pretrained(
        None,
        config=config,
        state_dict={name: file.get_slice(name) for file in files for name in file.keys()},  # noqa: SIM118 - it is no mapping
        dtype=dtype,
        attn_implementation="sdpa",
        quantization_config=chosen,
        device_map={"": device},  # it can only be placed while it is loaded
    )
    model.name_or_path = model.config.name_or_path = str(path)
    if (path / "generation_config.json").exists():
        model.generation_config = cast("Any", GenerationConfig).from_pretrained(
            path, local_files_only=True
        )
    for layer in model.modules():
        if hasattr(layer, PACKS):
            setattr(layer, PACKS, False)
    return cast("PreTrainedModel", model).eval()


def _bitsandbytes(quantization: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the configuration of Dettmers et al. 2023, or of Dettmers et al. 2022."""
    if find_spec("bitsandbytes") is None:
        raise Unsupported(
            f"the model is to have {quantization} weights, and bitsandbytes is not installed: "
            f"{install_command('local', '4bit')}."
        )
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
