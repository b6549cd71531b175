from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import tiny_training
from support.tiny_model import SETTINGS, write_rows
from support.tiny_training import Trained, rows_in, save
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from unitune.errors import RunFailed
from unitune_local.data.batches import TrainingRow
from unitune_local.models.adapter import check_adapter
from unitune_local.models.model import load_model
from unitune_local.settings import Settings
from unitune_local.training.optimizers import optimizer_of, scheduled_rate

UNIT_RATE = SETTINGS.model_copy(update={"learning_rate": 1.0})


def run(
    base: Path,
    rows: Sequence[TrainingRow],
    folder: Path,
    settings: Settings = SETTINGS,
    stop_after: int | None = None,
) -> Trained:
    return tiny_training.run(base, rows[6:], rows[:6], folder, settings, stop_after=stop_after)


@pytest.fixture(scope="module")
def rows(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRow, ...]:
    return rows_in(write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", 36), tiny_model)


def test_loss_falls_and_validation_follows(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path
) -> None:
    done = run(tiny_model, rows, tmp_path)
    measured = [data["loss"] for data in done.noted("validation")]
    assert done.finished
    assert list(range(1, 13)) == list(done.losses)
    assert [data["step"] for data in done.noted("validation")] == [0, 4, 8, 12]
    assert measured[-1] < 0.7 * measured[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.1},
        {"dtype": "bfloat16"},
        {"neftune_noise_alpha": 5.0, "share_prefix": False, "loraplus_lr_ratio": 4.0},
        {"dora": True, "weight_decay": 0.1},
    ],
)
def test_a_resumed_training_has_the_same_losses_value_for_value(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path, changes: dict[str, object]
) -> None:
    settings = SETTINGS.model_copy(update=changes)
    whole = run(tiny_model, rows, tmp_path / "whole", settings)
    first = run(tiny_model, rows, tmp_path / "parts", settings, stop_after=5)
    second = run(tiny_model, rows, tmp_path / "parts", settings)
    assert not first.finished
    assert whole.losses == first.losses | second.losses
    assert list(second.losses)[:2] == [6, 7]
    assert whole.noted("validation") == first.noted("validation") + second.noted("validation")


def test_how_a_step_is_cut_does_not_change_its_loss(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path
) -> None:
    whole = SETTINGS.model_copy(update={"micro_batch_tokens": 10_000, "epochs": 1})
    parts = SETTINGS.model_copy(update={"micro_batch_tokens": 80, "epochs": 1})
    expected = run(tiny_model, rows, tmp_path / "whole", whole).losses
    actual = run(tiny_model, rows, tmp_path / "parts", parts).losses
    assert list(expected.values()) == pytest.approx(list(actual.values()), rel=1e-5)


def test_a_loss_that_is_no_number_ends_the_training_with_step_rate_and_lines(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path
) -> None:
    poisoned = [replace(row, weight=float("nan")) if row.line == 20 else row for row in rows]
    with pytest.raises(RunFailed, match=r"step \d+ has loss nan .* rate .* lines .*\b20\b"):
        run(tiny_model, poisoned, tmp_path)


def test_dropout_leaves_the_prefix_unshared_and_says_so(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"dropout": 0.1, "share_prefix": False, "epochs": 1})
    done = run(tiny_model, rows, tmp_path, settings, stop_after=1)
    assert "dropout" in str(done.noted("message")[0]["text"])


@pytest.mark.parametrize("warmup", [0.0, 1.0, 7.0, 0.25])
@pytest.mark.parametrize("steps", [1, 8, 50])
@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ("cosine", get_cosine_schedule_with_warmup),
        ("linear", get_linear_schedule_with_warmup),
        ("constant", get_constant_schedule_with_warmup),
    ],
)
def test_rates_are_those_of_transformers_without_its_step_at_zero(
    schedule: str, theirs: Callable[..., LambdaLR], warmup: float, steps: int
) -> None:
    """transformers' first step has a rate of zero; ours begins with its second one."""
    settings = UNIT_RATE.model_copy(update={"schedule": schedule, "warmup": warmup})
    rising = max(1, round(warmup * steps)) if 0 < warmup < 1 else int(warmup)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    length = () if schedule == "constant" else (steps + 1,)
    (factor,) = theirs(optimizer, rising, *length).lr_lambdas
    rates = [scheduled_rate(step, steps, settings) for step in range(1, steps + 1)]
    assert pytest.approx([factor(step) for step in range(1, steps + 1)]) == rates
    assert all(rate > 0 for rate in rates)


def test_weight_decay_shrinks_each_weight_by_its_share() -> None:
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, line 12."""
    stepped = list[torch.Tensor]()
    for decay in (0.0, 0.1):
        weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        settings = SETTINGS.model_copy(update={"weight_decay": decay})
        layer = torch.nn.Module()
        layer.register_parameter("w", weight)
        optimizer = optimizer_of(layer, settings)
        optimizer.set_rate(0.5)
        weight.grad = torch.tensor([1.0, 4.0])
        optimizer.step()
        stepped.append(weight.detach())
    torch.testing.assert_close(stepped[0] - 0.5 * 0.1 * torch.tensor([3.0, -2.0]), stepped[1])


@pytest.fixture(scope="module")
def trained(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    return run(tiny_model, rows, tmp_path_factory.mktemp("trained"))


def test_a_record_of_its_training_is_published_with_an_adapter(
    tiny_model: Path, trained: Trained, tmp_path: Path
) -> None:
    save(trained.model, tiny_model, tmp_path / "a")
    about = json.loads((tmp_path / "a" / "unitune.json").read_text(encoding="utf-8"))
    parameters = load_model(tiny_model, torch.float32).num_parameters()
    assert (parameters, False) == (about["base_parameters"], about["base_from_hub"])
    assert str(tiny_model) not in json.dumps(about), "it is published with the adapter"


def test_an_adapter_that_answers_otherwise_fails_the_run(
    tiny_model: Path, rows: tuple[TrainingRow, ...], trained: Trained, tmp_path: Path
) -> None:
    spec = save(trained.model, tiny_model, tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"lora_alpha": 8.0', '"lora_alpha": 4.0'), encoding="utf-8")
    with pytest.raises(RunFailed, match="does not answer like the trained model"):
        check_adapter(copy.deepcopy(trained.model), spec, tmp_path / "a", [rows[0].ids[:20]])
