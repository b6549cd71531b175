"""The trained adapter on disk, in peft's own format, and the proof that it answers as it should.

The folder holds ``adapter_model.safetensors`` and ``adapter_config.json`` for plain
`PeftModel.from_pretrained`, the tokenizer with its chat template, and ``unitune.json``, which says
what it was trained on and how. It appears whole or not at all. What counts is what the disk gives
back: the adapter is loaded again onto a fresh base and must answer as the live model does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import peft
import torch
from peft import PeftModel
from pydantic import BaseModel
from safetensors import torch as safetensors
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import unitune
from unitune.backends.exports import ABOUT
from unitune.data.example import digest
from unitune.errors import RunFailed
from unitune.workspace.filesystem import sha256, whole_folder
from unitune_local.chat_format import ChatFormat
from unitune_local.data.batches import TrainingRow
from unitune_local.data.chat_text import template_fingerprint
from unitune_local.models.full import is_full, round_trained, saved_dtype
from unitune_local.models.model import load_adapter, load_model, use_attention
from unitune_local.models.model_folder import fingerprint
from unitune_local.settings import AdapterShape, Quantization, Settings
from unitune_local.spec import Spec

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CHECKED_ROWS = 2  # rows whose answers the saved adapter must repeat
ANSWER_TOKENS = 8  # enough for a wrong weight, a lost scale or another template to show
# Of two logits that the same arithmetic gives; it is 0 on one machine, and no wrong adapter is that
# near
LARGEST_DIFFERENCE = 1e-3


class AdapterSettings(BaseModel):
    """Settings of a training that its answers depend on."""

    quantization: Quantization | None = None
    chat: ChatFormat = ChatFormat()


class AdapterRecord(BaseModel):
    """What the training wrote beside an adapter, as far as others need it."""

    base_fingerprint: str
    template_fingerprint: str
    settings: AdapterSettings = AdapterSettings()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return an adapter's tensors by peft's names."""
    return cast("Any", safetensors).load_file(folder / WEIGHTS)


def read_shape(folder: Path) -> AdapterShape:
    """Return what an adapter's configuration says of its shape."""
    return AdapterShape.model_validate_json((folder / CONFIG).read_bytes())


def read_record(folder: Path) -> AdapterRecord:
    """Return what stands beside an adapter."""
    return AdapterRecord.model_validate_json((folder / ABOUT).read_bytes())


def adapter_hash(folder: Path) -> str:
    """Return the hash of an adapter's weights and configuration."""
    if is_full(folder):
        return fingerprint(folder)
    return digest([sha256(folder / name) for name in (WEIGHTS, CONFIG)])


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, spec: Spec, folder: Path
) -> None:
    """Write the adapter, or the whole model, with all that belongs to it."""
    full = spec.settings.full
    round_trained(model, spec.base_path, spec.settings)
    trained, total = 0, sum(weight.numel() for weight in model.parameters())
    if not full:
        trained, total = cast("tuple[int, int]", cast("Any", model).get_nb_trainable_parameters())
    about = {
        "unitune": unitune.__version__,
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
        shutil.rmtree(folder, ignore_errors=True)  # of a worker that died before it could say so


def check_adapter(
    live: PeftModel, spec: Spec, folder: Path, prompts: Sequence[Sequence[int]]
) -> float:
    """Load a saved adapter onto a fresh base and compare its answers with the live model's.

    The live model ends with that, as the memory may not hold two. A base that no process holds
    whole answers nothing: what was saved is then compared with the live weights themselves.

    Returns:
        The largest difference of two logits, or of two weights.

    Raises:
        RunFailed: They differ.
    """
    if spec.settings.shard:
        return _check_weights(live, spec.settings, folder)
    use_attention(live, None)
    device = cast("torch.device", live.device)
    answers = [_answer(live, prompt) for prompt in prompts]
    for module in [*live.modules()]:  # frees what it holds, whoever still refers to it
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
                f"the adapter saved in {folder} does not answer as the trained model did: tokens "
                f"{actual.ids} instead of {expected.ids}, logits up to {worst:.3g} apart. "
                "This is a fault of unitune or of a library below it; please report it."
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
            f"the adapter saved in {folder} has other weights or settings than the trained model. "
            "This is a fault of unitune or of a library below it; please report it."
        )
    return 0.0


def checked_prompts(
    rows: Sequence[TrainingRow], validation: Sequence[TrainingRow]
) -> list[tuple[int, ...]]:
    """Return the prompts that the saved adapter must answer as the trained model does."""
    checked = (validation or rows)[:CHECKED_ROWS]
    return [tuple(row.ids[: (*row.trained, True).index(True)]) for row in checked]


class _Answer(NamedTuple):
    ids: list[int]
    logits: Tensor  # (ANSWER_TOKENS, V)


def _answer(model: PeftModel | PreTrainedModel, prompt: Sequence[int]) -> _Answer:
    """Answer greedily, computing everything anew for each token.

    All passes have the same length, so that kernels are made for one; what stands after a token
    does not reach it.
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
