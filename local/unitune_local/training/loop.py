"""Run the training loop.

Settings and step number determine everything about a step, including its random numbers, so a
training that was killed continues from a checkpoint with the same losses.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from pydantic import JsonValue
from torch import Tensor

from unitune.errors import RunFailed
from unitune_local import machine
from unitune_local.data.batches import Batches, TrainingRow, computed_tokens, micro_batches
from unitune_local.grading import RewardGrader
from unitune_local.job_folder import REFERENCE_FILE, Note, drop_note
from unitune_local.objectives.loss import Form, form_of
from unitune_local.objectives.objective import Objective, PartLoss, StepRows, objective_of
from unitune_local.objectives.preference import ReferencePass
from unitune_local.objectives.reward import RewardLoss
from unitune_local.objectives.rollout import Rollouts, seed_of
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.settings import Settings
from unitune_local.training import checkpoint
from unitune_local.training.checkpoint import Position
from unitune_local.training.optimizers import Optimizers, optimizer_of, scheduled_rate
from unitune_local.training.rescue import OutOfMemory
from unitune_local.training.selection import Evaluations

# Enough to even out rows of different length, few enough to follow a machine that others use
THROUGHPUT_STEPS = 10

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


def train(  # noqa: PLR0915 - a training from its beginning to its end
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
    form = form_of(model, rows, settings)
    note("warning" if form.reason else "message", {"text": _described(form, settings)})
    cut = partial(micro_batches, most_tokens=settings.micro_batch_tokens, share=form.share)
    ahead = ReferencePass(
        model, form, context.checkpoints / REFERENCE_FILE, context.stop, ranks, note
    )
    if (ready := _referenced(ahead, rows, validation, settings, cut)) is None:
        return False
    rows, validation = ready
    objective = _objective(model, form, settings, context)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = optimizer_of(model, settings)
    batches = Batches(rows, settings.batch_size, settings.seed)
    steps_per_epoch, steps = settings.epoch_steps(len(rows)), settings.steps(len(rows))

    measure = partial(_measured, model, objective, validation, cut, context)
    evaluations = Evaluations(measure if validation else None, settings, len(rows), note)
    saver = checkpoint.Saver(context.checkpoints, weights, optimizer, settings.keep_checkpoints)
    context.rescue(saver.save_and_stop)
    if (step := _restore(saver, ranks, evaluations, note)) == 0:
        evaluations.before()
    throughput = Throughput(steps - step)
    saved_at = time.monotonic()

    model.train()
    while not evaluations.ends(step):
        step += 1
        # Random numbers of dropout and noise depend on step and rank only, also after a resume.
        cast("Any", torch).manual_seed(seed_of(settings.seed, step, ranks.rank))
        prepared = objective.prepare(batches.of(step), step)
        optimizer.set_rate(learning_rate := scheduled_rate(step, steps, settings))

        with ExitStack() as changes:
            changing = saver.changing(step, evaluations.selection)
            several = settings.reward is not None and settings.reward.updates > 1
            if several:  # weights between two updates belong to no step
                changes.enter_context(changing)
            mean = _updated(objective, prepared, cut, ranks, optimizer, settings=settings)
            norm = optimizer.clip_gradients(settings.max_grad_norm)
            if not optimizer.may_skip(norm):
                _check_finite(step, mean.loss, norm, learning_rate, prepared.rows)
            figures = {**mean.figures, "learning_rate": learning_rate, **_norm_figure(norm)}
            figures |= throughput.after(prepared.tokens)
            # A step whose event cannot be written is not saved either, and is repeated.
            if not several:
                changes.enter_context(changing)
            optimizer.step()
            at = {"step": step, "steps": steps, "epoch": step / steps_per_epoch}
            note("step", {**at, **_counts(prepared), **figures})
        _evaluate(step, evaluations, saver)
        stopping = not evaluations.ends(step) and ranks.first(context.stop)
        due = (
            stopping
            or evaluations.wants_checkpoint(step)
            or _checkpoint_due(step, saved_at, settings, step % steps_per_epoch == 0)
        )
        if due and ranks.is_first:
            saver.save()
            note("checkpoint", {"step": step})
            saved_at = time.monotonic()
        if stopping:
            return False
    if ranks.is_first and (kept := evaluations.kept(step)) != step:
        checkpoint.restore_weights(context.checkpoints, kept, weights)
    evaluations.conclude(step)
    return True


def _measured(
    model: PeftModel,
    objective: Objective,
    rows: Sequence[TrainingRow],
    cut: Cut,
    context: TrainingContext,
) -> dict[str, float]:
    figures = validation_figures(model, objective, rows, cut, context.ranks)
    return figures if context.score is None else {**figures, "score": context.score(model)}


def _counts(prepared: StepRows) -> dict[str, JsonValue]:
    trained = sum(row.trained_tokens for row in prepared.rows)
    return {**prepared.figures, "tokens": prepared.tokens, "trained_tokens": trained}


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


def _evaluate(step: int, evaluations: Evaluations, saver: checkpoint.Saver) -> None:
    evaluations.after(step)
    saver.move(Position(step=step, selection=evaluations.selection))


def _restore(saver: checkpoint.Saver, ranks: Ranks, evaluations: Evaluations, note: Note) -> int:
    folder = saver.folder
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
        note("warning", {"text": f"damaged checkpoints removed from {folder}: {names}; {again}"})
    if saved is not None:
        saver.restore(saved)
        evaluations.selection = saved.position.selection
        note("message", {"text": f"resuming at step {steps[0]}/{evaluations.steps}"})
        if not saved.position.evaluated:
            _evaluate(steps[0], evaluations, saver)
            if ranks.is_first:
                saver.save()
    return steps[0]


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
    seed, longest = settings.seed, settings.sequence_length
    return RewardLoss(
        Rollouts(model, form, context.grader, settings.reward, seed, longest, context.ranks)
    )


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


class Throughput:
    """Speed of the training over the last steps of this process."""

    def __init__(self, steps_left: int) -> None:
        self._left = steps_left
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
        return f"rows are padded, as this model does not support packed rows: {form.reason}"
    if settings.dropout > 0 or settings.neftune_noise_alpha:
        why = "dropout" if settings.dropout > 0 else "noise on the embeddings"
        return f"a shared prefix is computed for each row, because of {why}"
    return "a shared prefix is computed once" if form.share else "no shared prefix, as requested"


def _norm_figure(norm: float) -> dict[str, float]:
    return {"grad_norm": norm} if math.isfinite(norm) else {"skipped": 1.0}


def _check_finite(
    step: int, loss: float, norm: float, learning_rate: float, rows: Sequence[TrainingRow]
) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    lines = ", ".join(str(row.line) for row in sorted(rows, key=lambda row: row.line))
    raise RunFailed(
        f"step {step} has loss {loss} and gradient norm {norm} at learning rate "
        f"{learning_rate:.2g}, on the training rows of lines {lines}. These weights were not "
        "saved. Lower tuning.learning_rate, or check these rows."
    )
