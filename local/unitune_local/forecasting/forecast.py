"""What a training would take, before it starts, from rows, configuration and machine.

The rows are rendered and laid into the very batches that training would make, so tokens, steps and
the gain of a shared prefix are exact. Memory is that of the largest micro-batch
(`unitune_local.forecasting.memory`), which is made to fit (`unitune_local.forecasting.memory_fit`);
time is arithmetic over the figures of this machine (`unitune_local.forecasting.cost_model`),
measured where a calibration was made. No weights are loaded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from unitune.backends.forecasts import AnswerLoad, Forecast
from unitune.backends.output_limit import longest_expected
from unitune.data.dataset import Dataset
from unitune.errors import Unsupported
from unitune.findings import Finding, error, warning
from unitune.job.job import Job
from unitune.workspace.install import install_command
from unitune_local import machine
from unitune_local.data.attention import not_plain
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rendering import turn_end
from unitune_local.data.rows import RenderedRows, render_prompts, render_rows, scored_cases
from unitune_local.forecasting import memory
from unitune_local.forecasting.cost_model import CostModel, StepWork, calibration, guess
from unitune_local.forecasting.memory import Shape
from unitune_local.forecasting.memory_fit import Batching, fit_batches, savings
from unitune_local.forecasting.sampling_cost import (
    answer_tokens,
    sampling_seconds,
    scorer_findings,
)
from unitune_local.inference.answer_cost import LOAD_SECONDS, forecast_answers, recall
from unitune_local.models import store
from unitune_local.models.adapter import checked_prompts, checked_tokens
from unitune_local.models.model import config_of, load_tokenizer
from unitune_local.models.start import StartAdapter, misfit, read_start
from unitune_local.parallel.ranks import process_findings
from unitune_local.parallel.sharding import shard_findings
from unitune_local.settings import Settings, resolve

GUESSED_TIME_BAND, GUESSED_MEMORY_BAND = (0.5, 2.0), (0.75, 1.4)
TIME_BAND, MEMORY_BAND = (0.8, 1.25), (0.8, 1.25)
"""Low and high as shares of what is expected after a calibration; ``benchmarks/local_forecast.py``
has the errors."""


@dataclass(frozen=True, slots=True)
class TrainingForecast:
    """What a training would take (`summary`), with the rows and batches that it was made from."""

    shape: Shape
    rows: tuple[TrainingRow, ...]
    validation: tuple[TrainingRow, ...]
    batching: Batching
    summary: Forecast


def forecast(
    job: Job, folder: Path, train: Dataset, validation: Dataset, start: Path | None = None
) -> TrainingForecast:
    """Return how a job would be trained here, and what that would take.

    Raises:
        JobError: The options of this backend are not valid.
        UserError: No layer is a target.
    """
    read = read_start(start, job, folder) if start else StartAdapter(None, ())
    longest = longest_expected(train) if job.method == "rft" else 0
    settings = resolve(job, memory.dimensions_of(folder), read.shape, longest)
    tokenizer = load_tokenizer(folder)
    learnt, held_out, render_seconds = _rendered(tokenizer, settings, train, validation)
    model = memory.meta_model(folder, settings)
    shape = memory.shape_of(model)
    cost_model = recall(CostModel, calibration(shape, settings)) or guess(
        shape,
        settings,
        packed=not not_plain(config_of(folder)),
        weight_file_bytes=store.weight_bytes(folder),
        checked_tokens=checked_tokens(checked_prompts(learnt.rows, held_out.rows)),
    )
    available = machine.available_bytes(settings.device)
    answers = answer_tokens(tokenizer, learnt.rows, settings.reward) if settings.reward else None
    batching = fit_batches(model, settings, cost_model, learnt.rows, available, answers)
    settings, form = batching.settings, cost_model.form(settings)
    by_length = [] if answers else sorted(held_out.rows, key=lambda row: len(row.ids))
    validated = StepWork.of(by_length, settings, form, shape)
    score_seconds = _score_seconds(settings, folder, validation, held_out.rows)
    steps = settings.steps(len(learnt.rows))
    earliest = min(steps, _earliest_end(settings, len(learnt.rows)))
    group_size = settings.reward.group_size if settings.reward else 1

    def seconds(steps: int, tokens: int) -> float:
        epochs = steps / max(1, settings.epoch_steps(len(learnt.rows)))
        validations = 1 + math.ceil(steps / max(1, settings.evaluation_steps(len(learnt.rows))))
        forwards = settings.forwards(epochs)
        trained = cost_model.seconds(epochs, batching.work, validated.work, validations, forwards)
        epoch = sampling_seconds(folder, settings, learnt.rows, group_size, tokens)
        evaluation = sampling_seconds(folder, settings, held_out.rows, 1, tokens)
        sampled = epochs * epoch + validations * evaluation
        devices = settings.processes / settings.processes_per_device
        return render_seconds + trained + (sampled + validations * score_seconds) / devices

    # Low and high of time and of memory, as shares of what is expected.
    time_band, memory_band = TIME_BAND, MEMORY_BAND
    if cost_model.measured_on is None:
        time_band, memory_band = GUESSED_TIME_BAND, GUESSED_MEMORY_BAND
    computed = list(chain.from_iterable(batching.parts))
    findings = [*read.findings, *learnt.findings, *held_out.findings]
    findings += scorer_findings(job, train) if answers else ()
    if start and read.shape and (difference := misfit(model, start)):
        what = f"the adapter in {start} does not fit the base model: {difference}."
        findings.append(error("start-adapter", what, "Name another adapter, or its own base."))
    findings += _findings(settings, learnt.rows, turn_end(tokenizer), shape)
    for of_settings in (quantization_findings, process_findings, shard_findings):
        findings += of_settings(settings)
    findings += chain(_busy(cost_model), savings(job, batching, available))
    findings += _evaluation_findings(settings, steps, len(learnt.rows), len(held_out.rows))
    findings += _score_findings(settings, validation)
    summary = Forecast(
        findings=tuple(findings),
        rows=len(train),
        tokens=sum(len(row.ids) for row in computed),
        trained_tokens=sum(row.trained_tokens for row in computed),
        epochs=math.ceil(steps / max(1, settings.epoch_steps(len(learnt.rows)))),
        steps=steps,
        steps_low=earliest if earliest < steps else None,
        seconds_low=time_band[0] * seconds(earliest, answers.low if answers else 0),
        seconds_expected=seconds(steps, answers.expected if answers else 0),
        seconds_high=time_band[1] * seconds(steps, answers.high if answers else 0),
        memory_low_bytes=round(memory_band[0] * batching.peak_bytes),
        memory_bytes=batching.peak_bytes,
        memory_high_bytes=round(memory_band[1] * batching.peak_bytes),
        memory_available_bytes=available,
        measured_on=cost_model.measured_on,
        settings=settings.model_dump(mode="json"),
    )
    return TrainingForecast(shape, learnt.rows, held_out.rows, batching, summary)


def _rendered(
    tokenizer: PreTrainedTokenizerBase, settings: Settings, train: Dataset, validation: Dataset
) -> tuple[RenderedRows, RenderedRows, float]:
    """Return rows and held-out rows as the model sees them, and the seconds that this took."""
    before = time.perf_counter()
    rendering = render_rows if settings.reward is None else render_prompts
    learnt = rendering(tokenizer, train, settings.sequence_length)
    held_out = rendering(tokenizer, validation, settings.sequence_length)
    return learnt, held_out, time.perf_counter() - before


def require_memory(summary: Forecast) -> None:
    """Refuse a training that would not fit into memory.

    Raises:
        Unsupported: It needs more than there is.
    """
    needed, available = summary.memory_bytes, summary.memory_available_bytes
    count = summary.settings.get("processes", 1)
    if needed > available:
        whole = f" Each of the {count} processes holds the whole model." if count != 1 else ""
        if summary.settings.get("shard"):
            whole = f" The model is spread over the {count} processes already."
        raise Unsupported(
            f"the training needs about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} "
            f"GB are free.{whole} Free some, use a smaller model or lower tuning.sequence_length "
            "or tuning.lora.rank."
        )


def quantization_findings(settings: Settings) -> Iterator[Finding]:
    """Yield why the weights cannot be quantised here, if they are to be."""
    name = settings.quantization
    setting = f"options.local.quantization is {name}, and "
    if name is not None and settings.device == "mps":
        what = f"{setting}bitsandbytes has no {name} weights on mps."
        yield error("quantization", what, "Add device: cpu, or leave quantization out.")
    elif name is not None and find_spec("bitsandbytes") is None:
        fix = f"{install_command('local', '4bit')}, or leave quantization out."
        yield error("quantization", f"{setting}bitsandbytes is not installed.", fix)
    elif name == "8bit" and settings.dora:
        yield error(
            "quantization",
            "tuning.lora.dora needs the sizes of the base's weights before the first step, and "
            "peft cannot read them from 8bit weights.",
            "Use quantization: 4bit, or leave dora out.",
        )


def _busy(cost_model: CostModel) -> Iterator[Finding]:
    if (share := cost_model.busy_share) > machine.BUSY_SHARE:
        yield warning(
            "calibrated-while-busy",
            f"other programs used {share:.0%} of the processor during the calibration; the "
            "training takes less when it has the machine for itself.",
            "Run unitune plan --calibrate again when they have ended.",
        )


def _earliest_end(settings: Settings, rows: int) -> int:
    """Return the step at which a training may end first: one gain, and none after it."""
    patience = settings.selection.patience
    if patience is None:
        return settings.steps(rows)
    return (1 + patience) * settings.evaluation_steps(rows)


def _score_seconds(
    settings: Settings, folder: Path, validation: Dataset, rows: Sequence[TrainingRow]
) -> float:
    """Return what answers to the validation rows take once, the model being loaded."""
    if settings.selection.best_by != "score":
        return 0.0
    tokens = sum(row.trained_tokens for row in rows) / max(1, len(rows))
    load = AnswerLoad(len(scored_cases(validation)), 0, 0, tokens)
    return forecast_answers(str(folder), validation, [load]).seconds[0] - LOAD_SECONDS


def _score_findings(settings: Settings, validation: Dataset) -> Iterator[Finding]:
    if settings.selection.best_by == "score" and validation.rows and not scored_cases(validation):
        what = "tuning.best_by is score, and no validation row has an answer to give: all are rated"
        fix = "Add rows whose label is true, or set best_by to loss."
        yield error("no-validation", f"{what} false.", fix)


def _evaluation_findings(
    settings: Settings, steps: int, rows: int, validation: int
) -> Iterator[Finding]:
    selection = settings.selection
    if selection.needs_validation and not validation:
        what = (
            "tuning.early_stopping and tuning.keep go by the validation rows, and there are none."
        )
        fix = "Name a file under data.validation, or give more training rows."
        yield error("no-validation", what, fix)
    elif selection.patience is not None and _earliest_end(settings, rows) > steps:
        made = math.ceil(steps / settings.evaluation_steps(rows))
        yield warning(
            "never-early",
            f"early stopping waits for {selection.patience} evaluations without a gain, and the "
            f"training makes {made} in {steps} steps.",
            "Lower tuning.early_stopping.patience or tuning.evaluate_every.",
        )
    if settings.warmup >= steps > 1:
        made = f"tuning.warmup is {settings.warmup:g}, and the training makes {steps} steps"
        yield warning("only-warmup", f"{made}; the learning rate only rises.", "Lower it.")


def _findings(
    settings: Settings, rows: Sequence[TrainingRow], stop: int, shape: Shape
) -> Iterator[Finding]:
    if settings.sequence_length > shape.context:
        given = f"tuning.sequence_length is {settings.sequence_length}"
        what = f"{given}, but the model was made for {shape.context} tokens."
        yield error("sequence-length", what, "Lower it, or leave it to auto.")
    endless = [
        row.line
        for row in rows
        if row.case is None
        and not any(on and token == stop for token, on in zip(row.ids, row.trained, strict=True))
    ]
    if endless:
        yield warning(
            "stop-not-trained",
            f"{len(endless)} of {len(rows)} rows do not train the token that ends an answer, first "
            f"in line {endless[0]}; the model may not learn to stop.",
            "End these rows with an assistant turn of weight 1.",
        )
    if not rows:
        what = "no row has anything to train on."
        yield error("nothing-to-learn", what, "Give rows an assistant turn.")
