"""Convert a GGUF file of the Llama architecture to a folder that transformers loads.

The same file gives the same bytes, and so the same fingerprint, on every machine. transformers' own
GGUF loader is several times slower, cannot save what it loaded, and drops the digit splitting of
this tokenizer.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (metadata keys), 2026-11-25.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray
from pydantic import JsonValue
from safetensors import numpy as safetensors_numpy

from unitune.errors import Unsupported
from unitune.workspace.progress import counted

Floats = NDArray[np.float32]

LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}

# Pre-tokenizers by their name in the file. "smollm" splits digits one by one before the usual
# byte-level split; "gpt-2" does not.
# Source: llama.cpp, src/llama-vocab.cpp (pre-tokenizer types), and the tokenizer.json files of
# HuggingFaceTB/SmolLM2-135M-Instruct and openai-community/gpt2.
BYTE_LEVEL: dict[str, JsonValue] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
PRE_TOKENIZERS: dict[str, JsonValue] = {
    "gpt-2": BYTE_LEVEL,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    },
}
CONTROL_TOKEN = 3  # GGUF's type for tokens that are never made from text by merging


class Metadata(dict[str, Any]):
    """Key-value part of a GGUF file, in Python's own types."""

    def __missing__(self, key: str) -> Any:
        raise Unsupported(
            f"the GGUF file has no metadata {key!r}, which a Llama model needs. "
            "Use a Hugging Face name or a folder with safetensors instead."
        )

    def real(self, key: str) -> float:
        """Return a float, with the shortest digits that float32 holds."""
        return float(str(np.float32(self[key])))


def convert(source: Path, target: Path) -> None:
    """Write a GGUF file's model into a folder; raises Unsupported for other architectures."""
    reader = GGUFReader(source)
    metadata = Metadata({key: field.contents() for key, field in reader.fields.items()})
    _check(metadata)
    tensors = counted(_tensors(reader, metadata), "converting weights", len(reader.tensors))
    state: dict[str, Floats] = dict(tensors)
    tied = "lm_head.weight" not in state
    save_file = cast("Callable[..., None]", safetensors_numpy.save_file)  # pyright: ignore[reportUnknownMemberType]  # its path argument is untyped
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    _write(target / "config.json", _config(metadata, tied=tied))
    _write(target / "generation_config.json", {"use_cache": True, **_special_ids(metadata)})
    _write(target / "tokenizer.json", _tokenizer(metadata))
    _write(target / "tokenizer_config.json", _tokenizer_config(metadata))
    template = target / "chat_template.jinja"
    template.write_text(metadata["tokenizer.chat_template"], encoding="utf-8")


def _check(metadata: Metadata) -> None:
    known = {
        "general.architecture": {"llama"},
        "tokenizer.ggml.model": {"gpt2"},
        "tokenizer.ggml.pre": set(PRE_TOKENIZERS),
    }
    for key, allowed in known.items():
        value = metadata[key]
        if value not in allowed:
            raise Unsupported(
                f"the GGUF file has {key} {value!r}; only {' or '.join(sorted(allowed))} can be "
                "converted. Use a Hugging Face name or a folder with safetensors instead."
            )


def _tensors(reader: GGUFReader, metadata: Metadata) -> Iterator[tuple[str, Floats]]:
    heads = {
        "attn_q": metadata["llama.attention.head_count"],
        "attn_k": metadata["llama.attention.head_count_kv"],
    }
    for tensor in reader.tensors:
        weights = cast("Floats", dequantize(tensor.data, tensor.tensor_type))
        if tensor.name in OUTER_TENSORS:
            yield OUTER_TENSORS[tensor.name], weights
            continue
        _, layer, kind, suffix = tensor.name.split(".")
        if kind in heads:
            weights = _halves_first(weights, heads[kind])
        yield f"model.layers.{layer}.{LAYER_TENSORS[kind]}.{suffix}", np.ascontiguousarray(weights)


def _halves_first(weights: Floats, heads: int) -> Floats:
    """Undo GGUF's interleaving of rotary pairs: x0 y0 x1 y1 … becomes x0 x1 … y0 y1 …."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _config(metadata: Metadata, *, tied: bool) -> dict[str, JsonValue]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.rope.dimension_count"],
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": metadata.real("llama.attention.layer_norm_rms_epsilon"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": metadata.real("llama.rope.freq_base"),
        },
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        **_special_ids(metadata),
    }


def _special_ids(metadata: Metadata) -> dict[str, JsonValue]:
    return {
        f"{role}_token_id": metadata[f"tokenizer.ggml.{name}_token_id"]
        for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }


def _tokenizer(metadata: Metadata) -> dict[str, JsonValue]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    added: list[JsonValue] = [
        {
            "id": index,
            "content": tokens[index],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, kind in enumerate(metadata["tokenizer.ggml.token_type"])
        if kind == CONTROL_TOKEN
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[metadata["tokenizer.ggml.pre"]],
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(metadata: Metadata) -> dict[str, JsonValue]:
    tokens = metadata["tokenizer.ggml.tokens"]
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return {
        # Any other class would build its own pre-tokenizer instead of reading tokenizer.json.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata["llama.context_length"],
        **{
            f"{role}_token": tokens[metadata[f"tokenizer.ggml.{name}_token_id"]]
            for role, name in roles.items()
        },
    }


def _write(path: Path, content: JsonValue) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
