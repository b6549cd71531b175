"""Tokenizer, base model and LoRA adapters.

Weights come from safetensors alone, and no code of the model's author runs. peft makes the
adapters, names them and writes them. Its forward adds the adapter's output to the base layer's,
both already rounded, which in bfloat16 loses most of an early training: a change below half a unit
in the last place is rounded away. Here the base product is accumulated onto the adapter's output
inside the matrix multiplication, which rounds once. Losses then follow those of float32, and it is
faster in both dtypes: no separate addition, and no input kept for the frozen weight's gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from unitune.errors import Unsupported
from unitune_local.machine import use_threads
from unitune_local.models.noise import add_noise
from unitune_local.models.quantized import load_quantized
from unitune_local.settings import Quantization, Settings

ADAPTER = "default"
"""peft's name for the only adapter."""


def config_of(folder: Path) -> PreTrainedConfig:
    """Return the configuration of a model folder."""
    return cast("Any", AutoConfig).from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )


def use_attention(model: PeftModel, name: str) -> None:
    """Switch the attention of the base model: ``sdpa``, or `unitune_local.data.attention.NAME`."""
    cast("Any", model.get_base_model()).set_attn_implementation(name)


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder, with its chat template."""
    auto = cast("Any", AutoTokenizer)
    return cast(
        "PreTrainedTokenizerBase",
        auto.from_pretrained(path, trust_remote_code=False, local_files_only=True),
    )


def load_model(
    path: Path,
    dtype: torch.dtype | Literal["auto"],
    *,
    device: str | torch.device = "cpu",
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """Load a causal language model, ready for inference.

    Args:
        path: Its folder.
        dtype: Of its weights, auto: as in their files, which are mapped then; with a quantisation,
            of what is computed with them.
        device: Where it is to be.
        quantization: Of the linear layers but the output head; needs bitsandbytes.
    """
    use_threads()
    logging.disable_progress_bar()
    if quantization is not None and dtype != "auto":
        return load_quantized(path, config_of(path), dtype, device, quantization)
    model = cast("Any", AutoModelForCausalLM).from_pretrained(
        path,
        dtype=dtype,
        attn_implementation="sdpa",
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    return cast("PreTrainedModel", model.to(device)).eval()


def round_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Round a model's weights, and nothing else.

    `Module.to` would round the frequencies of the rotary embedding, too, by up to 0.4 % in
    bfloat16: at the hundredth token the fastest is then a third of a radian off.
    """
    for weights in model.parameters():
        weights.data = weights.data.to(dtype)


def add_adapter(model: PreTrainedModel, settings: Settings) -> PeftModel:
    """Return the model with new, trainable adapters in float32; the base is frozen."""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=cast("int", settings.alpha),  # peft's annotation is narrower than what it takes
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        init_lora_weights="gaussian" if settings.init == "gaussian" else True,
        target_modules="all-linear" if settings.targets == "all" else list(settings.targets),
        task_type="CAUSAL_LM",
    )
    with _quiet():
        tuned = cast("PeftModel", get_peft_model(model, config))
    round_once(tuned)
    if settings.gradient_checkpointing:
        keep_inputs_alone(tuned)
    if settings.neftune_noise_alpha:
        add_noise(tuned, settings.neftune_noise_alpha)
    return tuned


def keep_inputs_alone(model: PeftModel) -> None:
    """Keep of each layer its input alone, and compute the rest again in the backward pass.

    Raises:
        Unsupported: transformers cannot do that with this architecture.
    """
    base = cast("Any", model.get_base_model())
    if not base.supports_gradient_checkpointing:
        raise Unsupported(
            f"the architecture {base.config.model_type} has no gradient checkpointing. Set "
            "options.local.gradient_checkpointing to false."
        )
    base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def load_adapter(model: PreTrainedModel, folder: Path, *, rounds_once: bool) -> PeftModel:
    """Return the model with an adapter read from a folder, for inference.

    Args:
        model: The base that the adapter was trained on.
        folder: In peft's format.
        rounds_once: Whether to compute as training did, instead of as peft does.
    """
    with _quiet():
        tuned = cast("PeftModel", cast("Any", PeftModel).from_pretrained(model, folder))
    if rounds_once:
        round_once(tuned)
    return tuned.eval()


def round_once(model: nn.Module) -> None:
    """Make the model's adapted linear layers compute base and adapter in one rounding.

    Layers that peft adapts in another way keep peft's forward.
    """
    for layer in model.modules():
        if (
            type(layer) is Linear
            and isinstance(layer.get_base_layer(), nn.Linear)
            and not layer.use_dora.get(ADAPTER)
        ):
            cast("Any", layer).forward = _forward_of(layer)


@contextmanager
def _quiet() -> Generator[None]:
    """Keep from users that peft reads an attribute which transformers will rename."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*is_gradient_checkpointing", module="transformers"
        )
        yield


def _forward_of(layer: Linear) -> Callable[[Tensor], Tensor]:
    base = cast("nn.Linear", layer.get_base_layer())
    down = cast("nn.Linear", layer.lora_A[ADAPTER])
    up = cast("nn.Linear", layer.lora_B[ADAPTER])
    dropout = cast("Callable[[Tensor], Tensor]", layer.lora_dropout[ADAPTER])
    scale = cast("dict[str, float]", cast("Any", layer).scaling)[ADAPTER]

    def forward(inputs: Tensor) -> Tensor:
        if layer.disable_adapters:
            return base(inputs)
        dtype = base.weight.dtype
        tokens = inputs.flatten(0, -2).to(dtype)
        inner = dropout(tokens) @ down.weight.to(dtype).t()
        outputs = inner @ (up.weight * scale).to(dtype).t()
        outputs.addmm_(tokens, base.weight.t())
        if base.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]  # None without bias
            outputs = outputs + base.bias
        return outputs.view(*inputs.shape[:-1], -1)

    return forward
