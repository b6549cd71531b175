"""Write GGUF files for llama.cpp: a whole model, or a LoRA adapter.

Names, metadata and changes of weights follow llama.cpp's own converter. Weights are written one at
a time from float32, which needs no more memory than the model.

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
    RopeScalingType,
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
from unitune_local.data.attention import not_plain
from unitune_local.export.gguf_tokenizer import add_tokenizer

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Family:
    """Storage of the models of one type in llama.cpp."""

    architecture: MODEL_ARCH
    # Rows of queries and keys are in another order (`interleaved`)
    interleaves: bool = False
    # Added to the weights of norms; transformers adds it when it computes
    norm_offset: float = 0.0
    # One of so many layers sees all tokens, the others a window; 0: all layers see all
    full_every: int = 0
    # Number of layers of the model size whose queries are scaled by its width
    wide_layers: int = 0


FAMILIES = {  # by transformers' name of a model type, or of the text part of a multimodal one
    "gemma": Family(MODEL_ARCH.GEMMA, norm_offset=1),
    "gemma2": Family(MODEL_ARCH.GEMMA2, norm_offset=1, full_every=2, wide_layers=46),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3, norm_offset=1, full_every=6, wide_layers=62),
    "granite": Family(MODEL_ARCH.GRANITE, interleaves=True),
    "granitemoe": Family(MODEL_ARCH.GRANITE_MOE, interleaves=True),
    "llama": Family(MODEL_ARCH.LLAMA, interleaves=True),
    "mistral": Family(MODEL_ARCH.LLAMA, interleaves=True),
    "mixtral": Family(MODEL_ARCH.LLAMA, interleaves=True),
    "olmo2": Family(MODEL_ARCH.OLMO2),
    "phi3": Family(MODEL_ARCH.PHI3),
    "qwen2": Family(MODEL_ARCH.QWEN2),
    "qwen3": Family(MODEL_ARCH.QWEN3),
    "qwen3_moe": Family(MODEL_ARCH.QWEN3MOE),
    "smollm3": Family(MODEL_ARCH.SMOLLM3, interleaves=True),
}
# Metadata of a file by the writer's name, with the names in configurations
FIELDS = {
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size",),
    "block_count": ("num_hidden_layers",),
    "head_count": ("num_attention_heads",),
    "head_count_kv": ("num_key_value_heads",),
    "layer_norm_rms_eps": ("rms_norm_eps",),
    "vocab_size": ("vocab_size",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "attention_scale": ("attention_multiplier",),
    "embedding_scale": ("embedding_multiplier",),
    "residual_scale": ("residual_multiplier",),
    "logit_scale": ("logits_scaling",),
    "expert_count": ("num_local_experts", "num_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
}
# Roundings of weights: all that the package `gguf` writes, the finest first
QUANTIZATIONS = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
# Roundings with embeddings and head in Q8_0, as llama.cpp keeps these finer than the rest
COARSE = ("Q5_1", "Q5_0", "Q4_1", "Q4_0")
EMBEDDINGS = ("token_embd.weight", "output.weight")
# Endings of tensor names that are never rounded
EXACT = ("_norm.weight", "ffn_gate_inp.weight", ".lora_a", ".lora_b")
# Parameter that holds the gate of each expert above its input projection
GATE_AND_UP = "experts.gate_up_proj"
# Parts of names that have other names in the package `gguf`
RENAMED = {"block_sparse_moe.router": "mlp.gate", "block_sparse_moe.experts": "mlp.experts"}


def family_of(config: PreTrainedConfig) -> Family:
    """Return the storage of a model in llama.cpp, or raise Unsupported."""
    text = cast("Any", config).get_text_config()
    kind = text.model_type
    if kind not in FAMILIES:
        raise Unsupported(
            f"GGUF exports support {', '.join(FAMILIES)} models; this one is {kind}. Export it "
            "with --to merged, and convert that with llama.cpp's convert_hf_to_gguf.py."
        )
    family = FAMILIES[kind]
    if reason := _computed_otherwise(family, text):
        raise Unsupported(
            f"llama.cpp would compute this {kind} model differently: {reason}. Export it with "
            "--to merged."
        )
    return family


def _computed_otherwise(family: Family, text: Any) -> str:
    """Return what llama.cpp would compute differently, as a file cannot state it, or "".

    Source: llama.cpp, src/models, which has these as constants.
    """
    layers = range(1, text.num_hidden_layers + 1)
    if family.full_every:
        width = text.hidden_size / text.num_attention_heads
        scaled_by = width if text.num_hidden_layers == family.wide_layers else text.head_dim
        full = [kind == "full_attention" for kind in text.layer_types]
        if full != [layer % family.full_every == 0 for layer in layers]:
            return f"its layers are not full attention at every {family.full_every}th layer"
        if text.query_pre_attn_scalar != scaled_by:
            return f"it scales queries by {text.query_pre_attn_scalar}"
    elif family.architecture is not MODEL_ARCH.PHI3 and (reason := not_plain(text)):
        return reason
    if family.architecture is MODEL_ARCH.SMOLLM3 and text.no_rope_layers != [
        int(layer % 4 != 0) for layer in layers
    ]:
        return "its layers without positions are not every fourth one"
    if family.architecture is MODEL_ARCH.QWEN3MOE and not text.norm_topk_prob:
        return "the weights of its experts do not add up to one"
    return ""


def differences(config: PreTrainedConfig) -> Iterator[str]:
    """Yield what llama.cpp leaves out of a model."""
    text = cast("Any", config).get_text_config()
    if text is not config:
        yield "The file only has the language model; llama.cpp needs the base's mmproj for images."
    if text.model_type == "phi3" and (window := text.sliding_window):
        yield f"llama.cpp ignores the window of {window:,} tokens of the model's attention."


def placed(config: PreTrainedConfig, name: str, weights: Tensor) -> Iterator[tuple[str, Floats]]:
    """Yield the GGUF tensors of one transformers tensor: name, and float32 in GGUF's order.

    Vision parts of a multimodal model yield none; experts whose gate and input projection are one
    parameter yield two. For an adapter, the weights are the module's ``lora_B``.
    """
    family, text = family_of(config), cast("Any", config).get_text_config()
    if text is not config and "language_model." not in name and "lm_head" not in name:
        return
    if name.endswith(GATE_AND_UP):
        for part, half in zip(("gate_proj", "up_proj"), weights.chunk(2, dim=1), strict=True):
            yield gguf_name_of(config, name.replace("gate_up_proj", part)), array(half)
        return
    gguf_name, values = gguf_name_of(config, name), array(weights)
    if family.interleaves and ".attn_q." in gguf_name:
        values = interleaved(values, int(text.num_attention_heads))
    elif family.interleaves and ".attn_k." in gguf_name:
        values = interleaved(values, int(text.num_key_value_heads))
    if name.endswith("norm.weight"):
        values = values + np.float32(family.norm_offset)
    yield gguf_name, values


def gguf_name_of(config: PreTrainedConfig, name: str) -> str:
    """Return the GGUF name of a transformers tensor."""
    layers = int(cast("Any", config).get_text_config().num_hidden_layers)
    names = get_tensor_name_map(family_of(config).architecture, layers)
    *_, language = name.rpartition("language_model.")
    own = name if language == name else f"model.{language}"
    for here, there in RENAMED.items():
        own = own.replace(here, there)
    gguf_name = names.get_name(own, try_suffixes=(".weight", ".bias"))
    if gguf_name is None:
        raise Unsupported(f"llama.cpp does not support the tensor {name!r}.")
    return gguf_name if gguf_name.endswith((".weight", ".bias")) else f"{gguf_name}.weight"


def array(weights: Tensor) -> Floats:
    """Return a tensor as numpy's, in float32."""
    return cast("Floats", weights.detach().float().cpu().numpy())


def interleaved(weights: Floats, heads: int) -> Floats:
    """Return the rows of each head in llama.cpp's order: x0 y0 x1 y1 … instead of x… y…."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weights.shape))


@dataclass(frozen=True, slots=True)
class ModelTensors:
    """Tensors of a model in a GGUF file; iterating creates one at a time."""

    config: PreTrainedConfig
    state: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.state)

    def __iter__(self) -> Iterator[tuple[str, Floats]]:
        tied = bool(cast("Any", self.config).tie_word_embeddings)
        for name, weights in self.state.items():
            if not (tied and name == "lm_head.weight"):
                yield from placed(self.config, name, weights)
        yield from _rope_factors(self.config)


def _rope(config: PreTrainedConfig) -> dict[str, Any]:
    rope = cast("Any", config).get_text_config().rope_parameters
    return rope.get("full_attention", rope)


def _rope_factors(config: PreTrainedConfig) -> Iterator[tuple[str, Floats]]:
    """Yield the divisors of rotary frequencies, if a model has them."""
    rope, text = _rope(config), cast("Any", config).get_text_config()
    kind = rope.get("rope_type", "default")
    if kind == "longrope":
        for length in ("long", "short"):
            yield f"rope_factors_{length}.weight", np.array(rope[f"{length}_factor"], np.float32)
    elif kind == "llama3":
        scaled = ROPE_INIT_FUNCTIONS["llama3"](text, torch.device("cpu"))[0]
        places = torch.arange(0, 2 * len(scaled), 2, dtype=torch.float32) / (2 * len(scaled))
        plain = 1.0 / (float(rope["rope_theta"]) ** places)
        yield "rope_freqs.weight", cast("Floats", (plain / scaled).numpy())
    elif kind not in {"default", "linear"}:
        raise Unsupported(
            f"GGUF exports support rotary scaling by linear, llama3 and longrope, not {kind!r}."
        )


def write_model(
    path: Path,
    tensors: ModelTensors,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    quantization: str,
) -> None:
    """Write a whole model; raises Unsupported if llama.cpp could not run it."""
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[family_of(tensors.config).architecture])
    _add_config(writer, tensors.config)
    size = int(cast("Any", tensors.config).get_text_config().vocab_size)
    add_tokenizer(writer, tokenizer, folder, size)
    mostly = "ALL_F32" if quantization == "F32" else f"MOSTLY_{quantization}"
    writer.add_file_type(LlamaFileType[mostly])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    _write(writer, tensors, quantization)


def _add_config(writer: GGUFWriter, config: PreTrainedConfig) -> None:
    text, rope = cast("Any", config).get_text_config(), _rope(config)
    writer.add_type(GGUFType.MODEL)
    for field, names in FIELDS.items():
        values = [value for name in names if (value := getattr(text, name, None)) is not None]
        if values:
            getattr(writer, f"add_{field}")(values[0])
    width = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if (window := text.rope_parameters.get("sliding_attention")) is not None:
        writer.add_rope_freq_base_swa(window["rope_theta"])
    if family_of(config).full_every or text.model_type == "phi3":
        writer.add_sliding_window(text.sliding_window or 0)
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        scaled = ROPE_INIT_FUNCTIONS["longrope"](text, torch.device("cpu"))[1]
        writer.add_rope_scaling_attn_factors(scaled)


@dataclass(frozen=True, slots=True)
class Adapter:
    """Tensors of a LoRA adapter in a GGUF file, from peft's names."""

    config: PreTrainedConfig
    state: Mapping[str, Tensor]
    alpha: float  # llama.cpp scales the update by this over the rank

    def __len__(self) -> int:
        return len(self.state)

    def __iter__(self) -> Iterator[tuple[str, Floats]]:
        for name, weights in self.state.items():
            module, _, part = name.removeprefix("base_model.model.").rpartition(".lora_")
            if part == "A.weight":  # has the update's columns, whose order stays
                yield f"{gguf_name_of(self.config, f'{module}.weight')}.lora_a", array(weights)
            else:
                for gguf_name, rows in placed(self.config, f"{module}.weight", weights):
                    yield f"{gguf_name}.lora_b", rows


def write_adapter(path: Path, adapter: Adapter) -> None:
    """Write a LoRA adapter, in float32."""
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[family_of(adapter.config).architecture])
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", adapter.alpha)
    _write(writer, adapter, "F32")


def _write(writer: GGUFWriter, tensors: ModelTensors | Adapter, quantization: str) -> None:
    """Write tensors one at a time, after a header with the length of each."""
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
    if values.ndim == 1 or name.endswith(EXACT):
        return GGMLQuantizationType.F32
    finer = quantization in COARSE and name in EMBEDDINGS
    kind = GGMLQuantizationType["Q8_0" if finer else quantization]
    block = GGML_QUANT_SIZES[kind][0]
    return kind if values.shape[-1] % block == 0 else GGMLQuantizationType.F16


def rounding(path: Path, tensors: ModelTensors | Adapter) -> float:
    """Return the relative error of a file's weights: RMS of differences over RMS of weights."""
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    differences = squares = 0.0
    for name, values in tensors:
        tensor = stored.pop(name)
        read = cast("Floats", dequantize(tensor.data, tensor.tensor_type)).reshape(values.shape)
        differences += float(np.square(read - values, dtype=np.float64).sum())
        squares += float(np.square(values, dtype=np.float64).sum())
    assert not stored, f"{path.name} also holds {', '.join(stored)}"
    return (differences / squares) ** 0.5
