"""Create the optimiser of a training, and compute its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import nn

from unitune.errors import Unsupported
from unitune.workspace.install import install_command
from unitune_local.settings import COOLDOWN_SHARE, Settings

OF_BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW",
    "paged_adamw_8bit": "PagedAdamW8bit",
}
MUON_MOMENTUM = 0.95  # from Jordan 2024 (kellerjordan.github.io/posts/muon), and torch's default


class Optimizers:
    """One or two torch optimisers that share the weights of a model and step together.

    In float16 the loss is scaled, so that small gradients do not become zero. A step whose
    gradients overflow is skipped and halves the scale (Micikevicius et al. 2018, arXiv 1710.03740,
    section 3.2).
    """

    def __init__(
        self, parts: list[torch.optim.Optimizer], *, device: str = "cpu", scales_loss: bool = False
    ) -> None:
        self._parts = parts
        self.scaler = torch.amp.GradScaler(device, enabled=scales_loss)
        self.weights = [
            cast("nn.Parameter", weight)
            for part in parts
            for group in part.param_groups
            for weight in group["params"]
        ]
        self.state: dict[nn.Parameter, Any] = cast("Any", parts[0]).state
        """State of each weight, the same mapping for all parts."""
        for part in parts[1:]:
            part.state = cast("Any", self.state)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of all parts."""
        return [group for part in self._parts for group in part.param_groups]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.param_groups:
            group["lr"] = rate * group["ratio"]

    def clip_gradients(self, longest: float) -> float:
        """Clip the norm of all gradients, and return the norm before."""
        for part in self._parts:
            self.scaler.unscale_(part)
        return nn.utils.clip_grad_norm_(self.weights, longest).item()

    def may_skip(self, norm: float) -> bool:
        """Return whether a step is skipped because its scaled gradients overflowed."""
        scales = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        return scales and not math.isfinite(norm)

    def step(self) -> None:
        """Update the weights by their gradients, and clear these."""
        for part in self._parts:
            self.scaler.step(part)
            part.zero_grad()
        self.scaler.update()


def optimizer_of(model: nn.Module, settings: Settings) -> Optimizers:
    """Return the optimiser of a model's trainable weights; `Optimizers.set_rate` sets its rate.

    LoRA+ trains matrices B of adapters and DoRA's magnitudes at a higher rate. In full fine-tuning,
    vectors (biases and norms) do not decay, as in transformers.

    Raises:
        Unsupported: The optimiser needs bitsandbytes, which is not installed.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    muon = set[str]()
    if settings.optimizer == "muon":
        others = _vocabulary(model)
        muon = {name for name, each in weights.items() if each.ndim == 2 and each not in others}
    adam = _groups({name: weights[name] for name in weights if name not in muon}, settings)
    parts = [_adamw(adam, settings)] if adam else []
    if muon:
        groups = _groups({name: weights[name] for name in weights if name in muon}, settings)
        parts.append(
            torch.optim.Muon(
                groups,
                lr=0.0,
                weight_decay=settings.weight_decay,
                momentum=MUON_MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    made = Optimizers(parts, device=settings.device, scales_loss=settings.dtype == "float16")
    made.weights = [*weights.values()]  # the model's order, which determines the sum of their norm
    return made


def _groups(weights: Mapping[str, nn.Parameter], settings: Settings) -> list[dict[str, Any]]:
    ratio = settings.loraplus_lr_ratio or 1.0
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, weight in weights.items():
        is_b = not settings.full and (".lora_B." in name or weight.ndim == 1)
        decays = not settings.full or weight.ndim > 1
        groups.setdefault((is_b, decays), []).append(weight)
    return [
        {
            "params": group,
            "ratio": ratio if is_b else 1.0,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (is_b, decays), group in sorted(groups.items(), key=lambda each: each[0])
    ]


def _adamw(groups: list[dict[str, Any]], settings: Settings) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2)
    if settings.optimizer not in OF_BITSANDBYTES:
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)
    require_bitsandbytes(settings)
    kinds = cast("Any", import_module("bitsandbytes.optim"))  # an extra, without types
    return getattr(kinds, OF_BITSANDBYTES[settings.optimizer])(groups, lr=0.0, betas=betas)


def require_bitsandbytes(settings: Settings) -> None:
    """Raise Unsupported if an optimiser needs bitsandbytes and it is not installed."""
    if settings.optimizer in OF_BITSANDBYTES and find_spec("bitsandbytes") is None:
        raise Unsupported(
            f"tuning.optimizer is {settings.optimizer}, but bitsandbytes is not installed: "
            f"{install_command('local', '4bit')}, or use adamw."
        )


def _vocabulary(model: nn.Module) -> set[nn.Parameter]:
    base = cast("Any", model).get_base_model()
    layers = (base.get_input_embeddings(), base.get_output_embeddings())
    return {weight for layer in layers if layer is not None for weight in layer.parameters()}


def scheduled_rate(step: int, steps: int, settings: Settings) -> float:
    """Return the learning rate of a step: a linear warmup, then the schedule.

    It is transformers' rate one step later, with one more step, so that no step has a rate of zero.
    """
    warmup, peak = _count(settings.warmup, steps), settings.learning_rate
    if step <= warmup:
        return peak * step / warmup
    if settings.schedule == "constant":
        return peak
    begins = warmup
    if settings.schedule == "wsd":
        begins = max(warmup, steps - _count(settings.cooldown or COOLDOWN_SHARE, steps))
    done = max(0.0, (step - begins) / (steps - begins + 1))
    factor = 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return peak * (factor * (1 - settings.min_lr_ratio) + settings.min_lr_ratio)


def _count(steps: float, of: int) -> int:
    return max(1, round(steps * of)) if 0 < steps < 1 else round(steps)
