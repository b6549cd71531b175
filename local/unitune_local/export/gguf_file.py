"""GGUF files as llama.cpp reads them: a whole model, or a LoRA adapter over one.

The package `gguf` writes the file, knows the names and rounds the weights; which tensor becomes
which, and what stands in the metadata, is what llama.cpp's own converter writes for the Llama and
Qwen families. Weights are read one at a time from float32, so a file takes no more memory than the
model that it is made of.

Not here: what a file answers (`unitune_local.export.verify`), and other architectures and
tokenizers; they are refused by name.

Source: ggml-org/llama.cpp, conversion/ at 0274f0f and convert_lora_to_gguf.py at 0b03ada.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gguf import (
    MODEL_ARCH,
    GGMLQuantizationType,
    GGUFReader,
    GGUFType,
    GGUFWriter,
    LlamaFileType,
    dequantize,
    get_tensor_name_map,
    quantize,
)
from gguf.constants import GGML_QUANT_SIZES, GGML_QUANT_VERSION, MODEL_ARCH_NAMES
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from unitune.errors import Unsupported
from unitune.workspace.progress import counted
from unitune_local.export.gguf_tokenizer import add_tokenizer

Floats = NDArray[np.float32]

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
}
"""By transformers' name of a model type."""
QUANTIZATIONS = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""What weights can be rounded to: all that the package `gguf` writes, the finest first."""
COARSE = ("Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""Of which embeddings and head are kept in Q8_0, as llama.cpp keeps them finer than the rest."""
EMBEDDINGS = ("token_embd.weight", "output.weight")


def architecture_of(config: PreTrainedConfig) -> MODEL_ARCH:
    """Return GGUF's name of a model type.

    Raises:
        Unsupported: It is none of those known here, or has what GGUF cannot say of it.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise Unsupported(
            f"GGUF is written for {', '.join(ARCHITECTURES)} models; this one is {kind}. Export it "
            "with --to merged, and convert that with llama.cpp's convert_hf_to_gguf.py."
        )
    if getattr(config, "use_sliding_window", False):
        raise Unsupported(f"the {kind} model has sliding attention, which GGUF cannot say.")
    return ARCHITECTURES[kind]


def placed(config: PreTrainedConfig, name: str, weights: Tensor) -> tuple[str, Floats]:
    """Return a tensor by its GGUF name, in float32, its rows in GGUF's order.

    Args:
        config: Of the model.
        name: In transformers, such as ``model.layers.0.self_attn.q_proj.weight``.
        weights: Or of an adapter that module's ``lora_B``, whose rows are the same.
    """
    gguf_name, given, values = gguf_name_of(config, name), cast("Any", config), array(weights)
    if architecture_of(config) is MODEL_ARCH.LLAMA and ".attn_q." in gguf_name:
        values = interleaved(values, int(given.num_attention_heads))
    elif architecture_of(config) is MODEL_ARCH.LLAMA and ".attn_k." in gguf_name:
        values = interleaved(values, int(given.num_key_value_heads))
    return gguf_name, values


def gguf_name_of(config: PreTrainedConfig, name: str) -> str:
    """Return the GGUF name of a tensor of transformers."""
    layers = int(cast("Any", config).num_hidden_layers)
    names = get_tensor_name_map(architecture_of(config), layers)
    gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if gguf_name is None:
        raise Unsupported(f"llama.cpp has no place for the tensor {name!r}.")
    return gguf_name


def array(weights: Tensor) -> Floats:
    """Return a tensor as numpy's, in float32."""
    return cast("Floats", weights.detach().float().cpu().numpy())


def interleaved(weights: Floats, heads: int) -> Floats:
    """Return the rows of each head as llama.cpp stores them: x0 y0 x1 y1 … instead of x… y…."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weights.shape))


@dataclass(frozen=True, slots=True)
class ModelTensors:
    """A model's tensors as a GGUF file has them; iterating makes each when it is its turn."""

    config: PreTrainedConfig
    state: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.state)

    def __iter__(self) -> Iterator[tuple[str, Floats]]:
        tied = bool(cast("Any", self.config).tie_word_embeddings)
        for name, weights in self.state.items():
            if not (tied and name == "lm_head.weight"):
                yield placed(self.config, name, weights)
        if (factors := _rope_factors(self.config)) is not None:
            yield "rope_freqs.weight", factors


def _rope_factors(config: PreTrainedConfig) -> Floats | None:
    """Return by what Llama 3 divides its rotary frequencies; None where there is no scaling."""
    rope = cast("dict[str, Any]", cast("Any", config).rope_parameters)
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind != "llama3":
        raise Unsupported(f"rotary scaling {kind!r} is not written to GGUF; llama3 and none are.")
    scaled = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0]
    places = torch.arange(0, 2 * len(scaled), 2, dtype=torch.float32) / (2 * len(scaled))
    plain = 1.0 / (float(rope["rope_theta"]) ** places)
    return cast("Floats", (plain / scaled).numpy())


def write_model(
    path: Path,
    tensors: ModelTensors,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    quantization: str,
) -> None:
    """Write a whole model.

    Raises:
        Unsupported: llama.cpp could not run it as it is.
    """
    architecture = architecture_of(tensors.config)
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[architecture])
    _add_config(writer, tensors.config, architecture)
    size = int(cast("Any", tensors.config).vocab_size)
    add_tokenizer(writer, tokenizer, folder, size)
    mostly = "ALL_F32" if quantization == "F32" else f"MOSTLY_{quantization}"
    writer.add_file_type(LlamaFileType[mostly])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    _write(writer, tensors, quantization)


def _add_config(writer: GGUFWriter, config: PreTrainedConfig, architecture: MODEL_ARCH) -> None:
    given = cast("Any", config)
    width = int(getattr(given, "head_dim", None) or given.hidden_size // given.num_attention_heads)
    writer.add_type(GGUFType.MODEL)
    writer.add_context_length(given.max_position_embeddings)
    writer.add_embedding_length(given.hidden_size)
    writer.add_feed_forward_length(given.intermediate_size)
    writer.add_block_count(given.num_hidden_layers)
    writer.add_head_count(given.num_attention_heads)
    writer.add_head_count_kv(given.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(given.rms_norm_eps)
    writer.add_rope_freq_base(given.rope_parameters["rope_theta"])
    writer.add_vocab_size(given.vocab_size)
    if architecture is MODEL_ARCH.LLAMA:
        writer.add_rope_dimension_count(width)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter's tensors, by peft's names, as a GGUF file has them."""

    config: PreTrainedConfig
    state: Mapping[str, Tensor]
    alpha: float
    """By which, over the rank, llama.cpp scales the update."""

    def __len__(self) -> int:
        return len(self.state)

    def __iter__(self) -> Iterator[tuple[str, Floats]]:
        for name, weights in self.state.items():
            module, _, part = name.removeprefix("base_model.model.").rpartition(".lora_")
            if part == "A.weight":  # which has the update's columns, whose order stays
                yield f"{gguf_name_of(self.config, f'{module}.weight')}.lora_a", array(weights)
            else:
                gguf_name, rows = placed(self.config, f"{module}.weight", weights)
                yield f"{gguf_name}.lora_b", rows


def write_adapter(path: Path, adapter: Adapter) -> None:
    """Write a LoRA adapter, in float32."""
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[architecture_of(adapter.config)])
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", adapter.alpha)
    _write(writer, adapter, "F32")


def _write(writer: GGUFWriter, tensors: ModelTensors | Adapter, quantization: str) -> None:
    """Write one tensor after another; the header, which is first, says how long each will be."""
    for name, values in tensors:
        kind = _kind(name, values, quantization)
        block, bytes_of_block = GGML_QUANT_SIZES[kind]
        length = values.size // block * bytes_of_block
        writer.add_tensor_info(name, values.shape, values.dtype, length, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, values in counted(tensors, "writing weights", len(tensors)):
        writer.write_tensor_data(quantize(values, _kind(name, values, quantization)))
    writer.close()


def _kind(name: str, values: Floats, quantization: str) -> GGMLQuantizationType:
    """Return how a tensor is stored, as llama.cpp's converter decides it."""
    if values.ndim == 1 or name.endswith(("_norm.weight", ".lora_a", ".lora_b")):
        return GGMLQuantizationType.F32
    finer = quantization in COARSE and name in EMBEDDINGS
    kind = GGMLQuantizationType["Q8_0" if finer else quantization]
    block = GGML_QUANT_SIZES[kind][0]
    return kind if values.shape[-1] % block == 0 else GGMLQuantizationType.F16


def rounding(path: Path, tensors: ModelTensors | Adapter) -> float:
    """Return by how much a file's weights differ from those that it was made of.

    Returns:
        The root mean square of the differences, over that of the weights.
    """
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    differences = squares = 0.0
    for name, values in tensors:
        tensor = stored.pop(name)
        read = cast("Floats", dequantize(tensor.data, tensor.tensor_type)).reshape(values.shape)
        differences += float(np.square(read - values, dtype=np.float64).sum())
        squares += float(np.square(values, dtype=np.float64).sum())
    assert not stored, f"{path.name} holds {', '.join(stored)} besides"
    return (differences / squares) ** 0.5
