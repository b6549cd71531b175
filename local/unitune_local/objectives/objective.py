"""Define the objectives of trainings: weighted sums over micro-batches, and their divisors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple, Protocol, TypeAlias, cast

import torch
from peft import PeftModel
from torch import Tensor

from unitune_local.data.batches import TrainingRow
from unitune_local.objectives.loss import Form, loss_sum
from unitune_local.objectives.preference import Answers, answers, pair_losses, rated_losses
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.settings import PreferenceSettings

# Micro-batches of a step, or of a validation
Parts: TypeAlias = Sequence[Sequence[TrainingRow]]


class PartLoss(NamedTuple):
    """Weighted sums of a micro-batch."""

    loss: Tensor  # scalar with its gradient
    figures: dict[str, float]


class StepRows(NamedTuple):
    """Rows that an optimiser step learns from."""

    rows: Sequence[TrainingRow]
    weight: float  # divisor of their sums
    tokens: int  # of all conversations, including prompts
    figures: dict[str, float]  # figures known before the loss, by name


class Objective(Protocol):
    """Quantity that a training minimises."""

    figure: ClassVar[str]
    """Name of its value in events."""

    def prepare(self, rows: Sequence[TrainingRow], step: int) -> StepRows:
        """Return what a step learns from its rows of the data."""
        ...

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the sums of each micro-batch; the gradient of one is taken before the next."""
        ...


class _RowsLoss:
    figure: ClassVar[str] = "loss"

    def prepare(self, rows: Sequence[TrainingRow], step: int) -> StepRows:
        """Return the rows unchanged."""
        del step
        return StepRows(rows, self.weight(rows), sum(len(row.ids) for row in rows), {})

    def weight(self, rows: Sequence[TrainingRow]) -> float:
        """Return the divisor of the sums of rows: their weights."""
        return sum(row.weight for row in rows)


@dataclass(frozen=True, slots=True)
class CrossEntropy(_RowsLoss):
    """Loss of trained tokens (sft)."""

    measure: Callable[[Sequence[TrainingRow]], Tensor]  # returns the weighted sum of rows' losses

    def weight(self, rows: Sequence[TrainingRow]) -> float:
        """Return the weights of trained tokens."""
        return sum(row.weight * row.trained_tokens for row in rows)

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the weighted loss of all trained tokens."""
        for rows in parts:
            yield PartLoss(self.measure(rows), {})


@dataclass(frozen=True, slots=True)
class _AnswerLoss(_RowsLoss):
    measure: Callable[[Sequence[TrainingRow]], Answers]  # returns log-probabilities of answers
    settings: PreferenceSettings
    ranks: Ranks = ALONE


class PreferenceLoss(_AnswerLoss):
    """Loss of pairs of answers (dpo and similar methods)."""

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the weighted loss of all pairs, and figures of the better answers.

        accuracy: how often the better answer has the higher reward; a tie counts one half. margin:
        by how much.
        """
        for rows in parts:
            policy = self.measure(rows)
            reference = _reference(rows, policy)
            losses = pair_losses(policy, reference, self.settings)
            # By the gain on the base, or the mean
            rewards = policy.sums - reference if self.settings.needs_reference else policy.means
            margins = self.settings.beta * (rewards[:, 0] - rewards[:, 1]).detach()  # (B,)
            yield _weighted(rows, losses, {"accuracy": _won(margins), "margin": margins})


class RatedLoss(_AnswerLoss):
    """Loss of rated answers (kto). The second answer of a row is another row's."""

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the weighted loss of all answers, and their figures.

        accuracy: how often a good answer has gained more than answers to other prompts, or a bad
        one less. shift: the mean gain of those over the whole step and all ranks.
        """
        shift = self._shift(parts)
        for rows in parts:
            policy = self.measure(rows)
            gains = (policy.sums - _reference(rows, policy))[:, 0]
            is_good = torch.tensor([bool(row.is_good) for row in rows], device=gains.device)
            losses = rated_losses(gains, is_good, shift, self.settings.beta)
            ahead = torch.where(is_good, 1.0, -1.0) * (gains.detach() - shift)
            shifts = torch.full_like(ahead, shift)
            yield _weighted(rows, losses, {"accuracy": _won(ahead), "shift": shifts})

    def _shift(self, parts: Parts) -> float:
        """Return the mean gain of answers to other prompts, at least 0."""
        total, count = 0.0, 0
        with torch.no_grad():
            for rows in parts:
                policy = self.measure(rows)
                counts = [row.weight > 0 for row in rows]  # a row without weight is an idle rank's
                total += (policy.sums - _reference(rows, policy))[counts, 1].sum().item()
                count += sum(counts)
        sums = self.ranks.total({"gain": total, "answers": count})
        return max(0.0, sums["gain"] / sums["answers"])


def objective_of(
    model: PeftModel, form: Form, preference: PreferenceSettings | None, ranks: Ranks = ALONE
) -> Objective:
    """Return the objective of a training."""
    if preference is None:
        device = cast("torch.device", model.device)
        return CrossEntropy(lambda rows: loss_sum(model, form.batch(rows, device)))
    return preference_loss(partial(answers, model, form), preference, ranks)


def preference_loss(
    measure: Callable[[Sequence[TrainingRow]], Answers],
    settings: PreferenceSettings,
    ranks: Ranks = ALONE,
) -> PreferenceLoss | RatedLoss:
    """Return the loss on pairs or rated answers, whose log-probabilities a function returns."""
    kind = RatedLoss if settings.loss == "kto" else PreferenceLoss
    return kind(measure, settings, ranks)


def _reference(rows: Sequence[TrainingRow], policy: Answers) -> Tensor:
    pairs = [row.reference or (0.0, 0.0) for row in rows]
    return torch.tensor(pairs, device=policy.sums.device)  # (B, 2)


def _won(leads: Tensor) -> Tensor:
    return (leads > 0) + 0.5 * (leads == 0)


def _weighted(rows: Sequence[TrainingRow], losses: Tensor, figures: dict[str, Tensor]) -> PartLoss:
    weights = torch.tensor([row.weight for row in rows], device=losses.device)
    sums = {name: (value * weights).sum().item() for name, value in figures.items()}
    return PartLoss((losses * weights).sum(), sums)
