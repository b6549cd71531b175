from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_model import write_rows
from support.tuned_here import local_job

from unitune.backends.protocol import Launch
from unitune.data.dataset import Dataset
from unitune.errors import DataError, Unsupported
from unitune.job.job import Job, Tuning
from unitune_local import machine
from unitune_local.backend import LocalBackend
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rows import read_rows
from unitune_local.forecasting import cost
from unitune_local.forecasting.cost import (
    LAYER_FLOPS,
    CostModel,
    StepClock,
    part_cost,
    training_conditions,
)
from unitune_local.job_folder import EventLog, JobFolder, drop_note
from unitune_local.models.size import Conditions, ModelSize, Speed, keep_speed, speed_file, speed_of
from unitune_local.objectives.loss import Form
from unitune_local.settings import Dimensions, resolve
from unitune_local.spec import SpeedBasis
from unitune_local.training import profile_run
from unitune_local.training.run import prepare, run_training

pytestmark = pytest.mark.usefixtures("own_cache")
PACKED, PADDED = Form("packed", share=True), Form("padded", share=False)
NOTHING = Dataset("validation.jsonl", ())
SIZE = ModelSize(
    parameters=10_000,
    matrices=8_000,
    linear=8_000,
    head=258 * 32,
    features=800,
    layers=2,
    hidden=32,
    heads=4,
    trained=500,
    stores_scores=False,
    packs=True,
)
EMBEDDED = ModelSize(
    parameters=134_515_008,
    matrices=106_168_320,
    linear=106_168_320,
    head=49_152 * 576,
    features=305_280,
    layers=30,
    hidden=576,
    heads=9,
    trained=4_884_480,
    stores_scores=False,
    packs=True,
)
MEASURED_SPEED = Speed(flop_seconds=1e-9, measured_on=date(2026, 11, 30))
COST = CostModel(SIZE, MEASURED_SPEED, is_plain=True, file_bytes=40_000)


def job(model: Path | str = "tiny", tuning: Tuning | None = None, **options: object) -> Job:
    return local_job(model, options, tuning=tuning or Tuning())


SETTINGS = resolve(job(), Dimensions(context=512, hidden=32))


def row(length: int, trained: int = 1, first: int = 0) -> TrainingRow:
    ids = (first, *range(1, length))
    return TrainingRow(ids, (False,) * (length - trained) + (True,) * trained, 1.0, 1)


# Four rows of a classification, and a long chat: the micro-batch that held most.
MEASURED = [
    (2430, "float32", [row(221, 9, first=at) for at in range(4)]),
    (4776, "float32", [row(1617, 1102)]),
    (4339, "bfloat16", [row(1284, 913)]),
]


# --- the formula


def seconds(rows: Sequence[TrainingRow]) -> float:
    """Each row is a micro-batch of its own."""
    return COST.seconds([part_cost(SIZE, [one], PACKED, SETTINGS) for one in rows])


@given(st.lists(st.integers(2, 300), min_size=1, max_size=40))
def test_more_and_longer_rows_never_take_less(lengths: list[int]) -> None:
    rows, longer = [row(length) for length in lengths], [row(length + 9) for length in lengths]
    assert seconds(rows) < seconds(longer)
    assert seconds(rows) < seconds([*rows, rows[0]])
    held = [part_cost(SIZE, each, PACKED, SETTINGS).held for each in (rows, longer)]
    assert held[0] < held[1]


def test_what_rows_compute_is_counted_with_their_prefix_once() -> None:
    """By hand: 8 shared tokens and 2 of each of 3 rows; 4 operations a frozen weight and token."""
    rows = [TrainingRow((*range(8), at, 9), (False,) * 9 + (True,), 1.0, at) for at in (20, 21, 22)]
    tokens, pairs = 8 + 3 * 2, 8**2 + 3 * 2 * (8 + 2)
    fixed = 2 * LAYER_FLOPS["cpu"]
    flops = (4 * 8_000 + 6 * 500) * tokens + 4 * 258 * 32 * 3 + 12 * 32 * 2 * pairs + fixed
    assert part_cost(SIZE, rows, PACKED, SETTINGS)[:2] == (tokens, flops)
    flops = (4 * 8_000 + 6 * 500) * 30 + 4 * 258 * 32 * 3 + 12 * 32 * 2 * 300 + fixed
    assert part_cost(SIZE, rows, PADDED, SETTINGS)[:2] == (30, flops)


@given(
    st.lists(st.integers(2, 90), min_size=1, max_size=6),
    st.integers(1, 40),
    st.sampled_from([("packed", True), ("packed", False), ("padded", False)]),
)
def test_a_batch_computes_what_its_load_says(
    lengths: list[int], multiple: int, kind: tuple[Literal["packed", "padded"], bool]
) -> None:
    rows = [row(length) for length in lengths]
    form = Form(kind[0], share=kind[1], multiple=multiple)
    batch = form.batch(rows, torch.device("cpu"))
    assert part_cost(SIZE, rows, form, SETTINGS).tokens == batch.computed_tokens
    assert batch.computed_tokens % multiple == 0


@pytest.mark.parametrize(("measured", "dtype", "rows"), MEASURED)
def test_peaks_are_within_a_quarter_of_what_the_embedded_model_took(
    measured: int, dtype: str, rows: list[TrainingRow]
) -> None:
    """Peaks of trainings of the embedded model in MiB, without shared prefixes."""
    settings = SETTINGS.model_copy(update={"dtype": dtype})
    model = CostModel(EMBEDDED, COST.speed, is_plain=True, file_bytes=4 * EMBEDDED.parameters)
    part = part_cost(EMBEDDED, rows, model.form(settings), settings)
    assert model.peak_bytes(settings, [part]) / 2**20 == pytest.approx(measured, rel=0.25)


# --- what is kept


def conditions(**changes: object) -> Conditions:
    return training_conditions(SIZE, SETTINGS.model_copy(update=changes))


def test_a_kept_speed_is_not_for_another_size_dtype_or_number_of_threads() -> None:
    """The formula accounts for adapters and batches."""
    keep_speed(MEASURED_SPEED, conditions().key)
    for change in ({"epochs": 9}, {"micro_batch_tokens": 99}, {"rank": 3}):
        assert speed_of(conditions(**change)) == MEASURED_SPEED
    assert speed_of(conditions()._replace(size=replace(SIZE, trained=9))) == MEASURED_SPEED
    assert speed_of(conditions()._replace(size=replace(SIZE, linear=1))).measured_on is None
    for change in ({"dtype": "bfloat16"}, {"threads": 2}, {"quantization": "4bit"}):
        assert speed_of(conditions(**change)).measured_on is None


def test_a_speed_of_another_version_is_measured_again() -> None:
    keep_speed(MEASURED_SPEED, conditions().key)
    speed_file(conditions().key).write_text('{"packed": true}', encoding="utf-8")
    assert speed_of(conditions()).measured_on is None


def test_the_later_half_of_the_steps_is_timed_without_what_lies_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A validation, which ends with an event, is no part of the step after it."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(machine, "peak_of_process", lambda _: 1_500)
    clock = StepClock(drop_note)
    for kind, seconds in (("step", 9.0), ("step", 2.0), ("validation", 50.0), ("step", 4.0)):
        now[0] += seconds
        clock.note(kind, {"tokens": 100})
    key = conditions().key
    clock.keep(SpeedBasis(key=key, flops_per_token=3.0, peak_bytes=1_000), "cpu")
    speed = speed_of(conditions())
    assert (speed.flop_seconds, speed.memory_share) == (6.0 / (200 * 3.0), 1.5)


def test_a_run_narrows_the_next_forecast(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(machine, "overloaded", lambda: False)
    file = write_rows(tmp_path / "train.jsonl", 16)
    backend, wanted = LocalBackend(), job(tiny_model, Tuning(epochs=1))
    upload = backend.upload(file, hashlib.sha256(file.read_bytes()).hexdigest())
    folder = JobFolder(tmp_path / "job")
    folder.path.mkdir()
    spec = prepare(Launch("run-1", wanted, upload, None, tmp_path))
    folder.spec.write_text(spec.model_dump_json(), encoding="utf-8")
    assert backend.forecast(wanted, read_rows(file), NOTHING).measured_on is None
    assert run_training(folder, EventLog(folder.events)) is not None
    assert backend.forecast(wanted, read_rows(file), NOTHING).measured_on is not None


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
    assert {one.name for one in tmp_path.iterdir()} == {"cache", "train.jsonl", "validation.jsonl"}
    other = job(tiny_model, dtype="bfloat16")
    assert backend.forecast(other, train, validation).measured_on is None


def test_rows_without_anything_to_learn_are_not_calibrated(tiny_model: Path) -> None:
    with pytest.raises(DataError, match="no row can be trained on"):
        profile_run.calibrate(job(tiny_model), tiny_model, NOTHING, NOTHING)


def test_only_a_backend_that_trains_here_calibrates() -> None:
    from unitune.planning.forecasts import calibrate  # noqa: PLC0415 - beside the test of it

    hosted = job().model_copy(update={"backend": "fake"})
    with pytest.raises(Unsupported, match="'fake' does not train on this machine"):
        calibrate(hosted)
