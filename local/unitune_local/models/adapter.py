"""Prepare models for training with adapters or in full, save adapters and verify them.

Adapters are saved in peft's format; a saved one must answer like the trained model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import peft
import torch
from peft import PeftModel
from pydantic import BaseModel
from safetensors import torch as safetensors
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unitune._version import __version__
from unitune.backends.local_capabilities import ABOUT
from unitune.data.example import digest
from unitune.errors import RunFailed
from unitune.files.filesystem import sha256, whole_folder
from unitune.findings import Finding, error
from unitune_local.data.batches import TrainingRow
from unitune_local.data.chat_text import template_fingerprint
from unitune_local.models.model import (
    add_adapter,
    add_noise,
    config_of,
    keep_inputs_alone,
    load_adapter,
    load_model,
    round_weights,
    use_attention,
)
from unitune_local.models.model_folder import ADAPTER, fingerprint
from unitune_local.options import ChatFormat
from unitune_local.settings import AdapterShape, Quantization, Settings
from unitune_local.spec import Spec


class FullModel(nn.Module):
    """Model whose weights are all trained, with the `PeftModel` methods that a training uses."""

    def __init__(self, base: PreTrainedModel) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=True)

    def forward(self, *inputs: object, **keywords: object) -> object:
        """Return the output of the model."""
        return cast("Any", self.base)(*inputs, **keywords)

    def get_base_model(self) -> PreTrainedModel:
        """Return the model itself."""
        return self.base

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def trained_model(base: PreTrainedModel, settings: Settings) -> PeftModel:
    """Return a base model ready to be trained, with adapters or in full.

    Raises:
        Unsupported: The settings need gradient checkpointing, which the architecture lacks.
    """
    if not settings.full:
        model = add_adapter(base, settings)
        for weight in model.parameters():
            if weight.requires_grad:  # modules_to_save are copies in the base's dtype
                weight.data = weight.data.float()
        return model
    model = cast("PeftModel", FullModel(base))
    if settings.gradient_checkpointing:
        keep_inputs_alone(model)
    if settings.neftune_noise_alpha:
        add_noise(model, settings.neftune_noise_alpha)
    return model


def round_trained(model: PeftModel, base: Path, settings: Settings) -> None:
    """Round weights that were float32 only for the training to the dtype of their files."""
    if settings.full:
        round_weights(cast("PreTrainedModel", model.get_base_model()), saved_dtype(base))
        return
    for name, weight in model.named_parameters():
        if ".modules_to_save." in name:
            weight.data = weight.data.to(settings.torch_dtype)


def saved_dtype(base: Path) -> torch.dtype:
    """Return the dtype that a fully tuned model is saved in: that of the base's files."""
    return cast("torch.dtype | None", cast("Any", config_of(base)).dtype) or torch.float32


def is_full(folder: Path) -> bool:
    """Return whether a folder holds a fully tuned model instead of an adapter."""
    return (folder / ABOUT).is_file() and not (folder / ADAPTER).exists()


def full_findings(settings: Settings) -> Iterator[Finding]:
    """Yield errors for settings that cannot be combined with full training."""
    if not settings.full:
        return
    for name in ("quantization", "shard"):
        if getattr(settings, name):
            what = f"tuning.full trains every weight, but options.local.{name} needs frozen ones."
            yield error("full", what, f"Leave out tuning.full or {name}.")


CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CHECKED_ROWS = 2  # rows whose answers the saved adapter must reproduce
ANSWER_TOKENS = 8  # enough to reveal a wrong weight, a lost scale or another template
# Largest difference between two logits of the same arithmetic. It is 0 on one machine, and larger
# for every wrong adapter.
LARGEST_DIFFERENCE = 1e-3


class AdapterSettings(BaseModel):
    """Settings of a training that its answers depend on."""

    quantization: Quantization | None = None
    chat: ChatFormat = ChatFormat()


class AdapterRecord(BaseModel):
    """Record of the training that is stored with an adapter, as far as other modules read it."""

    base_fingerprint: str
    template_fingerprint: str
    settings: AdapterSettings = AdapterSettings()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return an adapter's tensors by peft's names."""
    return cast("Any", safetensors).load_file(folder / WEIGHTS)


def read_shape(folder: Path) -> AdapterShape:
    """Return an adapter's shape from its configuration."""
    return AdapterShape.model_validate_json((folder / CONFIG).read_bytes())


def read_record(folder: Path) -> AdapterRecord:
    """Return the record that is stored with an adapter."""
    return AdapterRecord.model_validate_json((folder / ABOUT).read_bytes())


def adapter_hash(folder: Path) -> str:
    """Return the hash of an adapter's weights and configuration."""
    if is_full(folder):
        return fingerprint(folder)
    return digest([sha256(folder / name) for name in (WEIGHTS, CONFIG)])


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, spec: Spec, folder: Path
) -> None:
    """Write the adapter, or the whole model, with its tokenizer and record."""
    full = spec.settings.full
    round_trained(model, spec.base_path, spec.settings)
    trained, total = 0, sum(weight.numel() for weight in model.parameters())
    if not full:
        trained, total = cast("tuple[int, int]", cast("Any", model).get_nb_trainable_parameters())
    about = {
        "unitune": __version__,
        "base": spec.base,
        "base_parameters": total - trained,
        "base_from_hub": spec.base_path.parent.name == "snapshots",  # in the Hub's own cache
        "base_fingerprint": spec.base_fingerprint,
        "template_fingerprint": template_fingerprint(tokenizer),
        "data_fingerprint": spec.data_fingerprint,
        "dtype": spec.settings.dtype,
        "settings": spec.settings.model_dump(mode="json"),
        "start": spec.start and spec.start.model_dump(mode="json"),
    }
    with whole_folder(folder) as draft:
        only_adapter = {} if full else {"save_embedding_layers": False}
        cast("Any", model).save_pretrained(draft, **only_adapter)
        cast("Any", tokenizer).save_pretrained(draft)
        (draft / "README.md").unlink(missing_ok=True)  # peft's empty model card
        (draft / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # left by a worker that died


def check_adapter(
    live: PeftModel, spec: Spec, folder: Path, prompts: Sequence[Sequence[int]]
) -> float:
    """Load a saved adapter onto a fresh base and compare its answers with the live model's.

    The live model is emptied, as memory may not hold two. With a sharded base, the saved weights
    are compared with the live ones instead. Returns the largest difference.

    Raises:
        RunFailed: They differ.
    """
    if spec.settings.shard:
        return _check_weights(live, spec.settings, folder)
    use_attention(live, None)
    device = cast("torch.device", live.device)
    answers = [_answer(live, prompt) for prompt in prompts]
    for module in [*live.modules()]:  # frees memory that is still referenced elsewhere
        vars(module).clear()
    if spec.settings.full:
        fresh = load_model(folder, saved_dtype(spec.base_path), device=device)
    else:
        base = load_model(
            spec.base_path,
            spec.settings.torch_dtype,
            device=device,
            quantization=spec.settings.quantization,
        )
        fresh = load_adapter(base, folder, rounds_once=True)
    worst = 0.0
    for prompt, expected in zip(prompts, answers, strict=True):
        actual = _answer(fresh, prompt)
        worst = max(worst, (expected.logits - actual.logits).abs().max().item())
        if expected.ids != actual.ids or not worst <= LARGEST_DIFFERENCE:
            raise RunFailed(
                f"the adapter saved in {folder} does not answer like the trained model: tokens "
                f"{actual.ids} instead of {expected.ids}, logits up to {worst:.3g} apart. "
                "This is a bug in unitune or in a library that it uses. Please report it."
            )
    return worst


def _check_weights(live: PeftModel, settings: Settings, folder: Path) -> float:
    saved = read_weights(folder)
    own = cast("dict[str, Tensor]", cast("Any", peft).get_peft_model_state_dict(live))
    shape = read_shape(folder)
    as_saved = (shape.r, shape.lora_alpha, shape.use_rslora, shape.use_dora)
    as_trained = (settings.rank, settings.alpha, settings.rslora, settings.dora)
    same = own.keys() == saved.keys() and all(own[name].cpu().equal(saved[name]) for name in own)
    if not same or as_saved != as_trained:
        raise RunFailed(
            f"the adapter saved in {folder} differs from the trained model in weights or settings. "
            "This is a bug in unitune or in a library that it uses. Please report it."
        )
    return 0.0


def checked_prompts(
    rows: Sequence[TrainingRow], validation: Sequence[TrainingRow]
) -> list[tuple[int, ...]]:
    """Return the prompts on which the saved adapter is compared with the trained model."""
    checked = (validation or rows)[:CHECKED_ROWS]
    return [tuple(row.ids[: row.prompt_length]) for row in checked]


class _Answer(NamedTuple):
    ids: list[int]
    logits: Tensor  # (ANSWER_TOKENS, V)


def _answer(model: PeftModel | PreTrainedModel, prompt: Sequence[int]) -> _Answer:
    """Answer greedily, recomputing everything for each token.

    All passes have the same length, so that kernels are compiled for one.
    """
    model.eval()
    device = cast("torch.device", model.device)
    ids = torch.zeros(1, len(prompt) + ANSWER_TOKENS, dtype=torch.long, device=device)
    ids[0, : len(prompt)] = torch.tensor(prompt)
    logits: list[Tensor] = []
    with torch.inference_mode():
        for place in range(len(prompt), ids.shape[1]):
            last = torch.tensor([place - 1], device=device)
            output = cast("Any", model)(input_ids=ids, use_cache=False, logits_to_keep=last)
            logits.append(output.logits[0, -1].float())
            ids[0, place] = logits[-1].argmax()
    return _Answer([int(token) for token in ids[0, len(prompt) :]], torch.stack(logits))
