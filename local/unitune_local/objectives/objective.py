"""What a training minimises: the loss of a micro-batch as a sum, and what the sum is divided by.

The caller divides by the weights of the whole optimiser step, so that cutting a step into
micro-batches changes nothing. A method is one class here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, TypeAlias, cast

import torch
from peft import PeftModel
from torch import Tensor

from unitune_local.data.batches import TrainingRow
from unitune_local.objectives.loss import Form, loss_sum
from unitune_local.objectives.preference import Answers, answers, pair_losses, rated_losses
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.settings import PreferenceSettings

# The micro-batches of a step, or of a validation
Parts: TypeAlias = Sequence[Sequence[TrainingRow]]


class PartLoss(NamedTuple):
    """A micro-batch's weighted sums."""

    loss: Tensor  # A scalar with its gradient
    figures: dict[str, float]


class StepRows(NamedTuple):
    """What an optimiser step learns from."""

    rows: Sequence[TrainingRow]
    weight: float  # what their sums are divided by
    tokens: int  # of all conversations, whole
    figures: dict[str, float]  # what is known of the step before its loss, by name


class Objective(Protocol):
    """What is minimised."""

    figure: ClassVar[str]
    """What events call its value."""

    def prepare(self, rows: Sequence[TrainingRow], step: int) -> StepRows:
        """Return what a step learns from its rows of the data."""
        ...

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the sums of each micro-batch; the gradient of one is taken before the next."""
        ...


class _RowsLoss:
    """What losses of the rows as they are have in common."""

    figure: ClassVar[str] = "loss"

    def prepare(self, rows: Sequence[TrainingRow], step: int) -> StepRows:
        """Return the rows as they are."""
        del step
        return StepRows(rows, self.weight(rows), sum(len(row.ids) for row in rows), {})

    def weight(self, rows: Sequence[TrainingRow]) -> float:
        """Return what the sums of rows are divided by: their weights."""
        return sum(row.weight for row in rows)


@dataclass(frozen=True, slots=True)
class CrossEntropy(_RowsLoss):
    """The loss of trained tokens: sft."""

    model: PeftModel
    form: Form

    def weight(self, rows: Sequence[TrainingRow]) -> float:
        """Return the weights of trained tokens."""
        return sum(row.weight * row.trained_tokens for row in rows)

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the weighted loss of all trained tokens."""
        device = cast("torch.device", self.model.device)
        for rows in parts:
            yield PartLoss(loss_sum(self.model, self.form.batch(rows, device)), {})


@dataclass(frozen=True, slots=True)
class _AnswerLoss(_RowsLoss):
    """What losses of answers have in common."""

    model: PeftModel
    form: Form
    settings: PreferenceSettings
    ranks: Ranks = ALONE


class PreferenceLoss(_AnswerLoss):
    """The loss of pairs of answers: dpo and its kin."""

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the weighted loss of all pairs, and how the better answers fare.

        accuracy: how often the better answer is rewarded more; a tie counts one half. margin: by
        how much.
        """
        for rows in parts:
            policy = answers(self.model, self.form, rows)
            reference = _reference(rows, policy)
            losses = pair_losses(policy, reference, self.settings)
            margins = self._margins(policy, reference).detach()
            yield _weighted(rows, losses, {"accuracy": _won(margins), "margin": margins})

    def _margins(self, policy: Answers, reference: Tensor) -> Tensor:
        """Return by how much each better answer is rewarded more than the worse one.

        The reward is beta times the gain on the base model, or, without one, times the mean.
        """
        gains = policy.sums - reference if self.settings.needs_reference else policy.means
        return self.settings.beta * (gains[:, 0] - gains[:, 1])  # (B,)


class RatedLoss(_AnswerLoss):
    """The loss of rated answers: kto. The second answer of a row is another row's."""

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the weighted loss of all answers, and whether they are on the right side.

        accuracy: how often a good answer has gained more than answers to other prompts have, and a
        bad one less. shift: what those have gained, over the whole step, so that cutting it into
        micro-batches, or spreading it over ranks, changes nothing.
        """
        shift = self._shift(parts)
        for rows in parts:
            policy = answers(self.model, self.form, rows)
            gains = (policy.sums - _reference(rows, policy))[:, 0]
            is_good = torch.tensor([bool(row.is_good) for row in rows], device=gains.device)
            losses = rated_losses(gains, is_good, shift, self.settings.beta)
            ahead = torch.where(is_good, 1.0, -1.0) * (gains.detach() - shift)
            shifts = torch.full_like(ahead, shift)
            yield _weighted(rows, losses, {"accuracy": _won(ahead), "shift": shifts})

    def _shift(self, parts: Parts) -> float:
        """Return what answers to other prompts have gained in the mean, at least 0."""
        total, count = 0.0, 0
        with torch.no_grad():
            for rows in parts:
                policy = answers(self.model, self.form, rows)
                counts = [row.weight > 0 for row in rows]  # a row without weight is an idle rank's
                total += (policy.sums - _reference(rows, policy))[counts, 1].sum().item()
                count += sum(counts)
        sums = self.ranks.total({"gain": total, "answers": count})
        return max(0.0, sums["gain"] / sums["answers"])


def objective_of(
    model: PeftModel, form: Form, preference: PreferenceSettings | None, ranks: Ranks = ALONE
) -> Objective:
    """Return what a training minimises by its settings."""
    if preference is None:
        return CrossEntropy(model, form)
    kind = RatedLoss if preference.loss == "kto" else PreferenceLoss
    return kind(model, form, preference, ranks)


def _reference(rows: Sequence[TrainingRow], policy: Answers) -> Tensor:
    pairs = [row.reference or (0.0, 0.0) for row in rows]
    return torch.tensor(pairs, device=policy.sums.device)  # (B, 2)


def _won(leads: Tensor) -> Tensor:
    """Return 1 for a lead, 0 for a lag, and one half for a tie."""
    return (leads > 0) + 0.5 * (leads == 0)


def _weighted(rows: Sequence[TrainingRow], losses: Tensor, figures: dict[str, Tensor]) -> PartLoss:
    weights = torch.tensor([row.weight for row in rows], device=losses.device)
    sums = {name: (value * weights).sum().item() for name, value in figures.items()}
    return PartLoss((losses * weights).sum(), sums)
