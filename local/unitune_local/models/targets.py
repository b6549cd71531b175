"""Choose the weights of a model that adapters change.

`auto` selects every matrix in the layers of the language model, including experts, which
transformers keeps as three-dimensional parameters. It omits embeddings, the output head, routers,
and the vision or audio parts of a multimodal model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from peft import PeftModel
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from unitune.errors import Unsupported, UserError
from unitune.findings import Finding, warning
from unitune_local.settings import Settings

ROUTERS = {"gate", "router", "shared_expert_gate"}
EXPERT_PARTS = {  # layers of one expert in a parameter, by the parameter's name
    "gate_up_proj": {"gate_proj", "up_proj", "w1", "w3"},
    "down_proj": {"down_proj", "w2"},
}
# Names of layers that peft takes for experts (`convert_peft_config_for_transformers`). In a model
# with experts, linear layers with these names are selected by their parameter instead.
MOVED = {*ROUTERS, *(part for parts in EXPERT_PARTS.values() for part in parts)}
MAMBA = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
# Layers of `MAMBA` models whose adapters would have no effect, because the kernels read the weights
# themselves. Source: peft 0.21, `_check_lora_target_modules_mamba`.
READ_BY_KERNELS = {"out_proj", "conv1d"}
MATRICES = 3  # dimensions of a parameter that holds one matrix for each expert
# Share of the weights above which nothing is reported, as routers are omitted on purpose
FULL_REACH = 0.98

# Fields of an adapter's configuration that peft matches against every module of the model
PATTERNS = ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern")
# Names of modules, also as peft writes those of experts: ``.*\.gate_up_proj``. Other patterns may
# take any time to match.
PLAIN_PATTERN = re.compile(r"(\^|\.\*\\?\.)?\w+(\\?\.\w+)*\$?")


def chosen_targets(model: PreTrainedModel, settings: Settings) -> dict[str, Any]:
    """Return the arguments of `LoraConfig` that select a model's weights.

    Raises:
        UserError: The model has no linear layer with the given names.
        Unsupported: No layer of the model can have an adapter.
    """
    own = settings.target_parameters
    if own:  # from the adapter that the training starts from
        return {"target_modules": list(settings.targets), "target_parameters": list(own)}
    layers, experts = list(_linear_layers(model)), list(_experts(model))
    if settings.layers is not None and (experts or _prefix(model)):
        raise Unsupported(
            f"tuning.lora.layers cannot be used with a {model.config.model_type} model, which has "
            "experts or is multimodal. Leave it out."
        )
    if settings.targets != "all":
        names = {_last(name) for name in settings.targets}
        known = {_last(name) for name in layers}
        known |= {part for name in experts for part in EXPERT_PARTS.get(_last(name), ())}
        if names.isdisjoint(known):
            raise UserError(
                f"tuning.lora.targets is {list(settings.targets)}, but the model has no linear "
                f"module with such a name. Choose from {', '.join(sorted(known))}."
            )
        if not experts and _prefix(model) == "":
            return {"target_modules": list(settings.targets)}
        layers = [name for name in layers if _last(name) in names]
        experts = [name for name in experts if names & EXPERT_PARTS.get(_last(name), set())]
    moved = [name for name in layers if experts and _last(name) in MOVED]
    modules = _short(model, [name for name in layers if name not in moved])
    # peft adapts parameters only without dropout and DoRA, and only unpacked ones.
    parameters = [*experts, *(f"{name}.weight" for name in moved if not settings.quantization)]
    if settings.dropout or settings.dora:
        parameters = []
    if not modules and not parameters:
        raise Unsupported(
            f"no layer of this {model.config.model_type} model can have an adapter with the job's "
            "settings. Choose another model, or leave tuning.lora out."
        )
    suffixes = {".".join(name.split(".")[-3:]) for name in parameters}
    return {"target_modules": modules, "target_parameters": sorted(suffixes) or None}


def reach_findings(model: PeftModel, settings: Settings) -> Iterator[Finding]:
    """Yield a warning if the adapters of `auto` miss a part of the layers' weights."""
    if settings.targets != "all" or settings.layers is not None or settings.full:
        return
    language = cast("Any", model.get_base_model()).get_decoder()
    left_out = {id(each.weight) for each in language.modules() if isinstance(each, nn.Embedding)}
    reached = {
        id(each.get_param() if isinstance(each, ParamWrapper) else each.get_base_layer().weight)
        for each in language.modules()
        if isinstance(each, LoraLayer)
    }
    sizes, missed = {True: 0, False: 0}, set[str]()
    for name, weight in language.named_parameters():
        if weight.ndim > 1 and ".lora_" not in name and id(weight) not in left_out:
            is_reached = id(weight) in reached
            sizes[is_reached] += weight.numel()
            if not is_reached:
                missed.add(".".join(name.removesuffix(".weight").split(".")[-2:]))
    share = sizes[True] / max(1, sum(sizes.values()))
    if share < FULL_REACH:
        yield warning(
            "adapter-reach",
            f"the adapters reach {share:.0%} of the weights in the model's layers; "
            f"{', '.join(sorted(missed))} keep their values.",
            "Leave out tuning.lora.dropout and dora to adapt experts."
            if settings.dropout or settings.dora
            else "Choose another model if that is too little.",
        )


def patterns_of(given: Mapping[str, object]) -> list[str]:
    """Return the fields of an adapter's configuration with patterns other than plain names.

    peft compares the entries of a list with names, and treats a string or a key as a pattern.
    """
    found = ["layers_pattern"] if given.get("layers_pattern") else []
    for name in PATTERNS:
        value = cast("Any", given.get(name))
        patterns = [value] if isinstance(value, str) else []
        patterns += [*cast("dict[str, object]", value)] if isinstance(value, dict) else []
        if not all(PLAIN_PATTERN.fullmatch(pattern) for pattern in patterns):
            found.append(name)
    return found


def _linear_layers(model: PreTrainedModel) -> Iterator[str]:
    head = cast("Any", model).get_output_embeddings()
    kernels = READ_BY_KERNELS if model.config.model_type in MAMBA else set[str]()
    for name, layer in _language_modules(model):
        is_router = not ROUTERS.isdisjoint(name.split(".")[-2:])
        left_out = layer is head or is_router or _last(name) in kernels
        if isinstance(layer, nn.Linear | Conv1D) and not left_out:
            yield name


def _experts(model: PreTrainedModel) -> Iterator[str]:
    for name, module in _language_modules(model):
        if not isinstance(module, nn.Conv1d):
            own = module.named_parameters(recurse=False)
            yield from (f"{name}.{each}" for each, weight in own if weight.ndim == MATRICES)


def _language_modules(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    prefix = _prefix(model)
    return (each for each in _modules(model) if each[0].startswith(prefix))


def _prefix(model: PreTrainedModel) -> str:
    """Return the prefix of the language model's names in a multimodal model, or ""."""
    given = cast("Any", model)
    if given.config.get_text_config() is given.config:
        return ""
    language = given.get_decoder()
    return next(f"{name}." for name, each in _modules(model) if each is language)


def _short(model: PreTrainedModel, names: list[str]) -> list[str]:
    """Return the last parts of modules' names, or whole names where other modules share them."""
    parts = {_last(name) for name in names}
    ending = {name for name, _ in _modules(model) if _last(name) in parts}
    return sorted(parts if ending == set(names) else names)


def _modules(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    return cast("Any", model).named_modules()


def _last(name: str) -> str:
    return name.rpartition(".")[2]
