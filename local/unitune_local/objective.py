"""What a training minimises: the loss of a micro-batch as a sum, and what the sum is divided by.

The caller divides by the weights of the whole optimiser step, so that cutting a step into
micro-batches changes nothing. A method is one class here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from peft import PeftModel
from torch import Tensor

from unitune_local.batches import TrainingRow
from unitune_local.loss import Form, loss_sum
from unitune_local.preference import Answers, answers, pair_losses
from unitune_local.settings import PreferenceSettings


@dataclass(frozen=True, slots=True)
class PartLoss:
    """A micro-batch's weighted sums.

    Args:
        loss: A scalar with its gradient.
        figures: Other figures by name.
    """

    loss: Tensor
    figures: dict[str, float]


class Objective(Protocol):
    """What is minimised."""

    def weight(self, rows: Sequence[TrainingRow]) -> float:
        """Return what the sums of rows are divided by."""
        ...

    def part_loss(self, rows: Sequence[TrainingRow]) -> PartLoss:
        """Return the sums of a micro-batch."""
        ...


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """The loss of trained tokens: sft."""

    model: PeftModel
    form: Form

    def weight(self, rows: Sequence[TrainingRow]) -> float:
        """Return the weights of trained tokens."""
        return sum(row.weight * row.trained_tokens for row in rows)

    def part_loss(self, rows: Sequence[TrainingRow]) -> PartLoss:
        """Return the weighted loss of all trained tokens."""
        device = cast("torch.device", self.model.device)
        return PartLoss(loss_sum(self.model, self.form.batch(rows, device)), {})


@dataclass(frozen=True, slots=True)
class PreferenceLoss:
    """The loss of pairs of answers: dpo and its kin."""

    model: PeftModel
    form: Form
    settings: PreferenceSettings

    def weight(self, rows: Sequence[TrainingRow]) -> float:
        """Return the weights of rows."""
        return sum(row.weight for row in rows)

    def part_loss(self, rows: Sequence[TrainingRow]) -> PartLoss:
        """Return the weighted loss of all pairs, and how the better answers fare.

        accuracy: how often the better answer is rewarded more; a tie counts one half. margin: by
        how much.
        """
        policy = answers(self.model, self.form, rows)
        device = policy.sums.device
        reference = torch.tensor([row.reference or (0.0, 0.0) for row in rows], device=device)
        weights = torch.tensor([row.weight for row in rows], device=device)
        loss = (pair_losses(policy, reference, self.settings) * weights).sum()
        with torch.no_grad():
            margins = self._margins(policy, reference)
            right = (margins > 0) + 0.5 * (margins == 0)
            figures = {"accuracy": right, "margin": margins}
        sums = {name: (value * weights).sum().item() for name, value in figures.items()}
        return PartLoss(loss, sums)

    def _margins(self, policy: Answers, reference: Tensor) -> Tensor:
        """Return by how much each better answer is rewarded more than the worse one.

        The reward is beta times the gain on the base model, or, without one, times the mean.
        """
        gains = policy.sums - reference if self.settings.needs_reference else policy.means
        return self.settings.beta * (gains[:, 0] - gains[:, 1])  # (B,)


def objective_of(
    model: PeftModel, form: Form, preference: PreferenceSettings | None
) -> CrossEntropy | PreferenceLoss:
    """Return what a training minimises by its settings."""
    return PreferenceLoss(model, form, preference) if preference else CrossEntropy(model, form)
