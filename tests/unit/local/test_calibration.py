from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls
from tiny_model import tiny_tokenizer, write_rows
from torch import Tensor

from unitune.data.dataset import Dataset
from unitune.errors import DataError, Unsupported
from unitune.job.job import Data, Job, Lora, Tuning
from unitune_local import calibrating, dry_run, memory
from unitune_local.backend import LocalBackend
from unitune_local.batches import TrainingRow
from unitune_local.cost_model import Figures, Work, keep, peak_bytes, recall, seconds, sizes_made
from unitune_local.loading import load_model
from unitune_local.loads import (
    Load,
    epoch_parts,
    new_sizes,
    part_load,
    total,
    validation_load,
)
from unitune_local.lora import add_adapter
from unitune_local.loss import Form, loss_sum, use_attention
from unitune_local.memory import Shape, step_flops
from unitune_local.profile_run import affordable, every, spread
from unitune_local.rows import read_rows, render_rows
from unitune_local.settings import Dimensions, Settings, resolve
from unitune_local.step_time import fit_pace, least_squares

PACKED = Form("packed", share=True)
NOTHING = Dataset("validation.jsonl", ())
SHAPE = Shape(
    parameters=10_000,
    linear=8_000,
    adapter=500,
    layers=2,
    hidden=32,
    key_value=16,
    heads=4,
    mlp=64,
    vocabulary=258,
    context=512,
)
FIGURES = Figures(
    packed=True,
    start_seconds=5.0,
    start_cpu_seconds=4.0,
    busy_cores=1.0,
    others_share=0.0,
    part_seconds=0.01,
    flop_seconds=1e-9,
    size_seconds=0.0,
    first_step_seconds=0.5,
    forward_flop_seconds=1e-9,
    answer_flop_seconds=2e-9,
    checkpoint_seconds=0.1,
    save_seconds=1.0,
    held_bytes=1000,
    check_bytes=10,
    time_band=(0.9, 1.2),
    memory_band=(0.9, 1.15),
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dry_run_holds_what_a_real_run_saves_and_more(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    """torch.autograd.graph.saved_tensors_hooks sees what is saved; backward's own is passing."""
    settings = SETTINGS.model_copy(update={"dtype": dtype})
    made = render_rows(
        tiny_tokenizer(), read_rows(write_rows(tmp_path / "train.jsonl", 8)), 512
    ).rows
    shape = memory.shape_of(tiny_model, settings)
    model = add_adapter(load_model(tiny_model, settings.torch_dtype), settings).train()
    use_attention(model, "unitune_packed")
    weights = {one.untyped_storage().data_ptr() for one in [*model.parameters(), *model.buffers()]}
    saved: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss_sum(model, PACKED.batch(made, torch.device("cpu")))
    really = sum(
        one.untyped_storage().nbytes() for place, one in saved.items() if place not in weights
    )
    held = dry_run.held_bytes(tiny_model, shape, settings, PACKED, made)
    assert really < held < 2 * really


def test_few_layers_stand_for_all_that_are_alike(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model has two layers: run whole, and as one and the one that it differs by."""
    shape = memory.shape_of(tiny_model, SETTINGS)
    part = [row(40, 8), row(50, 8, first=9)]
    whole = dry_run.held_bytes(tiny_model, shape, SETTINGS, PACKED, part)
    monkeypatch.setattr(dry_run, "FEW_LAYERS", 1)
    fewer = dry_run.held_bytes(tiny_model, shape, SETTINGS, PACKED, part)
    assert fewer == pytest.approx(whole, rel=0.25)


def test_held_memory_is_linear_in_tokens_where_rows_do_not_share(tiny_model: Path) -> None:
    shape = memory.shape_of(tiny_model, SETTINGS)
    one, two, three = (
        dry_run.held_bytes(
            tiny_model, shape, SETTINGS, PACKED, [row(60, 10, first=at) for at in range(count)]
        )
        for count in (1, 2, 3)
    )
    assert three - two == pytest.approx(two - one, rel=0.02)


def test_a_model_that_cannot_run_without_numbers_is_reckoned_by_its_shape(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("data-dependent")

    monkeypatch.setattr(dry_run, "loss_sum", refuse)
    part = [row(40, 8)]
    expected = memory.live_bytes(SHAPE, SETTINGS, part_load(part, PACKED))
    assert expected == dry_run.held_bytes(tiny_model, SHAPE, SETTINGS, PACKED, part)


# --- the arithmetic of figures


LENGTHS = st.lists(st.integers(2, 300), min_size=1, max_size=40)


def work_of(rows: list[TrainingRow], settings: Settings) -> Work:
    steps = epoch_parts(rows, settings, PACKED)
    return Work(
        epoch=total(part for parts in steps for part in parts),
        steps=len(steps),
        sizes=sizes_made(steps, settings.epochs),
        validation=validation_load(rows, settings, PACKED),
        answers=Load(),
        render_seconds=0.0,
    )


@given(LENGTHS, st.integers(1, 9), st.integers(1, 9))
def test_more_epochs_never_take_less_time(lengths: list[int], some: int, more: int) -> None:
    work = work_of([row(length) for length in lengths], SETTINGS)
    first, second = (
        seconds(FIGURES, SHAPE, SETTINGS.model_copy(update={"epochs": epochs}), work)
        for epochs in (some, some + more)
    )
    assert first < second


@given(st.integers(2, 200), st.integers(1, 60), st.integers(1, 60), st.integers(1, 100))
def test_more_rows_and_longer_rows_never_take_less_time_or_memory(
    length: int, count: int, more: int, longer: int
) -> None:
    """Of rows that share nothing, uncut: what cutting a step saves in memory is no rule's fault."""
    settings = SETTINGS.model_copy(update={"micro_batch_tokens": 10**6})

    def taken(length: int, count: int) -> tuple[float, int]:
        rows = [row(length, first=at) for at in range(count)]
        step = rows[: settings.batch_size]
        held = memory.live_bytes(SHAPE, settings, part_load(step, PACKED))
        time = seconds(FIGURES, SHAPE, settings, work_of(rows, settings))
        return time, peak_bytes(FIGURES, settings, held, sizes=1)

    base, wider, longest = (
        taken(length, count),
        taken(length, count + more),
        taken(length + longer, count),
    )
    assert base[0] < wider[0]
    assert base[1] <= wider[1]
    assert base[0] < longest[0]
    assert base[1] < longest[1]


def test_kernels_are_made_for_numbers_of_tokens_that_were_not_computed_lately() -> None:
    steps = [[Load(tokens) for tokens in step] for step in ([1, 2], [2, 1], [3], [1], [2])]
    assert [2, 0, 1, 0, 0] == new_sizes(steps, kept=3)
    assert [2, 0, 1, 0, 1] == new_sizes(steps, kept=2)


def test_more_sizes_than_are_kept_are_made_in_every_epoch() -> None:
    few, many = ([[Load(tokens)] for tokens in range(count)] for count in (45, 46))
    assert (45, 3 * 46) == (sizes_made(few, epochs=3), sizes_made(many, epochs=3))


@given(
    st.floats(0, 1),
    st.floats(1e-9, 1e-6),
    st.floats(0, 1),
    st.lists(st.integers(10, 2000), min_size=2, max_size=8, unique=True),
)
def test_a_pace_that_steps_follow_is_found(
    part: float, flop: float, size: float, tokens: list[int]
) -> None:
    """Every number of tokens comes twice, and kernels are made for it once."""
    loads = [Load(computed=one, parts=1) for one in (100, *tokens, *tokens)]
    new = [1] * (1 + len(tokens)) + [0] * len(tokens)
    taken = [
        part + flop * step_flops(SHAPE, load) + size * made
        for load, made in zip(loads, new, strict=True)
    ]
    pace = fit_pace(loads, new, [taken[0] + 9.0, *taken[1:]], SHAPE)  # memory grows in the first
    assert pace.first_step_seconds == pytest.approx(9.0, rel=1e-2)
    found = [
        pace.part_seconds + pace.flop_seconds * step_flops(SHAPE, load) + pace.size_seconds * made
        for load, made in zip(loads, new, strict=True)
    ]
    assert found[1:] == pytest.approx(taken[1:], rel=1e-3)


STEPS = st.lists(
    st.tuples(st.integers(1, 2000), st.integers(0, 1), st.floats(0.01, 100)),
    min_size=2,
    max_size=8,
)


@given(STEPS)
def test_a_pace_has_the_right_total_and_is_never_below_zero(
    steps: list[tuple[int, int, float]],
) -> None:
    loads = [Load(computed=tokens, parts=1) for tokens, _, _ in steps]
    new, taken = [made for _, made, _ in steps], [took for *_, took in steps]
    pace = fit_pace(loads, new, taken, SHAPE)
    expected = sum(
        pace.part_seconds + pace.flop_seconds * step_flops(SHAPE, load) + pace.size_seconds * made
        for load, made in list(zip(loads, new, strict=True))[1:]
    )
    assert min(pace.part_seconds, pace.flop_seconds, pace.size_seconds) >= 0
    assert sum(taken[1:]) == pytest.approx(expected, rel=1e-6)


COSTS = st.just(0.0) | st.floats(0.01, 10)


@given(st.lists(st.tuples(COSTS, COSTS, COSTS), min_size=3, max_size=9))
def test_costs_are_those_of_scipy(causes: list[tuple[float, float, float]]) -> None:
    """Lawson & Hanson 1974, as scipy.optimize.nnls has it."""
    table = np.array(causes)
    _, apart = nnls(table, np.ones(len(table)))
    found = least_squares(table)
    assert np.linalg.norm(table @ found - 1) == pytest.approx(apart, abs=1e-6)
    assert found.min() >= 0


# --- what is rehearsed


@given(LENGTHS, st.integers(2, 8))
def test_spread_batches_have_the_longest_rows(lengths: list[int], steps: int) -> None:
    rows = [row(length) for length in sorted(lengths)]
    chosen = spread(rows, 4, steps)
    assert len(chosen) <= max(4 * steps, 3)
    assert rows[-1] is chosen[-1]
    assert [len(one.ids) for one in chosen] == sorted(len(one.ids) for one in chosen)


def test_items_are_taken_evenly_from_the_first_to_the_last() -> None:
    assert [0, 3, 6, 9] == every(range(10), 4)
    assert [0, 1] == every(range(2), 4)


def test_a_rehearsal_stays_within_what_it_may_spend() -> None:
    rows = [row(length, first=length) for length in range(20, 120)]
    form = Form("packed", share=False)
    one = step_flops(SHAPE, part_load([rows[-1]], form))
    settings, chosen = affordable(rows, SETTINGS, form, SHAPE, 10 * one)
    spent = total(part for parts in epoch_parts(chosen, settings, form) for part in parts)
    assert settings.batch_size < SETTINGS.batch_size
    assert rows[-1] is chosen[-1]
    assert step_flops(SHAPE, spent) <= 10 * one


def test_a_model_too_large_for_any_row_is_rehearsed_on_the_shortest() -> None:
    rows = [row(length) for length in (10, 400, 500)]
    _, chosen = affordable(rows, SETTINGS, PACKED, SHAPE, flops=1.0)
    assert chosen == rows[:1]


# --- what is kept


def test_kept_figures_come_back_and_not_for_another_shape_dtype_or_number_of_threads() -> None:
    keep(FIGURES, SHAPE, SETTINGS)
    other = {"epochs": 9, "batch_size": 1, "micro_batch_tokens": 99, "sequence_length": 7}
    assert FIGURES == recall(SHAPE, SETTINGS.model_copy(update=other))
    assert recall(replace(SHAPE, linear=1), SETTINGS) is None
    for change in ({"dtype": "bfloat16"}, {"threads": 2}, {"rank": 3}, {"share_prefix": False}):
        assert recall(SHAPE, SETTINGS.model_copy(update=change)) is None


def test_figures_of_another_version_are_measured_again(tmp_path: Path) -> None:
    keep(FIGURES, SHAPE, SETTINGS)
    (file,) = (tmp_path / "cache" / "calibrations").iterdir()
    file.write_text('{"packed": true}', encoding="utf-8")
    assert recall(SHAPE, SETTINGS) is None


# --- all of it, in a process of its own


def test_a_calibration_narrows_the_next_forecast_and_leaves_nothing_else(
    tiny_model: Path, tmp_path: Path
) -> None:
    backend = LocalBackend()
    train = read_rows(write_rows(tmp_path / "train.jsonl", 60))
    validation = read_rows(write_rows(tmp_path / "validation.jsonl", 5))
    asked = job(tiny_model)
    before = backend.forecast(asked, train, validation)
    backend.calibrate(asked, train, validation)
    after = backend.forecast(asked, train, validation)
    assert after.measured_on is not None
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


def test_a_calibration_on_a_busy_machine_is_told_in_every_later_forecast(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows, wanted = read_rows(write_rows(tmp_path / "train.jsonl", 60)), job(tiny_model)
    burn = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(burn) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        LocalBackend().calibrate(wanted, rows, NOTHING)
    finally:
        for other in others:
            other.kill()
            other.wait()
    (found,) = (
        finding
        for finding in LocalBackend().forecast(wanted, rows, NOTHING).findings
        if finding.code == "busy-calibration"
    )
    assert "other programs had" in found.message


def test_rows_without_anything_to_learn_are_not_calibrated(tiny_model: Path) -> None:
    with pytest.raises(DataError, match="no row can be learnt from"):
        calibrating.calibrate(job(tiny_model), tiny_model, NOTHING, NOTHING)


def test_only_a_backend_that_trains_here_calibrates() -> None:
    from unitune.planning.calibration import calibrate  # noqa: PLC0415 - beside the test of it

    hosted = job().model_copy(update={"backend": "fake"})
    with pytest.raises(Unsupported, match="'fake' does not train on this machine"):
        calibrate(hosted)
