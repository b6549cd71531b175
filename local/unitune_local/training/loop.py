"""Train on this machine, in one process or several ranks.

Settings and step number determine everything about a step, including its random numbers, so a
training that was killed continues from a checkpoint with the same losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn

from unitune.errors import RunFailed
from unitune_local import machine
from unitune_local.data.batches import Batches, TrainingRow, computed_tokens, micro_batches
from unitune_local.grading import RewardGrader
from unitune_local.inference.generate import generate_in_training
from unitune_local.job_folder import REFERENCE_FILE, Note, drop_note
from unitune_local.objectives.loss import Form, choose_form
from unitune_local.objectives.objective import Objective, PartLoss, StepRows, objective_of
from unitune_local.objectives.preference import ReferencePass, pairs_by
from unitune_local.objectives.reward import RewardLoss
from unitune_local.objectives.rollout import Rollouts, seed_of
from unitune_local.parallel.processes import OutOfMemory
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.settings import Settings
from unitune_local.training import checkpoint
from unitune_local.training.checkpoint import Position
from unitune_local.training.optimizers import Optimizers, optimizer_of
from unitune_local.training.selection import Evaluations
from unitune_local.training.stepping import Record, check_finite, run_steps

Cut = Callable[[Sequence[TrainingRow]], list[list[TrainingRow]]]  # cuts rows into micro-batches

# Saves the last whole step and blocks every other; any thread may call it at any time
Save = Callable[[], None]


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """Dependencies of the training loop."""

    checkpoints: Path  # the training continues from the newest one in this folder
    note: Note  # records events in the first rank; other ranks drop theirs
    stop: Callable[[], bool]  # called after every step in the first rank; returns whether to stop
    # Returns the score of the validation rows' answers, if it decides anything
    score: Callable[[PeftModel], float] | None = None
    grader: RewardGrader | None = None  # grades sampled answers, if any
    ranks: Ranks = ALONE
    # Called with the function that saves the last whole step
    rescue: Callable[[Save], None] = lambda _save: None


def train(
    model: PeftModel,
    rows: Sequence[TrainingRow],
    validation: Sequence[TrainingRow],
    settings: Settings,
    context: TrainingContext,
) -> bool:
    """Train adapters in place, up to the step that is kept; return False if stopped.

    Raises:
        RunFailed: Loss or gradient is not a finite number; the last checkpoint is good.
    """
    ranks, note = context.ranks, context.note if context.ranks.is_first else drop_note
    form = choose_form(model, rows, settings)
    note("warning" if form.reason else "message", {"text": _described(form, settings)})
    cut = partial(micro_batches, most_tokens=settings.micro_batch_tokens, share=form.share)
    ahead = ReferencePass(
        pairs_by(model, form), context.checkpoints / REFERENCE_FILE, context.stop, ranks, note
    )
    if (ready := _referenced(ahead, rows, validation, settings, cut)) is None:
        return False
    rows, validation = ready
    objective = _objective(model, form, settings, context)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = optimizer_of(model, settings)
    measure = partial(_measured, model, objective, validation, cut, context)
    evaluations = Evaluations(measure if validation else None, settings, len(rows), note)
    saver = checkpoint.Saver(context.checkpoints, weights, optimizer, settings.keep_checkpoints)
    context.rescue(saver.save_and_stop)
    machine = _Here(objective, optimizer, saver, evaluations, weights, cut, settings, context, note)
    model.train()
    return run_steps(
        machine, Batches(rows, settings.batch_size, settings.seed), evaluations, settings, note
    )


@dataclass(slots=True)
class _Here:
    """Machine of this process, or of this rank."""

    objective: Objective
    optimizer: Optimizers
    saver: checkpoint.Saver
    evaluations: Evaluations
    weights: dict[str, nn.Parameter]
    cut: Cut
    settings: Settings
    context: TrainingContext
    note: Note
    saved_at: float = field(default_factory=time.monotonic)

    def restore(self) -> Position | None:
        ranks, folder, note = self.context.ranks, self.saver.folder, self.note
        saved = checkpoint.latest(folder)
        steps = ranks.gather(saved.position.step if saved else 0)
        if len({*steps}) > 1:
            raise RunFailed(
                f"the processes of this training see different checkpoints in {folder}: "
                f"those of the steps {steps}. Use a folder that all of them share."
            )
        if ranks.is_first and (damaged := checkpoint.remove_damaged(folder, steps[0])):
            names = ", ".join(f"step-{number}" for number in damaged)
            again = f"steps {steps[0] + 1} to {damaged[-1]} are repeated"
            what = f"damaged checkpoints removed from {folder}: {names}; {again}"
            note("warning", {"text": what})
        if saved is None:
            return None
        self.saver.restore(saved)
        return saved.position

    def step(self, step: int, rows: Sequence[TrainingRow], rate: float, record: Record) -> None:
        settings, optimizer, ranks = self.settings, self.optimizer, self.context.ranks
        # Random numbers of dropout and noise depend on step and rank only, also after a resume.
        cast("Any", torch).manual_seed(seed_of(settings.seed, step, ranks.rank))
        prepared = self.objective.prepare(rows, step)
        optimizer.set_rate(rate)
        with ExitStack() as changes:
            changing = self.saver.changing(step, self.evaluations.selection)
            several = settings.reward is not None and settings.reward.updates > 1
            if several:  # weights between two updates belong to no step
                changes.enter_context(changing)
            mean = _updated(self.objective, prepared, self.cut, ranks, optimizer, settings=settings)
            norm = optimizer.clip_gradients(settings.max_grad_norm)
            if not optimizer.may_skip(norm):
                check_finite(step, mean.loss, norm, rate, prepared.rows)
            # A step whose event cannot be written is not saved either, and is repeated.
            if not several:
                changes.enter_context(changing)
            optimizer.step()
            record(prepared, {**mean.figures, "learning_rate": rate, **_norm_figure(norm)})

    def move(self, position: Position) -> None:
        self.saver.move(position)

    def stops(self) -> bool:
        return self.context.ranks.first(self.context.stop)

    def is_due(self, step: int, *, epoch_ended: bool) -> bool:
        every = self.settings.checkpoint_every_steps
        if every is not None:
            return step % every == 0
        return epoch_ended or time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds

    def save(self, step: int) -> None:
        if self.context.ranks.is_first:
            self.saver.save()
            self.note("checkpoint", {"step": step})
            self.saved_at = time.monotonic()

    def keep(self, kept: int, step: int) -> None:
        if self.context.ranks.is_first and kept != step:
            checkpoint.restore_weights(self.saver.folder, kept, self.weights)


def _measured(
    model: PeftModel,
    objective: Objective,
    rows: Sequence[TrainingRow],
    cut: Cut,
    context: TrainingContext,
) -> dict[str, float]:
    figures = validation_figures(model, objective, rows, cut, context.ranks)
    return figures if context.score is None else {**figures, "score": context.score(model)}


def _updated(  # noqa: PLR0913 - what an update depends on
    objective: Objective,
    prepared: StepRows,
    cut: Cut,
    ranks: Ranks,
    optimizer: Optimizers,
    *,
    settings: Settings,
) -> Mean:
    """Make the updates of a step before its last one, and add the last one's gradients."""
    for _ in range(1, settings.reward.updates if settings.reward else 1):
        _add_gradients(objective, prepared, cut, ranks, optimizer)
        optimizer.clip_gradients(settings.max_grad_norm)
        optimizer.step()
    return _add_gradients(objective, prepared, cut, ranks, optimizer)


def _add_gradients(
    objective: Objective,
    prepared: StepRows,
    cut: Cut,
    ranks: Ranks,
    optimizer: Optimizers,
) -> Mean:
    mean = Mean(prepared.weight, objective.figure)
    with _noticing_memory(prepared.rows, cut):
        for part_loss in _own_losses(objective, prepared.rows, cut, ranks):
            torch.autograd.backward(optimizer.scaler.scale(mean.add(part_loss)))
    if prepared.rows:
        ranks.add_gradients(optimizer.weights)
    mean.figures = ranks.total(mean.figures)
    return mean


@contextmanager
def _noticing_memory(rows: Sequence[TrainingRow], cut: Cut) -> Generator[None]:
    """Report the micro-batch that ran out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not machine.is_out_of_memory(error):
            raise
        # With a shared prefix, so that half the limit is less even where none is shared.
        sizes = [(computed_tokens(part, share=True), len(part)) for part in cut(rows)]
        raise OutOfMemory(*max(sizes), error) from error


def _own_losses(
    objective: Objective, rows: Sequence[TrainingRow], cut: Cut, ranks: Ranks
) -> Iterator[PartLoss]:
    """Yield the sums of this rank's micro-batches of a step.

    Where ranks compute together, a rank with fewer micro-batches computes rows of weight 0 instead.
    """
    parts = cut(ranks.share(rows))
    idle: list[list[TrainingRow]] = []
    if ranks.computes_together and rows:
        shortest = min(rows, key=lambda row: len(row.ids))
        most = max(len(cut(share)) for share in ranks.shares(rows))
        idle = [[replace(shortest, weight=0.0)]] * (most - len(parts))
    for number, made in enumerate(objective.losses([*parts, *idle])):
        yield made if number < len(parts) else PartLoss(0 * made.loss, {})


def _referenced(
    ahead: ReferencePass,
    rows: Sequence[TrainingRow],
    validation: Sequence[TrainingRow],
    settings: Settings,
    cut: Cut,
) -> tuple[Sequence[TrainingRow], Sequence[TrainingRow]] | None:
    if settings.preference is None or not settings.preference.needs_reference:
        return rows, validation
    batches = Batches(rows, settings.batch_size, settings.seed)
    epoch = range(1, settings.epoch_steps(len(rows)) + 1)
    steps = [*map(batches.of, epoch), by_length(validation)]
    shares = zip(*map(ahead.ranks.shares, steps), strict=True)  # each rank's rows of a step
    parts = [[part for rows in share for part in cut(rows)] for share in shares]
    with _noticing_memory(rows, cut):
        made = ahead.run(list(zip_longest(*parts, fillvalue=())))
    if made is None:
        return None
    return [made[row] for row in rows], [made[row] for row in validation]


def _objective(
    model: PeftModel, form: Form, settings: Settings, context: TrainingContext
) -> Objective:
    if settings.reward is None:
        return objective_of(model, form, settings.preference, context.ranks)
    assert context.grader is not None, "sampled answers are graded"
    generate = partial(generate_in_training, model, context.grader.tokenizer)
    rollouts = Rollouts(
        generate,
        context.grader,
        settings.reward,
        settings.seed,
        settings.sequence_length,
        context.ranks,
    )
    return RewardLoss(rollouts, model, form)


def by_length(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Return rows in the order of a validation."""
    return sorted(rows, key=lambda row: len(row.ids))


def validation_figures(
    model: PeftModel,
    objective: Objective,
    rows: Sequence[TrainingRow],
    cut: Cut,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Return the mean loss of rows, and the other figures."""
    if isinstance(objective, RewardLoss):
        return objective.validate(rows)
    was_training = model.training
    model.eval()
    mean = Mean(objective.prepare(rows, 0).weight, objective.figure)
    with torch.no_grad(), _noticing_memory(rows, cut):
        for part_loss in _own_losses(objective, by_length(rows), cut, ranks):
            mean.add(part_loss)
    model.train(was_training)
    return ranks.total(mean.figures)


class Mean:
    """Means of figures over micro-batches."""

    def __init__(self, weight: float, figure: str) -> None:
        self._weight = weight
        self._figure = figure
        self.figures: dict[str, float] = {}

    @property
    def loss(self) -> float:
        """Mean loss so far; 0 if nothing was trained on."""
        return self.figures.get(self._figure, 0.0)

    def add(self, part: PartLoss) -> Tensor:
        """Add a micro-batch, and return its share of the mean loss, with its gradient."""
        loss = part.loss / self._weight
        shares = {name: value / self._weight for name, value in part.figures.items()}
        for name, share in {self._figure: loss.item(), **shares}.items():
            self.figures[name] = self.figures.get(name, 0.0) + share
        return loss


def _described(form: Form, settings: Settings) -> str:
    if form.kind == "padded":
        return f"rows are padded, as this model does not support packed rows: {form.reason}"
    if settings.dropout > 0 or settings.neftune_noise_alpha:
        why = "dropout" if settings.dropout > 0 else "noise on the embeddings"
        return f"a shared prefix is computed for each row, because of {why}"
    return "a shared prefix is computed once" if form.share else "no shared prefix, as requested"


def _norm_figure(norm: float) -> dict[str, float]:
    return {"grad_norm": norm} if math.isfinite(norm) else {"skipped": 1.0}
