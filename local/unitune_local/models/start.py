"""The adapter that a training goes on from: its first weights, and its shape, which stays.

Rank, alpha, targets, rsLoRA and DoRA are the adapter's own: a job that sets others is refused. So
is an adapter of a kind that is not trained here, and one of another base model. What is read of a
folder is peft's configuration and tensors as data. The optimiser begins anew.
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
from unitune.findings import Finding, error, warning
from unitune.job.job import Job
from unitune.models import OTHER_BASE
from unitune.workspace.validation import sentence
from unitune_local.models import store
from unitune_local.models.adapter import CONFIG, WEIGHTS, read_record, read_weights
from unitune_local.models.full import is_full
from unitune_local.models.model import patterns_of
from unitune_local.models.model_folder import missing_parts
from unitune_local.options import LocalOptions
from unitune_local.settings import AdapterShape

# What an adapter's configuration may say as it likes; the last two end with its training
CARRIED = (*AdapterShape.model_fields, "lora_dropout", "init_lora_weights")
ABOUT_FILES = (  # what it says of its files, and not of how it is computed
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
)


class StartAdapter(NamedTuple):
    """What was read of an adapter; no shape where it cannot be gone on from."""

    shape: AdapterShape | None
    findings: tuple[Finding, ...]


def read_start(folder: Path, job: Job, base: Path) -> StartAdapter:
    """Return the shape of an adapter, and what speaks against going on from it.

    A model that was tuned in full has none; a training in full goes on from its weights.
    """
    if job.tuning.full or is_full(folder):
        return StartAdapter(None, tuple(_full_findings(folder, base, job)))
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        what = f"start is {folder}, which has no {' and no '.join(missing)} on this machine."
        return _refused("start-files", what, "Name the folder of an adapter as peft writes it.")
    try:
        given = TypeAdapter(dict[str, JsonValue]).validate_json((folder / CONFIG).read_bytes())
        shape = AdapterShape.model_validate(given)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))} {sentence([first]).removesuffix('.')}".strip()
        what = f"{folder / CONFIG} is no LoRA adapter's: {why}."
        return _refused("start-adapter", what, "Name the folder of another adapter.")
    odd = _beyond_lora(given) or " and ".join(f"a pattern in {name}" for name in patterns_of(given))
    if odd:
        what = f"{folder / CONFIG} has {odd}, and unitune trains no such adapters."
        return _refused("start-adapter", what, "Name the folder of another adapter.")
    findings = (*_base_findings(folder, given, base, job), *_setting_findings(job, shape))
    return StartAdapter(shape, findings)


def misfit(model: PeftModel, folder: Path) -> str:
    """Return in what an adapter's tensors differ from those of a model; empty: in nothing."""
    needed = {name: list(weight.shape) for name, weight in _weights(model).items()}
    try:
        there = {name: list(tensor.shape) for name, tensor in read_weights(folder).items()}
    except SafetensorError as problem:
        return f"{WEIGHTS} cannot be read: {problem}"
    for name in sorted(needed.keys() | there.keys()):
        if needed.get(name) != there.get(name):
            return f"{name} has shape {there.get(name)}, and the model wants {needed.get(name)}"
    return ""


def load_start(model: PeftModel, folder: Path) -> None:
    """Give the adapters of a model the weights that stand in a folder.

    Raises:
        Mismatch: They are not those of such adapters.
    """
    if is_full(folder):
        return  # it was loaded in the base's place
    if difference := misfit(model, folder):
        raise Mismatch(f"the adapter in {folder} does not fit the base model: {difference}.")
    tensors = read_weights(folder)
    with torch.no_grad():
        for name, weight in _weights(model).items():
            weight.copy_(tensors[name])


def _weights(model: PeftModel) -> dict[str, Tensor]:
    """Return the weights of a model's adapters, which can be changed, by peft's names for them."""
    return cast("Any", peft).get_peft_model_state_dict(model, save_embedding_layers=False)


def _beyond_lora(given: dict[str, JsonValue]) -> str:
    """Return what an adapter's configuration has beyond what is carried on; empty: nothing."""
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
        what = f"tuning.full is true, and {folder} holds no model that was tuned in full."
        fix = "Export an adapter with `--to merged` and name that folder as the model."
        yield error("start-setting", what, fix)
    else:
        what = f"{folder} holds a model that was tuned in full, and tuning.full is false."
        yield error("start-setting", what, "Set tuning.full to true.")


def _base_findings(
    folder: Path, given: dict[str, JsonValue], base: Path, job: Job
) -> Iterator[Finding]:
    """Yield that an adapter was made of another base model, or that this cannot be known."""
    try:
        record = read_record(folder)
    except (OSError, ValidationError):
        named = str(given.get("base_model_name_or_path"))
        there = _folder_of(named)
        if there is not None and store.fingerprint(there) != store.fingerprint(base):
            what = f"the adapter in {folder} was trained on {named}, whose weights are others."
            yield error(OTHER_BASE, what, "Let both be the same base model, or leave `start` out.")
            return
        what = f"{folder} does not say which weights its adapter was trained on ({named})."
        yield warning("start-base-unknown", what, "Make sure that it was the base of this job.")
        return
    fingerprint = store.fingerprint(base)
    if record.base_fingerprint != fingerprint:
        what = (
            f"the adapter in {folder} was trained on a base model with the fingerprint "
            f"{record.base_fingerprint[:12]}; that of this job has {fingerprint[:12]}."
        )
        yield error(OTHER_BASE, what, "Let both be the same base model, or leave `start` out.")
    quantization = job_options(job, "local", LocalOptions).quantization
    if record.settings.quantization != quantization:
        theirs, ours = (each or "none" for each in (record.settings.quantization, quantization))
        what = f"options.local.quantization is {ours}; the adapter was trained beside {theirs}."
        yield error(OTHER_BASE, what, f"Let it be {theirs}: other frozen weights are another base.")


def _folder_of(name: str) -> Path | None:
    """Return the folder of a base model if it is on this machine."""
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
            what = f"tuning.lora.{name} is {explicit}; the adapter to go on from has {own}."
            yield error("start-setting", what, "Leave it to auto: an adapter keeps its own.")


def _refused(code: str, what: str, fix: str) -> StartAdapter:
    return StartAdapter(None, (error(code, what, fix),))
