"""Load tokenizers, base models and LoRA adapters.

Weights are read from safetensors only, and no code of a model's author runs. peft's forward adds
the outputs of adapter and base layer after rounding both, which in bfloat16 loses most of an early
training. `round_once` accumulates the base product onto the adapter's output inside the matrix
multiplication: losses follow those of float32, and it is faster.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from unitune.errors import Unsupported, UserError
from unitune.workspace.install import install_command
from unitune_local.data.attention import Layout
from unitune_local.data.chat_text import set_format
from unitune_local.machine import use_threads
from unitune_local.models.model_folder import weight_files
from unitune_local.models.targets import chosen_targets, patterns_of
from unitune_local.options import ChatFormat
from unitune_local.settings import Quantization, Settings

ADAPTER = "default"  # peft's name for the only adapter


# Options of from_pretrained: run no code of the folder, and fetch nothing
AS_DATA = {"trust_remote_code": False, "local_files_only": True}
MOST_LAYERS = 1_000  # the deepest published model has 126 (Llama 3.1 405B)


def config_of(folder: Path) -> PreTrainedConfig:
    """Return the configuration of a model folder.

    Raises:
        UserError: It has more layers than any model.
        Unsupported: transformers does not support language models of this type.
    """
    given: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    parts: list[dict[str, Any]] = [given, given.get("text_config") or {}]
    for part in parts:
        if part.get("num_hidden_layers", 0) > MOST_LAYERS:
            raise UserError(
                f"{folder / 'config.json'} sets num_hidden_layers to "
                f"{part['num_hidden_layers']:,}; at most {MOST_LAYERS:,} are supported."
            )
    try:
        config = cast("Any", AutoConfig).from_pretrained(folder, **AS_DATA)
    except ValueError as error:  # an unknown type, or an invalid value
        raise _no_model(str(given.get("model_type")), str(error).partition("\n")[0]) from error
    config._attn_implementation = None  # noqa: SLF001 - the folder may name a kernel to fetch
    model_class(config)
    return config


def model_class(config: PreTrainedConfig) -> Any:
    """Return the class that loads a configuration's language model, or raise Unsupported."""
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in cast("Any", auto)._model_mapping:  # noqa: SLF001 - no other list exists
            return auto
    raise _no_model(config.model_type, "It may be an encoder, or a model for images or audio only")


def _no_model(kind: str, why: str) -> Unsupported:
    return Unsupported(
        f"transformers {transformers.__version__} does not support language models of type "
        f"{kind!r}. {why.removesuffix('.')}. Choose a model of a supported type."
    )


def empty_model(folder: Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Return the model of a folder on torch's meta device, without weights."""
    config = config_of(folder)
    with torch.device("meta"):
        return model_class(config).from_config(config, **({"dtype": dtype} if dtype else {}))


def use_attention(model: PeftModel | PreTrainedModel, name: str | None) -> None:
    """Switch a model to a registered attention, or to the best of its architecture (None)."""
    base = cast("Any", model.get_base_model() if isinstance(model, PeftModel) else model)
    if base._can_set_attn_implementation():  # noqa: SLF001 - otherwise it would only log
        best = "sdpa" if base._supports_sdpa else "eager"  # noqa: SLF001 - no other name
        base.set_attn_implementation(name or best)


def load_tokenizer(path: Path, form: ChatFormat | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder, which renders conversations in a format."""
    tokenizer = cast("Any", AutoTokenizer).from_pretrained(path, **AS_DATA)
    return set_format(tokenizer, form or ChatFormat())


def load_model(
    path: Path,
    dtype: torch.dtype | Literal["auto"],
    *,
    device: str | torch.device = "cpu",
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """Load a causal language model, ready for inference.

    Args:
        path: Model folder.
        dtype: Dtype of the weights; auto: that of their files, which are mapped. With a
            quantization, the dtype of the computation.
        device: Device of the weights; auto: the layers are spread over all GPUs.
        quantization: Quantization of the linear layers except the output head; needs bitsandbytes.
    """
    use_threads()
    logging.disable_progress_bar()
    if quantization is not None and dtype != "auto":
        return load_quantized(path, config_of(path), dtype, device, quantization)
    config = config_of(path)
    model = model_class(config).from_pretrained(
        path,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        **_placement(device),
        **AS_DATA,
    )
    return cast("PreTrainedModel", model).eval()


def _placement(device: str | torch.device) -> dict[str, Any]:
    if device == "auto":
        return {"device_map": "auto"}
    where = torch.device(device)
    if where.type == "cpu":
        return {}
    if where.type == "cuda" and cast("Any", where).index is None:
        # Each process of a training has its own GPU.
        where = torch.device("cuda", torch.cuda.current_device())
    return {"device_map": {"": where}}


def round_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Round a model's weights, and nothing else.

    `Module.to` would also round the frequencies of the rotary embedding, by up to 0.4 % in
    bfloat16: at the hundredth token the fastest is then off by a third of a radian.
    """
    for weights in model.parameters():
        weights.data = weights.data.to(dtype)


def add_adapter(model: PreTrainedModel, settings: Settings) -> PeftModel:
    """Return the model with new, trainable adapters in float32; the base is frozen.

    Raises:
        UserError: The model has no layer with a name in the settings.
        Unsupported: None of its layers can have an adapter.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=cast("int", settings.alpha),  # peft accepts more than its annotation
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        init_lora_weights="gaussian" if settings.init == "gaussian" else True,
        rank_pattern=dict(settings.rank_pattern),
        alpha_pattern=cast("dict[str, int]", dict(settings.alpha_pattern)),
        layers_to_transform=None if settings.layers is None else list(settings.layers),
        modules_to_save=list(settings.modules_to_save or ()) or None,
        ensure_weight_tying=bool(settings.modules_to_save),
        task_type="CAUSAL_LM",
        **chosen_targets(model, settings),
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
    """Keep only layer inputs and recompute the rest; raises Unsupported if that is impossible."""
    base = cast("Any", model.get_base_model())
    if not base.supports_gradient_checkpointing:
        raise Unsupported(
            f"the architecture {base.config.model_type} does not support gradient checkpointing. "
            "Set options.local.gradient_checkpointing to false."
        )
    base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def add_noise(model: PeftModel, alpha: float) -> None:
    """Add noise to the embeddings of micro-batches while the model is in training mode.

    Each value gets noise from -s to s, where s = alpha / sqrt(L d) for a row of L tokens and
    embeddings of d values. L is the row's own length, without padding and other rows of a pack
    (transformers' own hook counts them).

    Source: Jain et al. 2023, "NEFTune: Noisy Embeddings Improve Instruction Finetuning", arXiv
    2310.05914, section 2.
    """
    lengths = torch.zeros(0)

    def note_lengths(_model: nn.Module, _given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal lengths
        if embeddings.training:  # the reload check calls the model without rows
            lengths = row_lengths(keywords.get("layout"), keywords.get("attention_mask"))

    def noisy(embeddings: nn.Module, _given: tuple[Any, ...], values: Tensor) -> Tensor:
        if not embeddings.training:
            return values
        most = alpha / (lengths * values.shape[-1]).sqrt()  # (1, T) or (B, 1)
        noise = torch.rand_like(values, dtype=torch.float32).mul_(2).sub_(1)
        return values + (noise * most[..., None]).to(values.dtype)

    embeddings = cast("nn.Module", cast("Any", model.get_base_model()).get_input_embeddings())
    model.register_forward_pre_hook(note_lengths, with_kwargs=True)
    embeddings.register_forward_hook(noisy)


def row_lengths(layout: Layout | None, attention_mask: Tensor | None) -> Tensor:
    """Return the length of each token's row: (1, T) when packed, else (B, 1)."""
    if layout is None:
        assert attention_mask is not None, "a micro-batch is packed or padded"
        return attention_mask.sum(1, keepdim=True)
    assert layout.prefix == 0, "rows that share a prefix would share its noise"
    own = layout.grid[:, -1] - layout.grid[:, 0] + 1  # (B,)
    return own[layout.places // layout.grid.shape[1]][None]


def load_adapter(model: PreTrainedModel, folder: Path, *, rounds_once: bool) -> PeftModel:
    """Return the model with an adapter read from a folder, for inference.

    With `rounds_once`, it computes as in training instead of as peft does.

    Raises:
        UserError: Its modules are selected by patterns, which may take any time to match.
    """
    given = json.loads((folder / "adapter_config.json").read_bytes())
    if patterns := patterns_of(given):
        raise UserError(
            f"{folder / 'adapter_config.json'} selects modules by regular expressions in "
            f"{', '.join(patterns)}, which may take any time to match. Use names of modules."
        )
    with _quiet():
        tuned = cast("PeftModel", cast("Any", PeftModel).from_pretrained(model, folder))
    if rounds_once:
        round_once(tuned)
    return tuned.eval()


def round_once(model: nn.Module) -> None:
    """Make adapted linear layers round once; layers that peft adapts in another way stay."""
    for layer in model.modules():
        if type(layer) is not Linear or layer.use_dora.get(ADAPTER):
            continue
        if isinstance(layer.get_base_layer(), nn.Linear):
            cast("Any", layer).forward = _forward_of(layer)


@contextmanager
def _quiet() -> Generator[None]:
    """Hide the warning that transformers will rename an attribute that peft reads."""
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


# Attribute that makes bitsandbytes pack a layer for a kernel without gradients
PACKS = "support_avx512bf16_for_cpu"


def load_quantized(
    path: Path,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: str | torch.device,
    quantization: Quantization,
) -> PreTrainedModel:
    """Load a model whose linear layers except the output head are quantised.

    Tensors are read one at a time instead of mapped. The pages of a mapped file would stay in
    memory as long as one of its tensors, such as the embeddings, which are not quantised.

    Source: Dettmers et al. 2023 for 4 bits, Dettmers et al. 2022 for 8.

    Raises:
        Unsupported: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise Unsupported(
            f"{quantization} weights require bitsandbytes, which is not installed: "
            f"{install_command('local', '4bit')}."
        )
    chosen = BitsAndBytesConfig(load_in_8bit=True)
    if quantization == "4bit":
        chosen = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    empty = cast("Any", empty_model(path))  # only for its class
    reading = cast("Any", safe_open)
    files = [reading(file, framework="pt", backend="pread") for file in weight_files(path)]
    model = empty.from_pretrained(
        None,
        config=config,
        state_dict={name: file.get_slice(name) for file in files for name in file.keys()},  # noqa: SIM118
        dtype=dtype,
        quantization_config=chosen,
        device_map={"": device},  # only possible while loading
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
