"""Tokenizers and models from a folder, in the one way that is safe and fast enough.

Weights come from safetensors alone, no code of the model's author runs, and progress bars stay
quiet. Which folder a name stands for is decided in `unitune_local.store`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from unitune_local.machine import use_threads


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder, with its chat template."""
    auto = cast("Any", AutoTokenizer)
    return cast(
        "PreTrainedTokenizerBase",
        auto.from_pretrained(path, trust_remote_code=False, local_files_only=True),
    )


def load_model(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Load a causal language model onto the CPU, ready for inference.

    Args:
        path: Folder with configuration and safetensors.
        dtype: Of the weights in memory.
    """
    use_threads()
    logging.disable_progress_bar()
    auto = cast("Any", AutoModelForCausalLM)
    model = auto.from_pretrained(
        path,
        dtype=dtype,
        attn_implementation="sdpa",
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    return cast("PreTrainedModel", model).eval()
