"""Learning from rewards: what a sampled answer earns above its group makes it likelier (rft).

Of each prompt a group of answers is sampled from the model as it stands. An answer's advantage is
its reward less the mean of its group's, and a step's loss is

    -(sum over answers of advantage · log-probability) / (tokens of all answers)

This is GRPO (Shao et al. 2024, arXiv 2402.03300, section 4.1) with one update for each batch: the
ratio of new to old probabilities is 1 wherever the gradient is taken, so there is nothing to clip,
and the gradient of the ratio is that of the log-probability: REINFORCE with the group's mean as its
baseline. Two divisions of GRPO's are left out because they bias what is learnt (Liu et al. 2025,
"Dr. GRPO", arXiv 2503.20783, section 3.1): by the group's standard deviation, which gives most
weight to prompts that are answered right nearly always or never, and by each answer's own length,
which makes long wrong answers cheap. The one divisor, as DAPO's (Yu et al. 2025, arXiv 2503.14476),
is the same for all answers of a step, so the gradient is the expected reward's but for scale.

With `kl`, each token adds that many times e^(r - p) - (r - p) - 1, an estimate of the divergence
from the model that the training began with (Schulman 2020, "Approximating KL divergence", k3; r and
p are the token's log-probabilities by that model and by the one in training). Here the ratio does
count: without it the gradient would be another one's (DeepSeek-V3.2, arXiv 2512.02556).

A group whose answers all earn the same has no advantage, and teaches nothing. Without `kl` such
answers are not computed again, and equal answers of a group are computed once: the sum is the same.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from unitune.errors import RunFailed
from unitune.findings import clip
from unitune_local.data.batches import TrainingRow
from unitune_local.objectives.loss import token_losses
from unitune_local.objectives.objective import PartLoss, Parts, StepRows
from unitune_local.objectives.rollout import Rollouts, Sample

FIRST_GROUPS = 40
"""Groups without signal at the very beginning after which a training ends. Of groups of 8, that are
320 answers alike: fewer than one in a hundred is another then (3 / 320, the rule of three)."""


def advantages(rewards: Tensor) -> Tensor:
    """Return what each answer earns above the mean of its group.

    Args:
        rewards: A row for each group (B, K); NaN for an answer that could not be scored, which
            counts in no mean and has no advantage.
    """
    above = rewards - rewards.nanmean(dim=1, keepdim=True)
    return torch.where(has_signal(rewards)[:, None], above, 0.0).nan_to_num(0.0)  # (B, K)


def has_signal(rewards: Tensor) -> Tensor:
    """Return whether a group has two different rewards (B,); of NaN as in `advantages`."""
    most = rewards.nan_to_num(-math.inf).amax(dim=1)
    return most > rewards.nan_to_num(math.inf).amin(dim=1)


def kl_estimate(losses: Tensor, reference: Tensor) -> Tensor:
    """Return k3 of each token, from its losses by the model and by the base (N,).

    It is multiplied by the ratio of new to old probability: 1, with a gradient that makes the
    gradient of the estimate the divergence's.
    """
    gap = losses - reference
    return (losses.detach() - losses).exp() * (gap.exp() - gap - 1)


@dataclass(slots=True)
class RewardLoss:
    """The loss of sampled answers: rft."""

    figure: ClassVar[str] = "policy_loss"
    rollouts: Rollouts
    """Of a model that is as the training begins."""
    _first: list[tuple[nn.Parameter, Tensor]] = field(
        default_factory=list[tuple[nn.Parameter, Tensor]], init=False
    )
    """The adapters' weights, each with a copy of what it was at first."""
    _silent: list[Sample] | None = field(default=None, init=False)
    """The answers since the first step, as long as no group among them has had a signal."""

    def __post_init__(self) -> None:
        """Keep the model as it is, where it is to stay near that."""
        if self.rollouts.settings.kl:
            weights = self.rollouts.model.parameters()
            self._first = [(each, each.detach().clone()) for each in weights if each.requires_grad]

    def prepare(self, rows: Sequence[TrainingRow], step: int) -> StepRows:
        """Sample and score answers to a step's prompts.

        Raises:
            RunFailed: No answer could be scored, or none of the first groups has a signal.
        """
        groups = self.rollouts.groups(rows, step)
        rewards = torch.tensor(
            [[sample.reward for sample in group] for group in groups], dtype=torch.float64
        )  # (B, K)
        self._require_signal(groups, has_signal(rewards), step)
        gains = cast("list[list[float]]", advantages(rewards).tolist())  # pyright: ignore[reportUnknownMemberType]
        learnt = chain.from_iterable(map(self._learnt, rows, groups, gains))
        samples = list(chain.from_iterable(groups))
        answered = sum(len(sample.ids) for sample in samples)
        prompts = sum(len(row.ids) * len(group) for row, group in zip(rows, groups, strict=True))
        no_signal = 1 - has_signal(rewards).double().mean().item()
        figures = {**_figures(samples), "no_signal": no_signal}
        return StepRows(list(learnt), answered, prompts + answered, figures)

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the loss of each micro-batch; kl: the estimate of its answers' divergence."""
        model, settings = self.rollouts.model, self.rollouts.settings
        for rows in parts:
            batch = self.rollouts.form.batch(rows, cast("torch.device", model.device))
            if not settings.kl:
                losses = token_losses(model, batch, settings.temperature)  # (N,)
                yield PartLoss((losses * batch.weights).sum(), {})
                continue
            with torch.no_grad(), self._at_first():
                reference = token_losses(model, batch, settings.temperature)
            losses = token_losses(model, batch, settings.temperature)  # (N,)
            estimate = kl_estimate(losses, reference).sum()
            loss = (losses * batch.weights).sum() + settings.kl * estimate
            yield PartLoss(loss, {"kl": estimate.item()})

    def validate(self, rows: Sequence[TrainingRow]) -> dict[str, float]:
        """Return what the likeliest answers earn in the mean."""
        return _figures(self.rollouts.greedy(rows))

    @contextmanager
    def _at_first(self) -> Generator[None]:
        """Let the model be as it was before the first step; no graph may be alive."""
        now = [weight.data for weight, _ in self._first]
        for weight, first in self._first:
            weight.data = first
        try:
            yield
        finally:
            for (weight, _), data in zip(self._first, now, strict=True):
                weight.data = data

    def _learnt(
        self, prompt: TrainingRow, group: Sequence[Sample], gains: Sequence[float]
    ) -> list[TrainingRow]:
        """Return a prompt's answers as rows, each with its advantage as its weight."""
        weighted = [
            (sample.ids, gain * prompt.weight) for sample, gain in zip(group, gains, strict=True)
        ]
        if not self.rollouts.settings.kl:
            sums = dict.fromkeys((ids for ids, _ in weighted), 0.0)
            for ids, weight in weighted:
                sums[ids] += weight
            weighted = [(ids, weight) for ids, weight in sums.items() if weight]
        return [replace(prompt.followed_by(ids), weight=weight) for ids, weight in weighted]

    def _require_signal(
        self, groups: Sequence[Sequence[Sample]], signals: Tensor, step: int
    ) -> None:
        """Refuse a training that has nothing to learn from."""
        samples = list(chain.from_iterable(groups))
        if all(math.isnan(sample.reward) for sample in samples):
            name = self.rollouts.grader.scorer.name
            why = samples[0].reason
            raise RunFailed(f"the scorer {name!r} could score no answer of step {step}: {why}")
        if step == 1:
            self._silent = []
        if self._silent is None or signals.any():
            self._silent = None
            return
        self._silent += samples
        if len(self._silent) >= FIRST_GROUPS * len(groups[0]):
            raise RunFailed(_no_signal(self._silent, len(groups[0]), self.rollouts))


def _no_signal(samples: Sequence[Sample], size: int, rollouts: Rollouts) -> str:
    """Say why nothing can be learnt from answers whose rewards are alike in each group."""
    rewards = [sample.reward for sample in samples if not math.isnan(sample.reward)]
    lowest, highest = min(rewards), max(rewards)
    beginning = (
        f"in each of the first {len(samples) // size} groups all {size} sampled answers earn the "
        f"same, so there is nothing to learn from. By the scorer {rollouts.grader.scorer.name!r} "
    )
    if lowest == highest == 1:
        return f"{beginning}every answer is right already."
    if lowest < highest:
        return (
            f"{beginning}prompts differ, and the answers to one prompt do not. Raise "
            f"tuning.reward.temperature (it is {rollouts.settings.temperature:g})."
        )
    return (
        f"{beginning}every answer earns {lowest:g}, such as {clip(samples[-1].text)}. Train the "
        "answers first (method: sft), take a scorer that gives a part of the reward for a part of "
        "the way, or raise tuning.reward.max_tokens if answers are cut off "
        f"({100 * _share_cut(samples):.0f} % are)."
    )


def _figures(samples: Sequence[Sample]) -> dict[str, float]:
    """Return what answers earn, how long they are in tokens, and how many are cut off."""
    rewards = [sample.reward for sample in samples if not math.isnan(sample.reward)]
    figures = {
        "reward": fmean(rewards) if rewards else math.nan,
        "answer_tokens": fmean(len(sample.ids) for sample in samples),
        "cut": _share_cut(samples),
    }
    unscored = len(samples) - len(rewards)
    return figures | ({"unscored": unscored / len(samples)} if unscored else {})


def _share_cut(samples: Sequence[Sample]) -> float:
    return fmean(sample.cut for sample in samples)
