"""What saves memory: values that are computed again, a base that is spread, a note why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny_model import SETTINGS, save_model, write_rows
from support.tiny_training import rows_in, run
from support.tuned_here import local_job
from torch import nn
from transformers import LlamaForCausalLM

from unitune.backends.local_capabilities import Forecast
from unitune.data.dataset import Dataset
from unitune.errors import Unsupported
from unitune.job.job import Job
from unitune_local import machine
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rows import read_rows
from unitune_local.forecasting.cost import (
    ADAM_BYTES,
    PROCESS_BYTES,
    TRAINED_BYTES,
    CostModel,
    part_cost,
)
from unitune_local.forecasting.forecast import forecast, require_memory
from unitune_local.models.size import Speed, empty_tuned_model, size_of
from unitune_local.objectives.loss import Form, choose_form, most_logits
from unitune_local.parallel.ranks import shard_findings
from unitune_local.settings import Settings
from unitune_local.training.run import trainable_model

pytestmark = pytest.mark.usefixtures("own_cache")  # nothing was calibrated before
NOTHING = Dataset("validation.jsonl", ())
WAYS = [
    {"chunked_cross_entropy": True},
    {"gradient_checkpointing": True},
    {"chunked_cross_entropy": True, "gradient_checkpointing": True},
]


@pytest.fixture(autouse=True)
def _few_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a micro-batch has several chunks."""
    monkeypatch.setattr("unitune_local.objectives.loss.LOGIT_CHUNK", 3)


@pytest.fixture
def rows(tiny_model: Path, tmp_path: Path) -> tuple[TrainingRow, ...]:
    return rows_in(write_rows(tmp_path / "train.jsonl", 24), tiny_model)


def losses_of(
    base: Path, rows: Sequence[TrainingRow], settings: Settings, folder: Path
) -> list[float]:
    done = run(base, rows[8:], rows[:8], folder, settings)
    return [data["loss"] for _, data in done.events if "loss" in data]


@pytest.mark.parametrize("way", WAYS, ids=["logits", "layers", "both"])
def test_losses_are_those_of_a_training_that_keeps_all(
    tiny_model: Path, tmp_path: Path, rows: tuple[TrainingRow, ...], way: dict[str, bool]
) -> None:
    """Dropout draws the same numbers again."""
    settings = SETTINGS.model_copy(update={"dropout": 0.1, "share_prefix": False})
    expected = losses_of(tiny_model, rows, settings, tmp_path / "kept")
    actual = losses_of(tiny_model, rows, settings.model_copy(update=way), tmp_path / "again")
    assert len(expected) > 4
    assert expected == pytest.approx(actual, rel=1e-5)
    assert expected[0] - expected[-1] > 0.1, "it learns"


def test_each_way_is_forecast_to_hold_less_and_to_compute_more(
    tiny_model: Path, rows: tuple[TrainingRow, ...]
) -> None:
    held, computed = [], []
    for way in ({}, *WAYS):
        settings = SETTINGS.model_copy(update=way)
        size = size_of(empty_tuned_model(tiny_model, settings))
        form = Form("packed", share=False, most_logits=most_logits(settings))
        cost = part_cost(size, rows, form, settings)
        held.append(cost.held)
        computed.append(cost.flops)
    plain, logits, layers, both = held
    assert both < min(logits, layers) < max(logits, layers) < plain
    assert computed == sorted(computed), "the output head, the layers, both"


def job(base: Path, **options: object) -> Job:
    return local_job(base, {"device": "cpu", **options})


def test_what_would_not_fit_is_computed_again_and_the_plan_says_why(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a byte too little each time."""
    data = read_rows(write_rows(tmp_path / "train.jsonl", 24))
    seen: list[tuple[bool, bool]] = []
    free = 2**50
    for _ in range(3):
        monkeypatch.setattr(machine, "available_bytes", lambda _, free=free: free)
        made = forecast(job(tiny_model, micro_batch_tokens=256), tiny_model, data, NOTHING).summary
        chosen = made.settings
        seen.append((chosen["chunked_cross_entropy"], chosen["gradient_checkpointing"]))
        texts = [finding.message for finding in made.findings]
        assert bool(texts) == (free != 2**50)
        assert all("would take about" in text for text in texts)
        free = made.memory_bytes - 1
    assert seen == [(False, False), (True, False), (True, True)]

    strict = job(
        tiny_model,
        chunked_cross_entropy=False,
        gradient_checkpointing=False,
        micro_batch_tokens=256,
    )
    kept = forecast(strict, tiny_model, data, NOTHING).summary
    assert not kept.findings
    assert kept.memory_bytes > free


def test_layers_are_not_computed_again_where_the_architecture_cannot(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_rows(write_rows(tmp_path / "train.jsonl", 24))
    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    monkeypatch.setattr(machine, "available_bytes", lambda _: 1)
    made = forecast(job(tiny_model), tiny_model, data, NOTHING).summary.settings
    assert (made["chunked_cross_entropy"], made["gradient_checkpointing"]) == (True, False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_mapped_file_is_the_weights_and_one_of_another_dtype_is_read_before_the_steps(
    tiny_model: Path, dtype: str
) -> None:
    settings = SETTINGS.model_copy(update={"dtype": dtype})
    size = size_of(empty_tuned_model(tiny_model, settings))
    cost = CostModel(size, Speed(flop_seconds=1), is_plain=True, file_bytes=4 * size.parameters)
    adapter = (TRAINED_BYTES + ADAM_BYTES) * size.trained
    weights = {"float32": 4, "bfloat16": 2}[dtype] * size.parameters
    read = 0 if dtype == "float32" else cost.file_bytes
    assert cost.peak_bytes(settings, []) == PROCESS_BYTES + weights + max(adapter, read)


def test_a_training_of_all_weights_holds_no_frozen_ones(tiny_model: Path) -> None:
    """Each weight has its gradient and the state of the optimiser, which is a parameter."""
    size = size_of(empty_tuned_model(tiny_model, SETTINGS))
    full = replace(size, trained=size.parameters)
    file = 4 * size.parameters
    cost = CostModel(full, Speed(flop_seconds=1), True, file, optimizer_bytes=2)
    assert cost.peak_bytes(SETTINGS, []) == PROCESS_BYTES + (TRAINED_BYTES + 2) * size.parameters


@pytest.mark.heavy
def test_a_base_that_does_not_fit_is_spread_over_processes_and_the_plan_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each of 12 layers every process has a half, and three are whole at once."""
    large = save_model(tmp_path / "large", num_hidden_layers=12)
    data = read_rows(write_rows(tmp_path / "train.jsonl", 24))
    wanted = {"processes": 2, "micro_batch_tokens": 256, "chunked_cross_entropy": True}
    wanted["gradient_checkpointing"] = True

    def planned(free: int, **options: object) -> Forecast:
        monkeypatch.setattr(machine, "available_bytes", lambda _: free)
        return forecast(job(large, **wanted, **options), large, data, NOTHING).summary

    whole = planned(2**50)
    assert whole.settings["shard"] is False
    spread = planned(whole.memory_bytes - 1)
    assert spread.settings["shard"] is True
    layers = 4 * 12 * (32 * (32 + 16 + 16 + 32) + 3 * 32 * 64)
    assert pytest.approx(2 * layers * (1 / 2 - 3 / 12)) == whole.memory_bytes - spread.memory_bytes
    (finding,) = (each for each in spread.findings if each.severity == "note")
    assert finding.code == "sharded"
    assert "spread over 2 processes (shard)" in finding.message
    assert planned(whole.memory_bytes - 1, shard=False).settings["shard"] is False
    with pytest.raises(Unsupported, match="already spread over the 2 processes"):
        require_memory(planned(2**20))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"processes": 1}, "a single process"),
        ({"processes": 2, "quantization": "4bit"}, "4bit weights"),
    ],
)
def test_a_base_that_cannot_be_spread_is_a_finding(changes: dict[str, object], words: str) -> None:
    (finding,) = shard_findings(SETTINGS.model_copy(update={"shard": True, **changes}))
    assert words in finding.message
    assert not [*shard_findings(SETTINGS.model_copy(update={**changes, "shard": False}))]


def test_logits_that_are_changed_after_the_head_are_not_computed_in_chunks(
    tiny_model: Path, rows: tuple[TrainingRow, ...]
) -> None:
    """As Gemma 2's, which are capped."""
    model = trainable_model(tiny_model, SETTINGS)
    base = model.get_base_model()
    plain = base.forward

    def capped(*given: object, **named: object) -> object:
        made = plain(*given, **named)
        made.logits = torch.tanh(made.logits) * 0.1
        return made

    base.forward = capped
    assert isinstance(base.get_output_embeddings(), nn.Linear)
    with pytest.raises(Unsupported, match="chunked_cross_entropy to false"):
        choose_form(model, rows, SETTINGS.model_copy(update={"chunked_cross_entropy": True}))
