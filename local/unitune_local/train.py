"""The training loop: LoRA by AdamW, one function to be read from top to bottom.

Everything that could differ from one time to the next is fixed by settings and step number: the
rows of a step, its learning rate, how it is cut into micro-batches. Adapter, optimiser and random
number generators come back from a checkpoint, so a training that was killed goes on to the very
same losses. Not here: making the model (`unitune_local.worker`) and what becomes of events.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from pydantic import JsonValue
from torch import Tensor, nn

from unitune.errors import RunFailed
from unitune_local import checkpoint
from unitune_local.batches import TrainingRow, epoch_batches, micro_batches
from unitune_local.grading import Grader
from unitune_local.job_folder import Kind
from unitune_local.loss import Form, choose_form
from unitune_local.objective import Objective, PartLoss, objective_of
from unitune_local.reference import REFERENCE_FILE, ReferencePass
from unitune_local.reward import RewardLoss
from unitune_local.rollout import Rollouts
from unitune_local.selection import Evaluations
from unitune_local.settings import Settings

LONGEST_GRADIENT = 1.0
"""Gradients are scaled down to this norm."""

THROUGHPUT_STEPS = 10
"""Enough to even out rows of different length, few enough to follow a machine that others use."""

Note = Callable[[Kind, dict[str, JsonValue]], None]


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """What the loop needs from outside.

    Args:
        checkpoints: Folder for checkpoints; the newest one in it is gone on from.
        note: Receives every step, validation, checkpoint, warning and message.
        stop: Called after every step; returns whether to stop.
        score: Returns how well the model answers the validation rows, where that decides.
        grader: Of answers that are sampled; None where none are.
    """

    checkpoints: Path
    note: Note
    stop: Callable[[], bool]
    score: Callable[[PeftModel], float] | None = None
    grader: Grader | None = None


def train(
    model: PeftModel,
    rows: Sequence[TrainingRow],
    validation: Sequence[TrainingRow],
    settings: Settings,
    context: TrainingContext,
) -> bool:
    """Train adapters in place, to those of the step that is kept; False when it was stopped.

    Raises:
        RunFailed: Loss or gradient is not a finite number; the last checkpoint is good.
    """
    form = choose_form(model, rows, share=settings.share_prefix, multiple=settings.length_multiple)
    context.note("warning" if form.reason else "message", {"text": _described(form, settings)})
    cut = partial(micro_batches, most_tokens=settings.micro_batch_tokens, share=form.share)
    ahead = ReferencePass(model, form, context.checkpoints / REFERENCE_FILE, context.stop)
    if (ready := _referenced(ahead, rows, validation, settings, cut)) is None:
        return False
    rows, validation = ready
    objective = _objective(model, form, settings, context.grader)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = adamw(weights, settings)
    steps_per_epoch, steps = settings.epoch_steps(len(rows)), settings.steps(len(rows))

    def measure() -> dict[str, float]:
        figures = validation_figures(model, objective, validation, cut(by_length(validation)))
        return figures if context.score is None else {**figures, "score": context.score(model)}

    evaluations = Evaluations(measure if validation else None, settings, len(rows), context.note)
    step = 0
    if (saved := checkpoint.latest(context.checkpoints)) is not None:
        checkpoint.restore(saved, weights, optimizer)
        step, evaluations.selection = saved.position.step, saved.position.selection
        context.note("message", {"text": f"resuming at step {step}/{steps}"})
    else:
        evaluations.before()
    throughput = Throughput(steps - step)
    saved_at = time.monotonic()

    model.train()
    while not evaluations.ends(step):
        epoch, place = divmod(step, steps_per_epoch)
        step += 1
        prepared = objective.prepare(_steps_of(rows, settings, epoch)[place], step)
        learning_rate = scheduled_rate(step, steps, settings)
        set_rate(optimizer, learning_rate)

        mean = Mean(prepared.weight, objective.figure)
        for part_loss in objective.losses(cut(prepared.rows)):
            torch.autograd.backward(mean.add(part_loss))
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), LONGEST_GRADIENT).item()
        _check_finite(step, mean.loss, norm, learning_rate, prepared.rows)
        cast("Any", optimizer).step()
        optimizer.zero_grad()

        event: dict[str, JsonValue] = {
            "step": step,
            "steps": steps,
            "epoch": step / steps_per_epoch,
            **prepared.figures,
            **mean.figures,
            "learning_rate": learning_rate,
            "grad_norm": norm,
            "tokens": prepared.tokens,
            "trained_tokens": sum(row.trained_tokens for row in prepared.rows),
        }
        context.note("step", event | throughput.after(prepared.tokens))
        evaluations.after(step)
        stopping = not evaluations.ends(step) and context.stop()
        due = stopping or evaluations.wants_checkpoint(step)
        if due or _checkpoint_due(step, saved_at, settings, place + 1 == steps_per_epoch):
            checkpoint.save(context.checkpoints, step, weights, optimizer, evaluations.selection)
            context.note("checkpoint", {"step": step})
            saved_at = time.monotonic()
        if stopping:
            return False
    if (kept := evaluations.kept(step)) != step:
        checkpoint.restore_weights(context.checkpoints, kept, weights)
    evaluations.conclude(step)
    return True


def _referenced(
    ahead: ReferencePass,
    rows: Sequence[TrainingRow],
    validation: Sequence[TrainingRow],
    settings: Settings,
    cut: Callable[[Sequence[TrainingRow]], list[list[TrainingRow]]],
) -> tuple[Sequence[TrainingRow], Sequence[TrainingRow]] | None:
    """Return rows with what their loss needs of the base model; None when it was stopped."""
    if settings.preference is None or not settings.preference.needs_reference:
        return rows, validation
    first_epoch = (part for step in _steps_of(rows, settings, 0) for part in cut(step))
    made = ahead.run([*first_epoch, *cut(by_length(validation))])
    if made is None:
        return None
    return [made[row] for row in rows], [made[row] for row in validation]


def _objective(
    model: PeftModel, form: Form, settings: Settings, grader: Grader | None
) -> Objective:
    """Return what a training minimises by its settings."""
    if settings.reward is None:
        return objective_of(model, form, settings.preference)
    assert grader is not None, "sampled answers are graded"
    longest = settings.sequence_length
    return RewardLoss(Rollouts(model, form, grader, settings.reward, settings.seed, longest))


def _steps_of(
    rows: Sequence[TrainingRow], settings: Settings, epoch: int
) -> list[list[TrainingRow]]:
    """Return the rows of each optimiser step of an epoch."""
    lengths = [len(row.ids) for row in rows]
    order = epoch_batches(lengths, settings.batch_size, settings.seed, epoch)
    return [[rows[index] for index in step] for step in order]


def adamw(weights: Mapping[str, nn.Parameter], settings: Settings) -> torch.optim.AdamW:
    """Return the optimiser of a training; `set_rate` sets its learning rate.

    The matrices B of adapters are a group of their own, and so are DoRA's sizes with them: LoRA+
    learns them faster.
    """
    is_b = {name: ".lora_B." in name or weight.ndim == 1 for name, weight in weights.items()}
    ratios = {False: 1.0, True: settings.loraplus_lr_ratio or 1.0}
    groups = [
        {"params": [weights[name] for name in weights if is_b[name] is group], "ratio": ratio}
        for group, ratio in ratios.items()
    ]
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=settings.weight_decay, fused=True)


def set_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]


def scheduled_rate(step: int, steps: int, settings: Settings) -> float:
    """Return the learning rate of a step: a linear warmup, then the schedule.

    That of transformers one step later, with one step more: no step is made at a rate of zero.
    """
    share = 0 < settings.warmup < 1
    warmup = max(1, round(settings.warmup * steps)) if share else round(settings.warmup)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    done = (step - warmup) / (steps - warmup + 1)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    factors = {"cosine": cosine, "linear": 1 - done, "constant": 1.0}
    return settings.learning_rate * factors[settings.schedule]


def by_length(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Return rows in the order of a validation."""
    return sorted(rows, key=lambda row: len(row.ids))


def validation_figures(
    model: PeftModel,
    objective: Objective,
    rows: Sequence[TrainingRow],
    parts: Sequence[Sequence[TrainingRow]],
) -> dict[str, float]:
    """Return the mean loss of rows that are cut into micro-batches, and the other figures."""
    if isinstance(objective, RewardLoss):
        return objective.validate(rows)
    was_training = model.training
    model.eval()
    mean = Mean(objective.prepare(rows, 0).weight, objective.figure)
    with torch.no_grad():
        for part_loss in objective.losses(parts):
            mean.add(part_loss)
    model.train(was_training)
    return mean.figures


class Mean:
    """The figures of rows whose micro-batches come one after the other.

    Args:
        weight: Of all rows.
        figure: What the loss is called.
    """

    def __init__(self, weight: float, figure: str) -> None:
        self._weight = weight
        self._figure = figure
        self.figures: dict[str, float] = {}

    @property
    def loss(self) -> float:
        """The mean loss so far; 0 where nothing was to be learnt."""
        return self.figures.get(self._figure, 0.0)

    def add(self, part: PartLoss) -> Tensor:
        """Add a micro-batch, and return its share of the mean loss, with its gradient."""
        loss = part.loss / self._weight
        shares = {name: value / self._weight for name, value in part.figures.items()}
        for name, share in {self._figure: loss.item(), **shares}.items():
            self.figures[name] = self.figures.get(name, 0.0) + share
        return loss


class Throughput:
    """How fast the training goes, measured over the last steps of this process.

    Args:
        steps: Steps still to do.
    """

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._tokens = 0
        self._marks = deque([(time.monotonic(), 0)], maxlen=THROUGHPUT_STEPS + 1)

    def after(self, tokens: int) -> dict[str, JsonValue]:
        """Return tokens per second and the seconds left, after a step of so many tokens."""
        self._left -= 1
        self._tokens += tokens
        self._marks.append((time.monotonic(), self._tokens))
        (start, before), (now, after) = self._marks[0], self._marks[-1]
        spent = max(now - start, 1e-9)
        return {
            "tokens_per_second": (after - before) / spent,
            "seconds_left": spent / (len(self._marks) - 1) * self._left,
        }


def _checkpoint_due(step: int, saved_at: float, settings: Settings, epoch_ended: bool) -> bool:  # noqa: FBT001
    every = settings.checkpoint_every_steps
    if every is not None:
        return step % every == 0
    return epoch_ended or time.monotonic() - saved_at >= settings.checkpoint_seconds


def _described(form: Form, settings: Settings) -> str:
    if form.kind == "padded":
        return f"rows are padded: this model cannot take packed rows, because {form.reason}"
    if settings.dropout > 0 or settings.neftune_noise_alpha:
        why = "dropout" if settings.dropout > 0 else "noise on the embeddings"
        return f"a shared prefix is computed for each row, because there is {why}"
    return "a shared prefix is computed once" if form.share else "no shared prefix, as requested"


def _check_finite(
    step: int, loss: float, norm: float, learning_rate: float, rows: Sequence[TrainingRow]
) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    lines = ", ".join(str(row.line) for row in sorted(rows, key=lambda row: row.line))
    raise RunFailed(
        f"step {step} has loss {loss} and gradient norm {norm} at learning rate "
        f"{learning_rate:.2g}, on the training rows of lines {lines}. No such weights were saved. "
        "Lower tuning.learning_rate, or check these rows."
    )
