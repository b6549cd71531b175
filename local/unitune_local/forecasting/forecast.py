"""Forecast the time and memory of a training from its rendered rows, without loading weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

from peft import PeftModel

from unitune.backends.local_capabilities import AnswerLoad, Forecast
from unitune.backends.output_limit import longest_expected
from unitune.data.dataset import Dataset
from unitune.data.tools import each_answer
from unitune.errors import Unsupported
from unitune.findings import Finding, error, warning
from unitune.job.job import Job
from unitune.workspace.install import install_command
from unitune_local import machine
from unitune_local.data.attention import not_plain
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rendering import turn_ends
from unitune_local.data.rows import rows_of, scored_cases
from unitune_local.forecasting.cost import OVERHEAD_SECONDS, CostModel, training_conditions
from unitune_local.forecasting.memory_fit import (
    Batching,
    answer_tokens,
    fit_batches,
    savings,
    scorer_findings,
)
from unitune_local.inference.answer_cost import MEASURED_BAND, answer_conditions, answer_seconds
from unitune_local.models import store
from unitune_local.models.adapter import full_findings
from unitune_local.models.model import config_of, load_tokenizer
from unitune_local.models.size import (
    Speed,
    context_of,
    dimensions_of,
    empty_tuned_model,
    size_of,
    speed_of,
)
from unitune_local.models.start import StartAdapter, misfit, read_start
from unitune_local.models.targets import reach_findings
from unitune_local.parallel.ranks import process_findings, shard_findings
from unitune_local.settings import STATE_BYTES, Settings, resolve

# Low and high end of time and memory, as shares of the expected values; not measured on GPUs
MEASURED_BANDS = (MEASURED_BAND, MEASURED_BAND)
GUESSED_BANDS, GPU_BANDS = ((0.5, 2.0), (0.6, 1.5)), ((0.2, 5.0), (0.5, 2.0))
# Time of answers with an unmerged adapter, relative to a merged one
ADAPTER_SHARE = 1.5


@dataclass(frozen=True, slots=True)
class TrainingForecast:
    """Forecast of a training (`summary`), with the rows and batches that it was made from."""

    cost: CostModel
    rows: tuple[TrainingRow, ...]
    validation: tuple[TrainingRow, ...]
    batching: Batching
    summary: Forecast


def forecast(
    job: Job, folder: Path, train: Dataset, validation: Dataset, start: Path | None = None
) -> TrainingForecast:
    """Return the forecast of a job's training on this machine.

    Raises:
        JobError: The options of this backend are not valid.
        UserError: No layer is a target, or the model does not state its context length.
    """
    read = read_start(start, job, folder) if start else StartAdapter(None, ())
    answered = chain.from_iterable(map(each_answer, train)) if job.evaluate.dialogue else train
    longest = longest_expected(answered) if job.method == "rft" else 0
    base = dimensions_of(folder, job.tuning.sequence_length)
    settings = resolve(job, base, read.shape, longest)
    tokenizer = load_tokenizer(folder, settings.chat)
    learnt, held_out = (rows_of(settings, tokenizer, dataset) for dataset in (train, validation))
    model = empty_tuned_model(folder, settings)
    size = size_of(model)
    cost = CostModel(
        size,
        speed_of(training_conditions(size, settings)),
        is_plain=not not_plain(config_of(folder)),
        file_bytes=store.weight_bytes(folder),
        optimizer_bytes=STATE_BYTES[settings.optimizer],
    )
    if settings.gradient_checkpointing is None and not _can_checkpoint(model):
        settings = settings.model_copy(update={"gradient_checkpointing": False})
    available = machine.available_bytes(settings.device)
    answers = answer_tokens(tokenizer, learnt.rows, settings.reward) if settings.reward else None
    batching = fit_batches(cost, settings, learnt.rows, available, answers)
    settings, count = batching.settings, len(learnt.rows)

    findings = [*read.findings, *learnt.findings, *held_out.findings]
    findings += scorer_findings(job, train) if answers else ()
    if start and read.shape and (difference := misfit(model, start)):
        what = f"the adapter in {start} does not fit the base model: {difference}."
        findings.append(error("start-adapter", what, "Use another adapter, or its own base."))
    findings += _findings(settings, learnt.rows, context_of(folder))
    findings += () if settings.raw_text else _endless(learnt.rows, turn_ends(tokenizer))
    findings += reach_findings(model, settings)
    for of_settings in (quantization_findings, process_findings, shard_findings, full_findings):
        findings += of_settings(settings)
    findings += chain(_busy(cost.speed), savings(job, batching, available))
    steps = settings.steps(count)
    findings += _evaluation_findings(settings, steps, count, len(held_out.rows))
    findings += _score_findings(settings, validation)

    sampling = None
    if answers or settings.selection.best_by == "score":
        sampling = speed_of(answer_conditions(size, settings.device, settings.torch_dtype))
    time = _TrainingTime(cost, batching, learnt.rows, held_out.rows, sampling)
    low, expected, high = (answers.low, answers.expected, answers.high) if answers else (0, 0, 0)
    earliest = min(steps, _earliest_end(settings, count))
    is_guess = cost.speed.measured_on is None
    time_band, memory_band = MEASURED_BANDS
    if is_guess:
        time_band, memory_band = GUESSED_BANDS if settings.device == "cpu" else GPU_BANDS
    computed = list(chain.from_iterable(batching.parts))
    summary = Forecast(
        findings=tuple(findings),
        rows=len(train),
        tokens=sum(len(row.ids) for row in computed),
        trained_tokens=sum(row.trained_tokens for row in computed),
        epochs=math.ceil(steps / max(1, settings.epoch_steps(count))),
        steps=steps,
        steps_low=earliest if earliest < steps else None,
        seconds_low=time_band[0] * time.of(earliest, low),
        seconds_expected=time.of(steps, expected),
        seconds_high=time_band[1] * time.of(steps, high),
        memory_low_bytes=round(memory_band[0] * batching.peak_bytes),
        memory_bytes=batching.peak_bytes,
        memory_high_bytes=round(memory_band[1] * batching.peak_bytes),
        memory_available_bytes=available,
        measured_on=cost.speed.measured_on,
        settings=settings.model_dump(mode="json"),
    )
    return TrainingForecast(cost, learnt.rows, held_out.rows, batching, summary)


def _can_checkpoint(model: PeftModel) -> bool:
    return bool(cast("Any", model.get_base_model()).supports_gradient_checkpointing)


class _TrainingTime(NamedTuple):
    """Everything except the steps that the time of a training depends on."""

    cost: CostModel
    batching: Batching
    rows: Sequence[TrainingRow]
    validation: Sequence[TrainingRow]
    sampling: Speed | None  # speed of answers of the model in training, if any

    def of(self, steps: int, answer_tokens: int) -> float:
        """Return the seconds of so many steps, with sampled answers of so many tokens."""
        cost, settings, count = self.cost, self.batching.settings, len(self.rows)
        epochs = steps / max(1, settings.epoch_steps(count))
        validations = 1 + math.ceil(steps / max(1, settings.evaluation_steps(count)))
        epoch, validated, sampled = cost.seconds(self.batching.costs), 0.0, 0.0
        if settings.reward is None:
            by_length = sorted(self.validation, key=lambda row: len(row.ids))
            validated = cost.seconds(cost.step(by_length, settings).busiest)
        else:
            sampled = epochs * self._sampled(self.rows, settings.reward.group_size, answer_tokens)
            sampled += validations * self._sampled(self.validation, 1, answer_tokens)
        if settings.selection.best_by == "score":
            scored = [row for row in self.validation if row.is_good is not False]
            mean = sum(row.trained_tokens for row in scored) / max(1, len(scored))
            sampled += validations * self._sampled(scored, 1, answer_tokens or mean)
        passes = epochs * (settings.reward.updates if settings.reward else 1)
        # A pass without a backward takes half as long.
        forwards = settings.forwards(passes)
        trained = (passes + forwards / 2) * epoch + (validations + forwards) * validated / 2
        devices = settings.processes / settings.processes_per_device
        return OVERHEAD_SECONDS + trained + sampled / devices

    def _sampled(self, rows: Sequence[TrainingRow], group: int, tokens: float) -> float:
        """Return the seconds of a group of answers to the prompt of each row."""
        assert self.sampling is not None, "there are answers"
        load = AnswerLoad(group * len(rows), 0, 0, tokens)
        ids = [tuple(row.ids[: row.prompt_length]) for row in rows]
        return ADAPTER_SHARE * answer_seconds(self.cost.size, self.sampling, ids, load, group)


def require_memory(summary: Forecast) -> None:
    """Raise Unsupported if a training does not fit into memory."""
    needed, available = summary.memory_bytes, summary.memory_available_bytes
    count = summary.settings.get("processes", 1)
    if needed > available:
        whole = f" Each of the {count} processes holds the whole model." if count != 1 else ""
        if summary.settings.get("shard"):
            whole = f" The model is already spread over the {count} processes."
        raise Unsupported(
            f"the training needs about {needed / 1e9:.1f} GB of memory, but only "
            f"{available / 1e9:.1f} GB are free.{whole} Free some, use a smaller model, or lower "
            "tuning.sequence_length or tuning.lora.rank."
        )


def quantization_findings(settings: Settings) -> Iterator[Finding]:
    """Yield errors for weights that cannot be quantised."""
    name = settings.quantization
    setting = f"options.local.quantization is {name}, but "
    if name is not None and settings.device == "mps":
        what = f"{setting}bitsandbytes does not support {name} weights on mps."
        yield error("quantization", what, "Add device: cpu, or leave quantization out.")
    elif name is not None and find_spec("bitsandbytes") is None:
        fix = f"{install_command('local', '4bit')}, or leave quantization out."
        yield error("quantization", f"{setting}bitsandbytes is not installed.", fix)
    elif name == "8bit" and settings.dora:
        yield error(
            "quantization",
            "tuning.lora.dora needs the norms of the base's weights before the first step, which "
            "peft cannot read from 8bit weights.",
            "Use quantization: 4bit, or leave dora out.",
        )


def _busy(speed: Speed) -> Iterator[Finding]:
    if (share := speed.busy_share) > machine.BUSY_SHARE:
        yield warning(
            "calibrated-while-busy",
            f"other programs used {share:.0%} of the processor during the calibration, so the "
            "training takes less time on an idle machine.",
            "Run unitune plan --calibrate again when they have ended.",
        )


def _earliest_end(settings: Settings, rows: int) -> int:
    """Return the earliest step at which a training may end: one gain, and none after it."""
    patience = settings.selection.patience
    if patience is None:
        return settings.steps(rows)
    return (1 + patience) * settings.evaluation_steps(rows)


def _score_findings(settings: Settings, validation: Dataset) -> Iterator[Finding]:
    if settings.selection.best_by == "score" and validation.rows and not scored_cases(validation):
        what = "tuning.best_by is score, but every validation row is rated false, so no row has an "
        fix = "Add rows whose label is true, or set best_by to loss."
        yield error("no-validation", f"{what}answer to score.", fix)


def _evaluation_findings(
    settings: Settings, steps: int, rows: int, validation: int
) -> Iterator[Finding]:
    selection = settings.selection
    if selection.needs_validation and not validation:
        what = "tuning.early_stopping and tuning.keep need validation rows, but the job has none."
        fix = "Set data.validation to a file, or provide more training rows."
        yield error("no-validation", what, fix)
    elif selection.patience is not None and _earliest_end(settings, rows) > steps:
        made = math.ceil(steps / settings.evaluation_steps(rows))
        yield warning(
            "never-early",
            f"early stopping waits for {selection.patience} evaluations without a gain, but the "
            f"training only makes {made} in {steps} steps.",
            "Lower tuning.early_stopping.patience or tuning.evaluate_every.",
        )
    if settings.warmup >= steps > 1:
        made = f"tuning.warmup is {settings.warmup:g}, but the training only makes {steps} steps"
        yield warning("only-warmup", f"{made}; the learning rate only rises.", "Lower it.")


def _findings(
    settings: Settings, rows: Sequence[TrainingRow], context: int | None
) -> Iterator[Finding]:
    if context is not None and settings.sequence_length > context:
        given = f"tuning.sequence_length is {settings.sequence_length}"
        what = f"{given}, but the model supports {context} tokens."
        yield error("sequence-length", what, "Lower it, or set it to auto.")
    if not rows:
        what = "no row has anything to train on."
        yield error("nothing-to-learn", what, "Add an assistant turn to the rows.")


def _endless(rows: Sequence[TrainingRow], ends: frozenset[int]) -> Iterator[Finding]:
    endless = [
        row.line
        for row in rows
        if row.case is None
        and not any(on and token in ends for token, on in zip(row.ids, row.trained, strict=True))
    ]
    if endless:
        yield warning(
            "stop-not-trained",
            f"{len(endless)} of {len(rows)} rows do not train the token that ends an answer, first "
            f"in line {endless[0]}; the model may not learn to stop.",
            "End these rows with an assistant turn of weight 1.",
        )
