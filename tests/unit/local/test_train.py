from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from pydantic import JsonValue
from support.tiny_model import SETTINGS, write_rows
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from unitune.errors import RunFailed
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rows import read_rows, render_rows
from unitune_local.job_folder import Kind
from unitune_local.models.adapter import check_adapter, save_adapter
from unitune_local.models.model import (
    add_adapter,
    load_adapter,
    load_model,
    load_tokenizer,
    use_attention,
)
from unitune_local.settings import Settings
from unitune_local.spec import DataFile, Spec
from unitune_local.training.loop import TrainingContext, train
from unitune_local.training.optimizers import optimizer_of, scheduled_rate

UNIT_RATE = SETTINGS.model_copy(update={"learning_rate": 1.0})


@dataclass
class Trained:
    """One call of `train` with what it told."""

    model: PeftModel
    events: list[tuple[Kind, dict[str, JsonValue]]] = field(default_factory=list)
    finished: bool = False

    @property
    def losses(self) -> dict[JsonValue, JsonValue]:
        return {data["step"]: data["loss"] for kind, data in self.events if kind == "step"}

    def told(self, kind: Kind) -> list[dict[str, JsonValue]]:
        return [data for one, data in self.events if one == kind]


def run(
    base: Path,
    rows: Sequence[TrainingRow],
    folder: Path,
    settings: Settings = SETTINGS,
    stop_after: int | None = None,
) -> Trained:
    torch.manual_seed(settings.seed)
    done = Trained(add_adapter(load_model(base, settings.torch_dtype), settings))
    context = TrainingContext(
        folder,
        lambda kind, data: done.events.append((kind, data)),
        lambda: len(done.losses) == stop_after,
    )
    done.finished = train(done.model, rows[6:], rows[:6], settings, context)
    return done


@pytest.fixture(scope="module")
def rows(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRow, ...]:
    file = write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", 36)
    return render_rows(load_tokenizer(tiny_model), read_rows(file), 512).rows


def test_loss_falls_and_validation_follows(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path
) -> None:
    done = run(tiny_model, rows, tmp_path)
    measured = [data["loss"] for data in done.told("validation")]
    assert done.finished
    assert list(range(1, 13)) == list(done.losses)
    assert [data["step"] for data in done.told("validation")] == [0, 4, 8, 12]
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
    assert whole.told("validation") == first.told("validation") + second.told("validation")


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
    assert "dropout" in str(done.told("message")[0]["text"])


def test_learning_rate_warms_up_and_falls_like_a_cosine() -> None:
    rates = [scheduled_rate(step, 100, UNIT_RATE) for step in range(1, 101)]
    assert pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) == rates[:5]
    assert sorted(rates[4:], reverse=True) == rates[4:]
    assert 0 < rates[-1] < 0.001
    assert pytest.approx(0.5, abs=0.01) == scheduled_rate(53, 100, UNIT_RATE)


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


def test_one_step_alone_learns() -> None:
    assert scheduled_rate(1, 1, UNIT_RATE) == 1.0


@pytest.fixture(scope="module")
def trained(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    return run(tiny_model, rows, tmp_path_factory.mktemp("trained"))


def spec_for(base: Path) -> Spec:
    return Spec(
        base="tiny",
        base_path=base,
        base_fingerprint="0" * 64,
        training=DataFile(path=base, sha256=""),
        validation=None,
        data_fingerprint="1" * 64,
        settings=SETTINGS,
    )


def logits(model: PeftModel, row: TrainingRow) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([row.ids])).logits


def test_plain_peft_loads_the_adapter_and_gives_the_same_logits(
    tiny_model: Path, rows: tuple[TrainingRow, ...], trained: Trained, tmp_path: Path
) -> None:
    save_adapter(trained.model, load_tokenizer(tiny_model), spec_for(tiny_model), tmp_path / "a")
    use_attention(trained.model, "sdpa")
    plain = load_adapter(load_model(tiny_model, torch.float32), tmp_path / "a", rounds_once=False)
    untuned = load_model(tiny_model, torch.float32)
    about = json.loads((tmp_path / "a" / "unitune.json").read_text(encoding="utf-8"))
    assert (untuned.num_parameters(), False) == (about["base_parameters"], about["base_from_hub"])
    assert str(tiny_model) not in json.dumps(about)  # it is published with the adapter
    for row in rows[:3]:
        expected = logits(trained.model.eval(), row)
        torch.testing.assert_close(expected, logits(plain, row), rtol=1e-5, atol=1e-5)
        assert (expected - logits(untuned, row)).abs().max() > 0.1


def test_the_saved_adapter_answers_as_the_live_model(
    tiny_model: Path, rows: tuple[TrainingRow, ...], trained: Trained, tmp_path: Path
) -> None:
    spec = spec_for(tiny_model)
    save_adapter(trained.model, load_tokenizer(tiny_model), spec, tmp_path / "a")
    assert (
        check_adapter(copy.deepcopy(trained.model), spec, tmp_path / "a", [rows[0].ids[:20]]) == 0.0
    )


def test_an_adapter_that_answers_otherwise_fails_the_run(
    tiny_model: Path, rows: tuple[TrainingRow, ...], trained: Trained, tmp_path: Path
) -> None:
    spec = spec_for(tiny_model)
    save_adapter(trained.model, load_tokenizer(tiny_model), spec, tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"lora_alpha": 8.0', '"lora_alpha": 4.0'), encoding="utf-8")
    with pytest.raises(RunFailed, match="does not answer like the trained model"):
        check_adapter(copy.deepcopy(trained.model), spec, tmp_path / "a", [rows[0].ids[:20]])
