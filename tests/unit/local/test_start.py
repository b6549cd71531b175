"""A training that goes on from an adapter: what it begins with, keeps, and is refused for."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import tiny_training
from support.tiny_model import SETTINGS, save_tiny_model, write_pairs, write_rows
from support.tiny_training import Trained, logits, rows_in, save

from unitune.data.dataset import Dataset
from unitune.errors import Mismatch
from unitune.job.job import Data, Job, Lora, Tuning
from unitune.models import OTHER_BASE, Start, TunedModel
from unitune_local.backend import LocalBackend
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rows import read_rows
from unitune_local.models.adapter import CONFIG, WEIGHTS, adapter_hash
from unitune_local.models.model import add_adapter, load_adapter, load_model
from unitune_local.models.start import load_start, misfit, read_start
from unitune_local.settings import Dimensions, PreferenceSettings, Settings, resolve
from unitune_local.training.run import check_start

DPO = SETTINGS.model_copy(
    update={
        "batch_size": 4,
        "preference": PreferenceSettings(
            loss="dpo", beta=0.1, label_smoothing=0.0, margin=0.0, nll_weight=0.0
        ),
    }
)


def run(
    base: Path,
    rows: Sequence[TrainingRow],
    folder: Path,
    settings: Settings = SETTINGS,
    **options: Any,
) -> Trained:
    return tiny_training.run(base, rows[6:], rows[:6], folder, settings, **options)


@pytest.fixture(scope="module")
def rows(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRow, ...]:
    return rows_in(write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", 30), tiny_model)


@pytest.fixture(scope="module")
def pairs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRow, ...]:
    return rows_in(write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", 14), tiny_model)


@pytest.fixture(scope="module")
def first(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    return run(tiny_model, rows, tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def adapter(first: Trained, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "first"
    save(first.model, tiny_model, folder)
    return folder


def test_at_a_rate_of_zero_it_ends_as_the_adapter_that_it_began_with(
    tiny_model: Path, rows: tuple[TrainingRow, ...], first: Trained, adapter: Path, tmp_path: Path
) -> None:
    still = SETTINGS.model_copy(update={"learning_rate": 0.0, "epochs": 1})
    done = run(tiny_model, rows, tmp_path, still, start=adapter)
    assert torch.equal(logits(first.model, rows[0]), logits(done.model, rows[0]))
    save(done.model, tiny_model, tmp_path / "a")
    before, saved = (load_file(each / WEIGHTS) for each in (adapter, tmp_path / "a"))
    assert before.keys() == saved.keys()
    assert all(torch.equal(before[name], saved[name]) for name in before)


def test_it_begins_at_the_loss_where_the_first_training_ended_and_lowers_it(
    tiny_model: Path, rows: tuple[TrainingRow, ...], first: Trained, adapter: Path, tmp_path: Path
) -> None:
    second = run(tiny_model, rows, tmp_path, start=adapter)
    assert first.validations[-1]["loss"] == pytest.approx(second.validations[0]["loss"], abs=1e-5)
    assert second.validations[-1]["loss"] < 0.9 * second.validations[0]["loss"]


def test_preferences_are_held_against_the_adapter_and_not_the_base(
    tiny_model: Path, pairs: tuple[TrainingRow, ...], adapter: Path, tmp_path: Path
) -> None:
    done = run(tiny_model, pairs, tmp_path / "chain", DPO, start=adapter)
    alone = run(tiny_model, pairs, tmp_path / "alone", DPO)
    for trained in (done, alone):
        assert math.log(2) == pytest.approx(trained.losses[1], rel=1e-6)
        assert (trained.steps[1]["accuracy"], trained.steps[1]["margin"]) == (0.5, 0.0)
    kept, of_base = ((tmp_path / name / "reference.jsonl") for name in ("chain", "alone"))
    assert kept.read_text() != of_base.read_text(), "the adapter has other log-probabilities"
    assert list(done.losses.values())[-1] < 0.6


def test_a_chain_that_was_stopped_has_the_same_losses_value_for_value(
    tiny_model: Path, pairs: tuple[TrainingRow, ...], adapter: Path, tmp_path: Path
) -> None:
    whole = run(tiny_model, pairs, tmp_path / "whole", DPO, start=adapter)
    part = run(tiny_model, pairs, tmp_path / "parts", DPO, start=adapter, stop_after=3)
    rest = run(tiny_model, pairs, tmp_path / "parts", DPO, start=adapter)
    assert list(rest.losses)[:2] == [4, 5]
    assert whole.losses == part.losses | rest.losses


def test_plain_peft_loads_what_comes_out_on_the_base_alone(
    tiny_model: Path, pairs: tuple[TrainingRow, ...], adapter: Path, tmp_path: Path
) -> None:
    done = run(tiny_model, pairs, tmp_path / "run", DPO, start=adapter)
    save(done.model, tiny_model, tmp_path / "a")
    base = load_model(tiny_model, torch.float32)
    plain = load_adapter(base, tmp_path / "a", rounds_once=False)
    torch.testing.assert_close(
        logits(done.model, pairs[0]), logits(plain, pairs[0]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["rslora", "dora"])
def test_rank_stabilised_and_decomposed_adapters_stay_so(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path, kind: str
) -> None:
    settings = SETTINGS.model_copy(update={kind: True, "epochs": 1})
    first = run(tiny_model, rows, tmp_path / "first", settings)
    folder = tmp_path / "a"
    save(first.model, tiny_model, folder)
    shape = read_start(folder, job(tiny_model), tiny_model).shape
    assert shape is not None
    again = resolve(job(tiny_model), Dimensions(context=512, hidden=32), shape)
    assert getattr(again, kind)
    second = run(tiny_model, rows, tmp_path / "second", settings, start=folder)
    assert first.validations[-1]["loss"] == pytest.approx(second.validations[0]["loss"], abs=1e-5)


def job(base: Path, **lora: object) -> Job:
    tuning = Tuning(lora=Lora.model_validate(lora))
    data = Data(train="train.jsonl")
    return Job(name="next", model=str(base), backend="local", data=data, tuning=tuning)


def codes(folder: Path, base: Path, **lora: object) -> list[str]:
    return [finding.code for finding in read_start(folder, job(base, **lora), base).findings]


def test_rank_alpha_and_targets_are_the_adapters_own(tiny_model: Path, adapter: Path) -> None:
    shape = read_start(adapter, job(tiny_model), tiny_model).shape
    names = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert shape is not None
    assert (4, 8.0, names) == (shape.r, shape.lora_alpha, shape.target_modules)
    assert codes(adapter, tiny_model, rank=4, alpha=8, targets=names, dropout=0.1) == []


@pytest.mark.parametrize(
    "lora",
    [
        {"rank": 8},
        {"alpha": 4},
        {"targets": ["q_proj", "v_proj"]},
        {"rslora": True},
        {"dora": True},
        {"init": "gaussian"},
    ],
    ids=str,
)
def test_another_explicit_setting_is_an_error(
    tiny_model: Path, adapter: Path, lora: dict[str, object]
) -> None:
    assert codes(adapter, tiny_model, **lora) == ["start-setting"]


@pytest.mark.parametrize(
    "changes",
    [
        {"use_qalora": True},
        {"bias": "all"},
        {"layer_replication": [[0, 2]]},
        {"rank_pattern": {"(q_proj)+": 2}},
        {"peft_type": "LOHA"},
        {"target_modules": "all-linear"},
        {"r": None},
    ],
    ids=str,
)
def test_what_is_not_trained_here_is_refused(
    tiny_model: Path, adapter: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    changed = shutil.copytree(adapter, tmp_path / "a")
    given = json.loads((changed / CONFIG).read_text())
    (changed / CONFIG).write_text(json.dumps(given | changes))
    (finding,) = read_start(changed, job(tiny_model), tiny_model).findings
    assert finding.code == "start-adapter"
    assert next(iter(changes)) in finding.message


def test_a_folder_that_holds_no_adapter_is_refused(tiny_model: Path) -> None:
    (finding,) = read_start(tiny_model, job(tiny_model), tiny_model).findings
    assert finding.code == "start-files"
    assert "adapter_config.json and adapter_model.safetensors" in finding.message


def test_another_base_is_an_error_and_an_unknown_one_a_warning(
    tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    other = save_tiny_model(tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"rope_theta": 5000.0}
    (other / "config.json").write_text(json.dumps(config))
    assert codes(adapter, other) == [OTHER_BASE]
    quantized = job(tiny_model).model_copy(update={"options": {"local": {"quantization": "4bit"}}})
    (finding,) = read_start(adapter, quantized, tiny_model).findings
    assert finding.code == OTHER_BASE
    assert "trained with none" in finding.message
    foreign = shutil.copytree(adapter, tmp_path / "foreign")
    (foreign / "unitune.json").unlink()
    (finding,) = read_start(foreign, job(tiny_model), tiny_model).findings
    assert (finding.code, finding.severity) == ("start-base-unknown", "warning")


def test_tensors_of_another_shape_are_not_loaded(
    tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    model = add_adapter(load_model(tiny_model, torch.float32), SETTINGS)
    assert misfit(model, adapter) == ""
    changed = shutil.copytree(adapter, tmp_path / "a")
    tensors = load_file(changed / WEIGHTS)
    name = min(tensors)
    save_file({**tensors, name: tensors[name][:2].clone()}, changed / WEIGHTS)
    with pytest.raises(Mismatch, match=r"has shape \[2, \d+\].* \[4, \d+\]"):
        load_start(model, changed)
    (changed / WEIGHTS).write_bytes(b"no tensors")
    assert "cannot be read" in misfit(model, changed)


def test_an_adapter_that_changed_since_the_submit_is_not_gone_on_from(
    adapter: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(adapter, tmp_path / "a")
    sha256 = adapter_hash(changed)
    check_start(changed, sha256)
    (changed / CONFIG).write_text("{}")
    with pytest.raises(Mismatch, match="has changed since the run was submitted"):
        check_start(changed, sha256)
    shutil.rmtree(changed)
    with pytest.raises(Mismatch, match="no longer in"):
        check_start(changed, sha256)


def test_a_plan_forecasts_the_adapters_own_shape_and_refuses_one_that_does_not_fit(
    tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    rows = read_rows(write_rows(tmp_path / "train.jsonl", 12))
    start = Start(model=TunedModel(backend="local", name=str(adapter), base="tiny"))
    made = LocalBackend().forecast(job(tiny_model), rows, Dataset("held", ()), start)
    assert (made.settings["rank"], made.settings["alpha"]) == (4, 8.0)
    assert [finding.code for finding in made.findings] == []
    shutil.copytree(adapter, tmp_path / "a")
    config = json.loads((adapter / CONFIG).read_text()) | {"r": 16}
    (tmp_path / "a" / CONFIG).write_text(json.dumps(config))
    start = Start(model=TunedModel(backend="local", name=str(tmp_path / "a"), base="tiny"))
    made = LocalBackend().forecast(job(tiny_model), rows, Dataset("held", ()), start)
    assert [finding.code for finding in made.findings] == ["start-adapter"]
    assert "does not fit the base model" in made.findings[0].message
