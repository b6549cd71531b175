"""Read the adapter that a training continues from.

Rank, alpha, targets, rsLoRA and DoRA stay; a job that sets others is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import peft
import torch
from peft import LoraConfig, PeftModel
from pydantic import JsonValue, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from unitune.backends.options import job_options
from unitune.errors import Mismatch
from unitune.files.validation import sentence
from unitune.findings import Finding, error, warning
from unitune.job.job import Job
from unitune.models import OTHER_BASE
from unitune_local.models import store
from unitune_local.models.adapter import CONFIG, WEIGHTS, is_full, read_record, read_weights
from unitune_local.models.model_folder import missing_parts
from unitune_local.models.targets import patterns_of
from unitune_local.options import LocalOptions
from unitune_local.settings import AdapterShape

# Fields of an adapter's configuration that may differ; the last two only affect its training
CARRIED = (*AdapterShape.model_fields, "lora_dropout", "init_lora_weights")
ABOUT_FILES = (  # fields about its files, not its computation
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
)


class StartAdapter(NamedTuple):
    """Shape and findings of an adapter; no shape if a training cannot continue from it."""

    shape: AdapterShape | None
    findings: tuple[Finding, ...]


def read_start(folder: Path, job: Job, base: Path) -> StartAdapter:
    """Return the shape of an adapter, and the reasons against continuing from it.

    A fully tuned model has no shape; a full training continues from its weights.
    """
    if job.tuning.full or is_full(folder):
        return StartAdapter(None, tuple(_full_findings(folder, base, job)))
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        what = f"start is {folder}, which lacks {' and '.join(missing)} on this machine."
        return _refused("start-files", what, "Set start to an adapter folder in peft's format.")
    try:
        given = TypeAdapter(dict[str, JsonValue]).validate_json((folder / CONFIG).read_bytes())
        shape = AdapterShape.model_validate(given)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))} {sentence([first]).removesuffix('.')}".strip()
        what = f"{folder / CONFIG} does not describe a LoRA adapter: {why}."
        return _refused("start-adapter", what, "Set start to the folder of another adapter.")
    odd = _beyond_lora(given) or " and ".join(f"a pattern in {name}" for name in patterns_of(given))
    if odd:
        what = f"{folder / CONFIG} has {odd}, which unitune cannot train."
        return _refused("start-adapter", what, "Set start to the folder of another adapter.")
    findings = (*_base_findings(folder, given, base, job), *_setting_findings(job, shape))
    return StartAdapter(shape, findings)


def misfit(model: PeftModel, folder: Path) -> str:
    """Return how an adapter's tensors differ from those of a model, or an empty text."""
    needed = {name: list(weight.shape) for name, weight in _weights(model).items()}
    try:
        there = {name: list(tensor.shape) for name, tensor in read_weights(folder).items()}
    except SafetensorError as problem:
        return f"{WEIGHTS} cannot be read: {problem}"
    for name in sorted(needed.keys() | there.keys()):
        if needed.get(name) != there.get(name):
            return f"{name} has shape {there.get(name)}, but the model needs {needed.get(name)}"
    return ""


def load_start(model: PeftModel, folder: Path) -> None:
    """Load the weights in a folder into a model's adapters; raises Mismatch if they do not fit."""
    if is_full(folder):
        return  # it was loaded instead of the base
    if difference := misfit(model, folder):
        raise Mismatch(f"the adapter in {folder} does not fit the base model: {difference}.")
    tensors = read_weights(folder)
    with torch.no_grad():
        for name, weight in _weights(model).items():
            weight.copy_(tensors[name])


def _weights(model: PeftModel) -> dict[str, Tensor]:
    return cast("Any", peft).get_peft_model_state_dict(model, save_embedding_layers=False)


def _beyond_lora(given: dict[str, JsonValue]) -> str:
    """Return a setting of an adapter that cannot be carried over, or an empty text."""
    plain = cast("dict[str, Any]", LoraConfig(task_type="CAUSAL_LM").to_dict())
    for name, value in given.items():
        usual = plain.get(name)
        if name in (*CARRIED, *ABOUT_FILES) or (not value and not usual) or value == usual:
            continue
        return f"{name} {value!r}"
    return ""


def _full_findings(folder: Path, base: Path, job: Job) -> Iterator[Finding]:
    if job.tuning.full and is_full(folder):
        yield from _base_findings(folder, {}, base, job)
    elif job.tuning.full:
        what = f"tuning.full is true, but {folder} does not hold a fully tuned model."
        fix = "Export an adapter with `--to merged` and name that folder as the model."
        yield error("start-setting", what, fix)
    else:
        what = f"{folder} holds a fully tuned model, but tuning.full is false."
        yield error("start-setting", what, "Set tuning.full to true.")


def _base_findings(
    folder: Path, given: dict[str, JsonValue], base: Path, job: Job
) -> Iterator[Finding]:
    try:
        record = read_record(folder)
    except (OSError, ValidationError):
        named = str(given.get("base_model_name_or_path"))
        there = _folder_of(named)
        if there is not None and store.fingerprint(there) != store.fingerprint(base):
            what = f"the adapter in {folder} was trained on {named}, which has other weights."
            yield error(OTHER_BASE, what, "Use the same base model for both, or remove `start`.")
            return
        what = f"{folder} does not record which weights its adapter was trained on ({named})."
        yield warning("start-base-unknown", what, "Check that it was the base of this job.")
        return
    fingerprint = store.fingerprint(base)
    if record.base_fingerprint != fingerprint:
        what = (
            f"the adapter in {folder} was trained on a base model with the fingerprint "
            f"{record.base_fingerprint[:12]}; this job's has {fingerprint[:12]}."
        )
        yield error(OTHER_BASE, what, "Use the same base model for both, or remove `start`.")
    quantization = job_options(job, "local", LocalOptions).quantization
    if record.settings.quantization != quantization:
        theirs, ours = (each or "none" for each in (record.settings.quantization, quantization))
        what = f"options.local.quantization is {ours}; the adapter was trained with {theirs}."
        yield error(OTHER_BASE, what, f"Set it to {theirs}; quantization changes the base model.")


def _folder_of(name: str) -> Path | None:
    folder = Path(name).expanduser()
    if folder.is_dir() and not missing_parts(folder):
        return folder
    return next((each.path for each in store.stored() if each.name == name), None)


def _setting_findings(job: Job, shape: AdapterShape) -> Iterator[Finding]:
    lora = job.tuning.lora
    targets = lora.targets if isinstance(lora.targets, str) else tuple(sorted(lora.targets))
    for name, explicit, own in (
        ("rank", lora.rank, shape.r),
        ("alpha", lora.alpha, shape.lora_alpha),
        ("targets", targets, shape.target_names),
        ("layers", lora.layers, shape.layers_to_transform),
        ("modules_to_save", lora.modules_to_save, shape.modules_to_save),
        ("rslora", lora.rslora, shape.use_rslora),
        ("dora", lora.dora, shape.use_dora),
        ("init", lora.init, "weights"),
    ):
        if explicit not in ("auto", own):
            what = f"tuning.lora.{name} is {explicit}; the adapter to continue from has {own}."
            yield error("start-setting", what, "Set it to auto to keep the adapter's value.")


def _refused(code: str, what: str, fix: str) -> StartAdapter:
    return StartAdapter(None, (error(code, what, fix),))
