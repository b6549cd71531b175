"""What a training takes on one machine, in figures: seconds and bytes, from what it computes.

A training is a start, steps, validations, checkpoints and a check of what was saved. Each step
costs a fixed time a micro-batch, a time an operation, and a time for each number of tokens that is
new; memory is what is always held and a factor on what a micro-batch holds. The figures are
measured (`unitune_local.profile_run`) or, before that, guessed from a short measurement of matrix
products (`guess`); the arithmetic is the same.

Figures that were measured are kept in the cache, under all that they depend on: `keep`, `recall`.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from unitune.data.example import digest
from unitune.workspace.filesystem import replacing
from unitune_local import machine
from unitune_local.loads import Load, new_sizes
from unitune_local.loss import Form
from unitune_local.memory import ADAPTER_BYTES, Shape, step_flops
from unitune_local.model_folder import cache_folder
from unitune_local.settings import Settings

PROCESS_BYTES = 440 * 2**20
"""Python with torch, transformers and peft, before a model is loaded: 415 to 430 MiB were
measured."""
WORKSPACE = 1.6
"""Of what a micro-batch holds: workspace of the kernels, and holes in the heap, which are never
given back. 1.4 to 1.8 were measured with models of 75 to 300 million weights, up to 2.3 with
smaller ones, which need little."""
SIZE_BYTES, MOST_SIZES = 14 * 2**20, 45
"""A CPU's kernels in bfloat16 are made for each number of tokens anew, and kept: 13 MiB a number
were measured, growing no more after 43 to 60 of them, as oneDNN keeps 1024 kernels.
Source: https://uxlfoundation.github.io/oneDNN/dev_guide_primitive_cache.html (2026-11-25)."""
GUESSED_MEMORY_BAND = (0.75, 1.4)
"""Ten jobs held 91 to 119 % of what is guessed (2026-11-26, ``benchmarks/local_forecast.py``), on
one machine."""
PRODUCT_SECONDS = 0.3
REACHED_SHARE = {"float32": 0.6, "bfloat16": 0.25}
"""Of the measured matrix products per second, in a training on a CPU; less in bfloat16, as all but
the products is as slow as before. With these, the time of ten jobs was guessed 30 % too low to 39 %
too high (2026-11-26, those of ``benchmarks/local_forecast.py``)."""

SIZE_SECONDS, FIRST_STEP_SECONDS = 0.1, 1.0
"""Before a calibration: 0.01 s (the embedded model) to 0.14 s (300 million weights) were measured
for the kernels of a new number of tokens, and 0.4 to 1.2 s for growing in the first step."""


class Figures(BaseModel):
    """What the parts of a training take here."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    measured_on: date | None = None
    """None: guessed."""
    packed: bool
    """Whether the model takes packed micro-batches."""
    start_seconds: float
    """From the start of the process to the first step, rendering of rows apart."""
    start_cpu_seconds: float
    busy_cores: float
    """CPU seconds a second after the start: fewer than threads where others use the machine."""
    others_share: float
    """Of the machine's processor time while steps were timed, what other programs had."""
    part_seconds: float
    """Of a micro-batch, whatever its size."""
    flop_seconds: float
    """Of an operation in forward and backward."""
    size_seconds: float
    """Of a micro-batch whose number of tokens is new, beside that: making kernels for it."""
    first_step_seconds: float
    """Of the first step, beside all that: growing to the memory that a step needs."""
    forward_flop_seconds: float
    """Of an operation in a forward alone, of large micro-batches (validation)."""
    answer_flop_seconds: float
    """Of an operation in a forward alone, of one short row (check of the adapter)."""
    checkpoint_seconds: float
    save_seconds: float
    """Saving the adapter and loading the base anew, to check it."""
    held_bytes: int
    """Process, weights, adapters and optimiser."""
    check_bytes: int
    """What the check of the adapter holds beyond the largest step."""
    time_band: tuple[float, float]
    """Low and high, as shares of what is expected."""
    memory_band: tuple[float, float]

    def form(self, settings: Settings) -> Form:
        """Return how micro-batches are laid out."""
        if self.packed:
            return Form("packed", share=settings.share_prefix, multiple=settings.length_multiple)
        return Form("padded", share=False, multiple=settings.length_multiple)


@dataclass(frozen=True, slots=True)
class Work:
    """All that a training computes.

    Args:
        epoch: Of the steps of an epoch.
        steps: How many these are.
        sizes: Micro-batches of all epochs whose number of tokens is new.
        validation: Of one validation; empty without rows.
        answers: Of one model's answers when the saved adapter is checked.
        render_seconds: To make the rows from their text.
    """

    epoch: Load
    steps: int
    sizes: int
    validation: Load
    answers: Load
    render_seconds: float


def seconds(figures: Figures, shape: Shape, settings: Settings, work: Work) -> float:
    """Return how long a training is expected to take, from the start of its process to its end.

    Args:
        figures: Of this machine.
        shape: Of the model.
        settings: Of the training.
        work: What it computes.
    """
    epochs = settings.epochs
    epoch = work.epoch.parts * figures.part_seconds
    epoch += step_flops(shape, work.epoch) * figures.flop_seconds
    validation = forward_flops(shape, work.validation) * figures.forward_flop_seconds
    # The trained model answers, then a fresh one with the saved adapter.
    answers = 2 * forward_flops(shape, work.answers) * figures.answer_flop_seconds
    return (
        figures.start_seconds
        + work.render_seconds
        + epochs * epoch
        + work.sizes * figures.size_seconds
        + figures.first_step_seconds
        + (epochs + 1) * validation
        + _checkpoints(settings, work.steps, epoch) * figures.checkpoint_seconds
        + figures.save_seconds
        + answers
    )


def sizes_made(epoch: Sequence[Sequence[Load]], epochs: int) -> int:
    """Return how many micro-batches of a training have a number of tokens that is new.

    Args:
        epoch: The loads of each step of an epoch.
        epochs: That are trained; where an epoch has more sizes than are kept, each makes them anew.
    """
    made = sum(new_sizes(epoch, MOST_SIZES))
    return made if made <= MOST_SIZES else epochs * made


def cpu_seconds(figures: Figures, expected_seconds: float) -> float:
    """Return the CPU time of a training that is expected to take so long.

    Unlike the time itself, it hardly depends on who else uses the machine.
    """
    return figures.start_cpu_seconds + figures.busy_cores * (
        expected_seconds - figures.start_seconds
    )


def _checkpoints(settings: Settings, steps: int, epoch_seconds: float) -> float:
    """Return about how many checkpoints are written: so often as asked, or at an epoch's end too.

    Args:
        settings: Of the training.
        steps: Of an epoch.
        epoch_seconds: Of all its steps.
    """
    if settings.checkpoint_every_steps is not None:
        return settings.epochs * steps / settings.checkpoint_every_steps
    step_seconds = epoch_seconds / max(steps, 1)
    between = max(settings.checkpoint_seconds, step_seconds)  # never two after one step
    return settings.epochs * (1 + epoch_seconds / max(between, 1e-9))


def forward_flops(shape: Shape, load: Load) -> float:
    """Return the operations of a forward alone: half of what frozen weights take in training."""
    return step_flops(shape, load) / 2


def peak_bytes(figures: Figures, settings: Settings, part_bytes: int, sizes: int) -> int:
    """Return the most memory that the worker is expected to hold.

    Args:
        figures: Of this machine.
        settings: Of the training.
        part_bytes: What the largest micro-batch holds.
        sizes: How many different numbers of tokens micro-batches have.
    """
    return figures.held_bytes + steps_bytes(settings, part_bytes, sizes) + figures.check_bytes


def steps_bytes(settings: Settings, part_bytes: int, sizes: int) -> int:
    """Return what steps add to what is held before the first of them; arguments as above."""
    kernels = SIZE_BYTES * min(sizes, MOST_SIZES) if settings.makes_kernels else 0
    return round(WORKSPACE * part_bytes) + kernels


def guess(shape: Shape, settings: Settings, *, packed: bool, weight_file_bytes: int) -> Figures:
    """Return figures that rest on a model's shape and on a third of a second of measuring.

    What hardly depends on the model is what the embedded one took on two idle cores.

    Args:
        shape: Of the model.
        settings: Of the training.
        packed: Whether the model seems to take packed micro-batches.
        weight_file_bytes: Of the base model's safetensors.
    """
    flop_seconds = 1 / (products_per_second(settings, shape) * REACHED_SHARE[settings.dtype])
    weights = shape.parameters * settings.torch_dtype.itemsize
    return Figures(
        packed=packed,
        start_seconds=9.0,
        start_cpu_seconds=6.0,
        busy_cores=settings.threads,
        others_share=0.0,
        part_seconds=0.02,
        flop_seconds=flop_seconds,
        size_seconds=SIZE_SECONDS if settings.makes_kernels else 0.0,
        first_step_seconds=FIRST_STEP_SECONDS,
        forward_flop_seconds=flop_seconds,
        answer_flop_seconds=flop_seconds,
        checkpoint_seconds=0.2,
        save_seconds=2.0,
        held_bytes=PROCESS_BYTES + weights + ADAPTER_BYTES * shape.adapter,
        # The file of the fresh base is mapped; its weights take the place of activations.
        check_bytes=weight_file_bytes,
        time_band=(0.5, 2.0),
        memory_band=GUESSED_MEMORY_BAND,
    )


def products_per_second(settings: Settings, shape: Shape) -> float:
    """Measure matrix products of the model's own shape on the device that will train.

    A CPU is measured by one thread, and counted as many times as there are threads.

    Returns:
        Operations per second, the best that was seen: others on the machine only slow it down.
    """
    device, dtype = torch.device(settings.device), settings.torch_dtype
    times: list[float] = []
    with machine.one_thread():
        tokens = torch.ones(512, shape.hidden, device=device, dtype=dtype)
        weight = torch.ones(shape.hidden, shape.mlp, device=device, dtype=dtype)
        product = torch.mm(tokens, weight)  # prepares the kernel
        while sum(times) < PRODUCT_SECONDS:
            start = time.perf_counter()
            torch.mm(tokens, weight, out=product)
            product[0, 0].cpu()  # waits for a GPU
            times.append(time.perf_counter() - start)
    threads = settings.threads if settings.device == "cpu" else 1
    return threads * 2 * tokens.shape[0] * weight.numel() / min(times)


def keep(figures: Figures, shape: Shape, settings: Settings) -> None:
    """Remember measured figures for trainings of this kind on this machine."""
    file = _file(shape, settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as draft:
        draft.write(figures.model_dump_json(indent=2))


def recall(shape: Shape, settings: Settings) -> Figures | None:
    """Return the figures measured for trainings of this kind on this machine, if any were."""
    try:
        return Figures.model_validate_json(_file(shape, settings).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):  # the latter: written by another version
        return None


def _file(shape: Shape, settings: Settings) -> Path:
    """Return where figures are kept: under what they depend on, which rows and epochs are not."""
    depends_on = {
        "processor": _processor(settings.device),
        "torch": torch.__version__,
        "shape": asdict(shape),
        "settings": settings.model_dump(
            mode="json",
            include={"device", "dtype", "threads", "rank", "targets", "dropout", "share_prefix"},
        ),
    }
    return cache_folder() / "calibrations" / f"{digest(depends_on)}.json"


def _processor(device: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return f"{' '.join(sorted(models)) or platform.machine()}, {os.cpu_count()} processors"
