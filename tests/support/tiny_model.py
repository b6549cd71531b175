"""A real model that is too small to know anything: tests of the local backend train it in a moment.

Random Llama weights, and a tokenizer with one token for each byte and ChatML around turns, so that
any text can be trained on.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from unitune_local.settings import Settings

START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_POSITIONS = 8192
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": 257,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,  # with less, frozen embeddings could not tell tokens apart
}

SETTINGS = Settings(
    epochs=3,
    batch_size=8,
    learning_rate=2e-2,
    rank=4,
    alpha=8.0,
    dropout=0.0,
    targets="all",
    sequence_length=512,
    seed=0,
    device="cpu",
    dtype="float32",
    threads=1,
    micro_batch_tokens=200,
    share_prefix=True,
    checkpoint_seconds=0.0,
    checkpoint_every_steps=1,
)
"""Of a training in a moment, which writes a checkpoint after each step."""


def save_tiny_model(folder: Path) -> Path:
    """Write a tiny Llama with its tokenizer into a folder, as any base model lies there."""
    return save_model(folder)


def save_model(folder: Path, **sizes: int) -> Path:
    """Likewise, of other sizes."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **{**SIZES, **sizes}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_default(cache: Path, original: Path | None = None) -> Path:
    """Let a tiny model stand for the model of README and documentation in a cache; return that.

    It has as many positions, for prompts with many rows, and is quick to end an answer.

    Args:
        cache: Where models are kept.
        original: The model that it stands for, whose tokenizer it has; None: one of bytes.
    """
    folder = cache / "models" / "smollm2-135m-instruct"
    tokenizer = AutoTokenizer.from_pretrained(original) if original else tiny_tokenizer()
    end = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    sizes = {**SIZES, **end, "max_position_embeddings": DEFAULT_POSITIONS}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    with torch.no_grad():  # one dimension has the same sign everywhere, and speaks for the end
        model.model.embed_tokens.weight[:, 0] = 4.0
        model.model.embed_tokens.weight[tokenizer.eos_token_id, 0] = 8.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return cache


def sliding_model() -> Qwen2ForCausalLM:
    """Return a tiny model whose attention sees only a window."""
    torch.manual_seed(0)
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=258, **SIZES, **window)).eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with 256 bytes, and start and end of a turn; the end is padding too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([START, END])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_rows(path: Path, count: int) -> Path:
    """Write rows of different length with one system prompt, as canonical JSON Lines."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Say the colour."},
                {"role": "user", "content": f"What colour has thing {'x' * (number % 7)}{number}?"},
                {"role": "assistant", "content": ("red", "green", "blue")[number % 3]},
            ]
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_pairs(path: Path, count: int) -> Path:
    """Write pairs of a colour to prefer and another one, as canonical JSON Lines."""
    colours = ("red", "green", "blue")
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"What colour has {number}?"}]},
            "preferred_output": [{"role": "assistant", "content": colours[number % 3]}],
            "non_preferred_output": [{"role": "assistant", "content": colours[(number + 1) % 3]}],
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
