"""Optimisers, schedules and scaled float16 losses, against torch and transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_model import SETTINGS
from torch import nn
from transformers import get_cosine_with_min_lr_schedule_with_warmup, get_wsd_schedule

from unitune_local.models.adapter import trained_model
from unitune_local.models.model import load_model
from unitune_local.settings import Settings
from unitune_local.training import checkpoint
from unitune_local.training.checkpoint import Position
from unitune_local.training.optimizers import optimizer_of, scheduled_rate

UNIT_RATE = SETTINGS.model_copy(update={"learning_rate": 1.0})


def changed(**values: Any) -> Settings:
    return SETTINGS.model_copy(update=values)


def _factors(theirs: Any, steps: int, **settings: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    (factor,) = theirs(optimizer, **settings).lr_lambdas
    return [factor(step) for step in range(1, steps + 1)]


@pytest.mark.parametrize("lowest", [0.0, 0.1])
@pytest.mark.parametrize("decay", [0.2, 10.0])
def test_wsd_is_that_of_transformers_without_its_step_at_zero(decay: float, lowest: float) -> None:
    settings = UNIT_RATE.model_copy(
        update={"schedule": "wsd", "warmup": 5.0, "cooldown": decay, "min_lr_ratio": lowest}
    )
    rates = [scheduled_rate(step, 50, settings) for step in range(1, 51)]
    expected = _factors(
        get_wsd_schedule,
        50,
        num_warmup_steps=5,
        num_stable_steps=35,
        num_decay_steps=11,
        min_lr_ratio=lowest,
    )
    assert pytest.approx(expected[4:]) == rates[4:]
    assert rates[4:40] == [1.0] * 36, "stable until the decay"
    if not lowest:  # transformers' warmup begins at the lowest rate
        assert pytest.approx(expected) == rates


def test_a_cosine_ends_at_the_lowest_rate_as_in_transformers() -> None:
    settings = UNIT_RATE.model_copy(update={"warmup": 5.0, "min_lr_ratio": 0.2})
    rates = [scheduled_rate(step, 50, settings) for step in range(1, 51)]
    expected = _factors(
        get_cosine_with_min_lr_schedule_with_warmup,
        50,
        num_warmup_steps=5,
        num_training_steps=51,
        min_lr_rate=0.2,
    )
    assert pytest.approx(expected) == rates


def _stepped(base: Path, settings: Settings, count: int = 3) -> dict[str, nn.Parameter]:
    """Return the weights of a model after some steps on made-up gradients."""
    torch.manual_seed(0)
    model = trained_model(load_model(base, torch.float32), settings)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = optimizer_of(model, settings)
    for step in range(count):
        _gradients(weights, step)
        optimizer.set_rate(1e-2)
        optimizer.step()
    return weights


def _gradients(weights: dict[str, nn.Parameter], step: int) -> None:
    torch.manual_seed(step)
    for weight in weights.values():
        weight.grad = torch.randn_like(weight)


@pytest.mark.parametrize("full", [False, True])
def test_muon_is_torchs_own_for_matrices_and_adamw_for_the_rest(
    tiny_model: Path, *, full: bool
) -> None:
    settings = changed(optimizer="muon", full=full, weight_decay=0.1, beta2=0.95)
    ours = _stepped(tiny_model, settings)
    torch.manual_seed(0)
    model = trained_model(load_model(tiny_model, torch.float32), settings)
    theirs = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    muon = {name for name, each in theirs.items() if each.ndim == 2 and "embed" not in name}
    matrices = [theirs[name] for name in muon]
    others = [weight for name, weight in theirs.items() if name not in muon]
    parts = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        *(
            torch.optim.AdamW([each], lr=1e-2, betas=(0.9, 0.95), weight_decay=decay)
            for each in others
            for decay in [0.1 if each.ndim == 2 else 0.0]
        ),
    ]
    assert bool(others) is full, "of adapters every weight is a matrix"
    for step in range(3):
        _gradients(theirs, step)
        for part in parts:
            part.step()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-6, atol=1e-7)


def test_betas_reach_adamw(tiny_model: Path) -> None:
    model = trained_model(load_model(tiny_model, torch.float32), SETTINGS)
    optimizer = optimizer_of(model, changed(beta1=0.8, beta2=0.95))
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.95)}


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "muon"])
def test_the_state_of_each_optimiser_comes_back_from_a_checkpoint(
    tiny_model: Path, tmp_path: Path, name: str
) -> None:
    if "8bit" in name or "paged" in name:
        pytest.importorskip("bitsandbytes")
    settings = changed(optimizer=name, full=True)
    whole = _stepped(tiny_model, settings, 4)
    model = trained_model(load_model(tiny_model, torch.float32), settings)
    weights = dict(model.named_parameters())
    optimizer = optimizer_of(model, settings)
    for step in range(4):
        if step == 2:
            checkpoint.save(tmp_path, Position(step=2), weights, optimizer)
            model = trained_model(load_model(tiny_model, torch.float32), settings)
            weights, optimizer = dict(model.named_parameters()), optimizer_of(model, settings)
            saved = checkpoint.latest(tmp_path)
            assert saved is not None
            assert saved.position.step == 2
            checkpoint.restore(saved, weights, optimizer)
        _gradients(weights, step)
        optimizer.set_rate(1e-2)
        optimizer.step()
    for key, weight in whole.items():
        assert torch.equal(weight, weights[key])


def test_a_step_that_overflows_is_left_out_and_halves_the_scale(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = trained_model(load_model(tiny_model, torch.float32), SETTINGS)
    optimizer = optimizer_of(model, changed(dtype="float16"))
    before = [weight.detach().clone() for weight in optimizer.weights]
    loss = torch.stack([weight.sum() for weight in optimizer.weights]).sum()
    torch.autograd.backward(optimizer.scaler.scale(loss))
    assert _gradient(optimizer.weights[0]).flatten()[0] == 65536.0
    _gradient(optimizer.weights[0]).fill_(math.inf)
    norm = optimizer.clip_gradients(1.0)
    assert optimizer.may_skip(norm)
    optimizer.step()
    assert all(map(torch.equal, before, optimizer.weights))
    assert optimizer.scaler.get_scale() == 32768.0
    checkpoint.save(tmp_path, Position(step=1), dict(model.named_parameters()), optimizer)
    saved, again = checkpoint.latest(tmp_path), optimizer_of(model, changed(dtype="float16"))
    assert saved is not None
    checkpoint.restore(saved, dict(model.named_parameters()), again)
    assert again.scaler.get_scale() == 32768.0


def _gradient(weight: nn.Parameter) -> torch.Tensor:
    assert weight.grad is not None
    return weight.grad


def test_without_overflow_the_norm_is_that_of_unscaled_gradients(tiny_model: Path) -> None:
    model = trained_model(load_model(tiny_model, torch.float32), SETTINGS)
    optimizer = optimizer_of(model, changed(dtype="float16"))
    loss = torch.stack([weight.sum() for weight in optimizer.weights]).sum()
    torch.autograd.backward(optimizer.scaler.scale(loss))
    count = sum(weight.numel() for weight in optimizer.weights)
    assert optimizer.clip_gradients(1e9) == pytest.approx(math.sqrt(count))
