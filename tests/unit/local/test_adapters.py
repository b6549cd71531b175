"""Variants of LoRA and NEFTune, against peft, transformers and their papers' formulas."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import Linear
from support.tiny_model import SETTINGS, write_rows
from support.tiny_training import logits, rows_in, save
from torch import nn
from transformers.integrations.neftune import neftune_post_forward_hook

from unitune.errors import JobError
from unitune.job.job import Data, Job, Lora, Tuning
from unitune_local.data import attention
from unitune_local.data.batches import TrainingRow, packed, padded
from unitune_local.inference.chat import merged
from unitune_local.models.adapter import check_adapter
from unitune_local.models.model import (
    add_adapter,
    add_noise,
    load_adapter,
    load_model,
    row_lengths,
    use_attention,
)
from unitune_local.models.size import empty_tuned_model, size_of
from unitune_local.objectives.loss import loss_sum
from unitune_local.settings import Dimensions, Settings, resolve
from unitune_local.training.optimizers import optimizer_of

VARIANTS = [{"rslora": True}, {"dora": True}, {"init": "gaussian"}, {"rslora": True, "dora": True}]


@pytest.fixture(scope="module")
def rows(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRow, ...]:
    return rows_in(write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", 12), tiny_model)


def tuned(base: Path, rows: Sequence[TrainingRow], settings: Settings, steps: int = 3) -> PeftModel:
    """Return a model after a few steps on all rows at once."""
    torch.manual_seed(0)
    model = add_adapter(load_model(base, settings.torch_dtype), settings).train()
    optimizer = optimizer_of(model, settings)
    for _ in range(steps):
        optimizer.set_rate(1e-2)
        torch.autograd.backward(loss_sum(model, padded(rows)))
        optimizer.step()
    return model.eval()


def layers(model: nn.Module) -> list[Any]:
    return [layer for layer in model.modules() if type(layer) is Linear]


@pytest.mark.parametrize("changes", [{}, *VARIANTS])
def test_plain_peft_gives_the_same_logits_and_so_does_the_merged_model(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = SETTINGS.model_copy(update=changes)
    model = tuned(tiny_model, rows, settings)
    spec = save(model, tiny_model, tmp_path / "a", settings)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (settings.rslora, settings.dora) == (config["use_rslora"], config["use_dora"])
    assert check_adapter(copy.deepcopy(model), spec, tmp_path / "a", [rows[0].ids[:20]]) == 0.0

    plain = load_adapter(load_model(tiny_model, torch.float32), tmp_path / "a", rounds_once=False)
    whole = merged(load_model(tiny_model, torch.float32), tmp_path / "a")
    untuned = load_model(tiny_model, torch.float32)
    for row in rows[:3]:
        expected = logits(model, row)
        torch.testing.assert_close(expected, logits(plain, row), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(expected, logits(whole, row), rtol=1e-4, atol=1e-4)
        assert (expected - logits(untuned, row)).abs().max() > 0.1


@pytest.mark.parametrize("changes", [{}, *VARIANTS])
def test_a_layer_computes_its_paper_s_formula(
    tiny_model: Path, rows: tuple[TrainingRow, ...], changes: dict[str, Any]
) -> None:
    """rsLoRA, theorem 3.2: scale alpha / sqrt(r). DoRA, equation 5: m (W + BA) / |W + BA|."""
    settings = SETTINGS.model_copy(update={**changes, "rank": 4, "alpha": 6.0})
    layer = layers(tuned(tiny_model, rows, settings))[0]
    weight = layer.get_base_layer().weight
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    scaled = weight + (6.0 / 2 if settings.rslora else 6.0 / 4) * (b @ a)
    if settings.dora:
        sizes = layer.lora_magnitude_vector["default"].weight
        assert (sizes - weight.norm(dim=1)).abs().max() > 1e-4, "they are learnt"
        scaled = sizes[:, None] * scaled / scaled.norm(dim=1, keepdim=True)
    inputs = torch.randn(2, 5, weight.shape[1])
    torch.testing.assert_close(inputs @ scaled.t(), layer(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_new_adapter_changes_nothing(
    tiny_model: Path, rows: tuple[TrainingRow, ...], changes: dict[str, Any]
) -> None:
    settings = SETTINGS.model_copy(update=changes)
    fresh = add_adapter(load_model(tiny_model, torch.float32), settings).eval()
    untuned = load_model(tiny_model, torch.float32)
    torch.testing.assert_close(logits(untuned, rows[0]), logits(fresh, rows[0]))


@pytest.mark.parametrize("changes", [{}, *VARIANTS])
def test_what_they_hold_in_memory_is_known_without_weights(
    tiny_model: Path, changes: dict[str, Any]
) -> None:
    settings = SETTINGS.model_copy(update=changes)
    model = add_adapter(load_model(tiny_model, torch.float32), settings)
    expected = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    size = size_of(empty_tuned_model(tiny_model, settings))
    assert expected == size.trained
    assert size == size_of(model)


def test_the_loss_is_the_same_packed_and_padded(
    tiny_model: Path, rows: tuple[TrainingRow, ...]
) -> None:
    model = tuned(tiny_model, rows, SETTINGS.model_copy(update={"dora": True}))
    expected = loss_sum(model, padded(rows[:4])).item()
    use_attention(model, attention.NAME)
    actual = loss_sum(model, packed(rows[:4], share=True)).item()
    assert pytest.approx(expected, rel=1e-5) == actual


def test_lora_plus_learns_as_with_peft_s_own_optimiser(
    tiny_model: Path, rows: tuple[TrainingRow, ...]
) -> None:
    settings = SETTINGS.model_copy(
        update={"loraplus_lr_ratio": 16.0, "weight_decay": 0.05, "dora": True}
    )
    ours = tuned(tiny_model, rows, settings)
    torch.manual_seed(0)
    theirs = add_adapter(load_model(tiny_model, torch.float32), settings).train()
    optimizer = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.05
    )
    for _ in range(3):
        torch.autograd.backward(loss_sum(theirs, padded(rows)))
        optimizer.step()
        optimizer.zero_grad()
    for (name, expected), (_, actual) in zip(
        theirs.named_parameters(), ours.named_parameters(), strict=True
    ):
        torch.testing.assert_close(expected, actual, msg=name)


# --- noise


def noise_of(model: PeftModel, *, packs: bool, rows: Sequence[TrainingRow]) -> torch.Tensor:
    """Return what is added to the embeddings of a micro-batch."""
    seen: list[torch.Tensor] = []
    embeddings = cast("Any", model.get_base_model()).get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda *given: seen.append(given[2].detach()))
    batch = packed(rows, share=False, multiple=32) if packs else padded(rows)
    use_attention(model, attention.NAME if packs else "sdpa")
    loss_sum(model, batch)
    handle.remove()
    return seen[0] - embeddings.weight[batch.ids]


@pytest.mark.parametrize("packs", [True, False])
def test_noise_is_as_large_as_the_paper_says_by_each_row_s_own_length(
    tiny_model: Path, rows: tuple[TrainingRow, ...], *, packs: bool
) -> None:
    """NEFTune, section 2: uniform from -s to s with s = alpha / sqrt(L d)."""
    model = add_adapter(load_model(tiny_model, torch.float32), SETTINGS)
    add_noise(model, 5.0)
    long = TrainingRow(rows[0].ids * 4, rows[0].trained * 4, 1.0, 1)
    chosen, width = (rows[1], long), 32
    noise = noise_of(model.train(), packs=packs, rows=chosen)
    start = 0
    for at, row in enumerate(chosen):
        length = len(row.ids)
        own = noise[0, start : start + length] if packs else noise[at, :length]
        most = 5.0 / (length * width) ** 0.5
        assert 0.98 * most < own.abs().max() <= most * (1 + 1e-5)
        assert own.mean().abs() < 0.05 * most
        assert pytest.approx(most / 3**0.5, rel=0.05) == own.std().item()
        start += length
    assert noise_of(model.eval(), packs=packs, rows=chosen).abs().max() == 0


def test_noise_of_one_row_is_that_of_transformers() -> None:
    """alpha 5, 10 tokens and a width of 576: 0.0658808, by hand."""
    lengths = row_lengths(None, torch.ones(1, 10))
    most = (5.0 / (lengths * 576).sqrt()).item()
    assert pytest.approx(0.0658808, abs=1e-7) == most
    embeddings = nn.Embedding(4, 576).train()
    cast("Any", embeddings).neftune_noise_alpha = 5.0
    values = torch.zeros(1, 10, 576)
    torch.manual_seed(3)
    theirs = cast("torch.Tensor", neftune_post_forward_hook(embeddings, None, values))
    torch.manual_seed(3)
    ours = (torch.rand(1, 10, 576) * 2 - 1) * most
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)


# --- settings


def settings_of(tuning: Tuning) -> Settings:
    job = Job(name="x", model="tiny", backend="local", data=Data(train="t.jsonl"), tuning=tuning)
    return resolve(job, Dimensions(context=512, hidden=32))


def test_the_scale_by_default_is_that_of_plain_lora_at_the_default_rank() -> None:
    plain, stable = (
        settings_of(Tuning(lora=Lora(rank=rank, rslora=rank == 64))) for rank in (16, 64)
    )
    assert (plain.alpha / 16, stable.alpha / 64**0.5) == (2.0, 1.0)
    sixteen = settings_of(Tuning(lora=Lora(rslora=True)))
    assert pytest.approx(2.0) == sixteen.alpha / sixteen.rank**0.5


def test_rows_share_no_noise() -> None:
    assert settings_of(Tuning()).share_prefix
    assert not settings_of(Tuning(neftune_noise_alpha=5)).share_prefix


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq"])
def test_what_changes_the_base_is_refused_with_the_reason(tmp_path: Path, init: str) -> None:
    text = "name: x\nmodel: m\nbackend: local\ndata: {train: t.jsonl}\n"
    (tmp_path / "job.yaml").write_text(f"{text}tuning: {{lora: {{init: {init}}}}}\n")
    with pytest.raises(JobError, match=rf"job.yaml:5.*init is '{init}'.*changes the weights"):
        Job.load(tmp_path / "job.yaml")
