from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_tokenizer, write_rows
from torch import Tensor

from unitune.data.dataset import Dataset
from unitune.errors import DataError, Unsupported
from unitune.job.job import Data, Job, Lora, Tuning
from unitune_local.backend import LocalBackend
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rows import read_rows, render_rows
from unitune_local.forecasting import memory
from unitune_local.forecasting.cost_model import (
    CostModel,
    PartWork,
    calibration,
    fit,
    part_work,
)
from unitune_local.forecasting.memory import Shape
from unitune_local.inference import answer_cost
from unitune_local.models.model import add_adapter, load_model, use_attention
from unitune_local.objectives.loss import Form, loss_sum
from unitune_local.settings import Dimensions, Settings, resolve
from unitune_local.training import profile_run

PACKED = Form("packed", share=True)
NOTHING = Dataset("validation.jsonl", ())
SHAPE = Shape(
    parameters=10_000,
    linear=8_000,
    adapter=500,
    layers=2,
    hidden=32,
    mlp=64,
    vocabulary=258,
    context=512,
)
COSTS = CostModel(
    packed=True,
    start_seconds=5.0,
    part_seconds=0.01,
    flop_seconds=1e-9,
    end_seconds=1.0,
    held_bytes=1000,
)


def job(model: Path | str = "tiny", tuning: Tuning | None = None, **options: object) -> Job:
    return Job.model_validate(
        {
            "name": "x",
            "model": str(model),
            "backend": "local",
            "data": Data(train="train.jsonl"),
            "tuning": tuning or Tuning(),
            "options": {"local": {"dtype": "float32", "threads": 1, **options}},
        }
    )


SETTINGS = resolve(job(), Dimensions(context=512, hidden=32))


def row(length: int, trained: int = 1, first: int = 0) -> TrainingRow:
    ids = (first, *range(1, length))
    return TrainingRow(ids, (False,) * (length - trained) + (True,) * trained, 1.0, 1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))


# --- the dry run


@pytest.mark.parametrize("form", [PACKED, Form("padded", share=False)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dry_run_holds_what_a_real_run_saves_and_little_more(
    tiny_model: Path, tmp_path: Path, dtype: str, form: Form
) -> None:
    """Little more: without numbers, attention is computed by the kernel that keeps its scores."""
    settings = SETTINGS.model_copy(update={"dtype": dtype})
    made = render_rows(
        tiny_tokenizer(), read_rows(write_rows(tmp_path / "train.jsonl", 8)), 512
    ).rows
    model = add_adapter(load_model(tiny_model, settings.torch_dtype), settings).train()
    use_attention(model, "unitune_packed" if form.kind == "packed" else "sdpa")
    weights = {one.untyped_storage().data_ptr() for one in [*model.parameters(), *model.buffers()]}
    saved: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    batch = form.batch(made, torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss_sum(model, batch)
    really = sum(
        one.untyped_storage().nbytes() for place, one in saved.items() if place not in weights
    )
    meta = memory.meta_model(tiny_model, settings)
    shape = memory.shape_of(meta)
    logits = batch.ids.shape[0] * batch.keep.numel() * shape.vocabulary
    gradients = 4 * shape.adapter + 8 * logits
    assert really <= memory.held_bytes(meta, form, made) - gradients < 2 * really


def test_a_model_that_cannot_run_without_numbers_is_estimated_by_its_shape(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("data-dependent")

    meta = memory.meta_model(tiny_model, SETTINGS)
    part = [row(40, 8), row(50, 8, first=9)]
    expected = memory.held_bytes(meta, PACKED, part)
    monkeypatch.setattr(memory, "loss_sum", refuse)
    assert expected / 2 < memory.held_bytes(meta, PACKED, part) < 2 * expected


# --- the arithmetic of costs


def seconds(rows: Sequence[TrainingRow], epochs: int = 1) -> float:
    """Each row is a micro-batch of its own."""
    work = [part_work(SHAPE, [one], PACKED) for one in rows]
    return COSTS.seconds(epochs, work, work[:2], epochs + 1)


def test_a_training_takes_the_sum_of_its_parts() -> None:
    """By hand: two epochs of two steps, three validations of half the cost of a step."""
    work = [PartWork(tokens=10, flops=1e9), PartWork(tokens=20, flops=3e9)]
    expected = 5 + 2 * (0.02 + 4) + 3 * (0.01 + 1) / 2 + 1
    assert expected == pytest.approx(COSTS.seconds(2, work, work[:1], 3))


@given(st.lists(st.integers(2, 300), min_size=1, max_size=40), st.integers(1, 9))
def test_more_epochs_and_longer_rows_never_take_less_time(lengths: list[int], epochs: int) -> None:
    rows, longer = [row(length) for length in lengths], [row(length + 9) for length in lengths]
    assert seconds(rows, epochs) < seconds(rows, epochs + 1)
    assert seconds(rows, epochs) < seconds(longer, epochs)


def test_what_rows_compute_is_counted_with_their_prefix_once() -> None:
    """By hand: 8 shared tokens and 2 of each of 3 rows; 4 operations a frozen weight and token."""
    rows = [TrainingRow((*range(8), at, 9), (False,) * 9 + (True,), 1.0, at) for at in (20, 21, 22)]
    tokens, pairs = 8 + 3 * 2, 8**2 + 3 * 2 * (8 + 2)
    flops = (4 * 8_000 + 6 * 500) * tokens + 4 * 258 * 32 * 3 + 12 * 32 * 2 * pairs
    assert PartWork(tokens, flops) == part_work(SHAPE, rows, PACKED)
    padded = part_work(SHAPE, rows, Form("padded", share=False))
    flops = (4 * 8_000 + 6 * 500) * 30 + 4 * 258 * 32 * 3 + 12 * 32 * 2 * 300
    assert PartWork(30, flops) == padded


@given(
    st.floats(0, 1),
    st.floats(1e-12, 1e-9),
    st.lists(st.integers(10, 2000), min_size=2, max_size=8, unique=True),
)
def test_costs_that_micro_batches_follow_are_found(
    part: float, flop: float, tokens: list[int]
) -> None:
    works = [PartWork(count, 1e9 * count) for count in tokens]
    timed = [(work, part + flop * work.flops) for work in works]
    part_seconds, flop_seconds = fit(timed)
    for work, seconds in timed:
        assert part_seconds + flop_seconds * work.flops == pytest.approx(seconds, rel=1e-3)


# --- what is kept


def keep(costs: CostModel, shape: Shape, settings: Settings) -> None:
    answer_cost.keep(costs, calibration(shape, settings))


def recall(shape: Shape, settings: Settings) -> CostModel | None:
    return answer_cost.recall(CostModel, calibration(shape, settings))


def test_kept_costs_come_back_and_not_for_another_shape_dtype_or_number_of_threads() -> None:
    keep(COSTS, SHAPE, SETTINGS)
    other = {"epochs": 9, "batch_size": 1, "micro_batch_tokens": 99, "sequence_length": 7}
    assert COSTS == recall(SHAPE, SETTINGS.model_copy(update=other))
    assert recall(replace(SHAPE, linear=1), SETTINGS) is None
    for change in ({"dtype": "bfloat16"}, {"threads": 2}, {"rank": 3}, {"share_prefix": False}):
        assert recall(SHAPE, SETTINGS.model_copy(update=change)) is None


def test_costs_of_another_version_are_measured_again(tmp_path: Path) -> None:
    keep(COSTS, SHAPE, SETTINGS)
    (file,) = (tmp_path / "cache" / "calibrations").iterdir()
    file.write_text('{"packed": true}', encoding="utf-8")
    assert recall(SHAPE, SETTINGS) is None


# --- all of it, in a process of its own


def test_a_calibration_narrows_the_next_forecast_and_leaves_nothing_else(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_run, "busy_share", lambda: 0.8)
    backend = LocalBackend()
    train = read_rows(write_rows(tmp_path / "train.jsonl", 60))
    validation = read_rows(write_rows(tmp_path / "validation.jsonl", 5))
    wanted = job(tiny_model)
    before = backend.forecast(wanted, train, validation)
    backend.calibrate(wanted, train, validation)
    after = backend.forecast(wanted, train, validation)
    assert after.measured_on is not None
    (busy,) = after.findings
    assert "used 80% of the processor" in busy.message
    for one in (before, after):
        assert one.seconds_low <= one.seconds_expected <= one.seconds_high
        assert one.memory_low_bytes <= one.memory_bytes <= one.memory_high_bytes
    assert after.seconds_high / after.seconds_expected < (
        before.seconds_high / before.seconds_expected
    )
    assert after.memory_high_bytes / after.memory_low_bytes < (
        before.memory_high_bytes / before.memory_low_bytes
    )
    assert {"cache", "train.jsonl", "validation.jsonl"} == {one.name for one in tmp_path.iterdir()}
    other = job(tiny_model, Tuning(lora=Lora(rank=3)))
    assert backend.forecast(other, train, validation).measured_on is None


def test_rows_without_anything_to_learn_are_not_calibrated(tiny_model: Path) -> None:
    with pytest.raises(DataError, match="no row has anything to train on"):
        profile_run.calibrate(job(tiny_model), tiny_model, NOTHING, NOTHING)


def test_only_a_backend_that_trains_here_calibrates() -> None:
    from unitune.planning.backend_calls import calibrate  # noqa: PLC0415 - beside the test of it

    hosted = job().model_copy(update={"backend": "fake"})
    with pytest.raises(Unsupported, match="'fake' does not train on this machine"):
        calibrate(hosted)
