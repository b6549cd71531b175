"""Train on rewards of sampled answers (rft): answers that earn more than their group get likelier.

An answer's advantage is its reward minus the mean of its group's. The loss of a token is

    -min(ratio · advantage, clipped ratio · advantage)

where the ratio of its probability to that at sampling is clipped to 1 - `clip` .. 1 + `clip_high`
(Shao et al. 2024, "DeepSeekMath", arXiv 2402.03300, section 4.1). With one update per step it is 1.

GRPO divides by the standard deviation of the group's rewards and by the length of each answer. Both
bias what is learnt (Liu et al. 2025, "Dr. GRPO", arXiv 2503.20783, section 3.1), so the default
divides only by the tokens of all answers of a step (DAPO, Yu et al. 2025, arXiv 2503.14476).
`scale` and `loss` have TRL's names (1.16, GRPOTrainer: `loss_type`, `scale_rewards`); dapo covers
bnpo.

With `kl`, each token adds that many times e^(r - p) - (r - p) - 1, an estimate of the divergence
from the initial model (Schulman 2020, "Approximating KL divergence", k3; r and p are
log-probabilities by the initial and the current model), times the ratio (DeepSeek-V3.2, arXiv
2512.02556).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean
from typing import ClassVar, Literal, cast

import torch
from peft import PeftModel
from torch import Tensor, nn

from unitune.errors import BackendError, RunFailed
from unitune.text import clip
from unitune_local.data.batches import Batch, TrainingRow
from unitune_local.objectives.loss import Form, losses_and_entropies, token_losses
from unitune_local.objectives.objective import PartLoss, Parts, StepRows
from unitune_local.objectives.rollout import Rollouts, Sample

SMALLEST_DEVIATION = 1e-4  # added to a standard deviation in a divisor, as in TRL
# Groups without signal at the very beginning after which a training ends. With groups of 8, these
# are 320 equal answers: fewer than one in a hundred is different (3 / 320, the rule of three).
FIRST_GROUPS = 40


def advantages(rewards: Tensor) -> Tensor:
    """Return each answer's reward minus the mean of its group (B, K).

    Args:
        rewards: One row per group (B, K); NaN for an answer that could not be scored, which counts
            in no mean and has no advantage.
    """
    above = rewards - rewards.nanmean(dim=1, keepdim=True)
    return torch.where(has_signal(rewards)[:, None], above, 0.0).nan_to_num(0.0)  # (B, K)


def scaled(gains: Tensor, rewards: Tensor, scale: Literal["none", "group", "batch"]) -> Tensor:
    """Return advantages (B, K) divided by the standard deviation of the group's or of all rewards.

    Source: TRL 1.16, GRPOTrainer: the sample's standard deviation, plus 1e-4.
    """
    if scale == "none":
        return gains
    deviations = _deviations(rewards) if scale == "group" else _deviations(rewards.view(1, -1))
    return gains / (deviations.nan_to_num(0.0)[:, None] + SMALLEST_DEVIATION)


def _deviations(rewards: Tensor) -> Tensor:
    """Return the sample's standard deviation of each row (B,); NaN with fewer than two rewards."""
    counts = rewards.isfinite().sum(dim=1)
    squares = (rewards - rewards.nanmean(dim=1, keepdim=True)).square().nansum(dim=1)
    return (squares / (counts - 1)).where(counts > 1, math.nan).sqrt()


def clipped_losses(ratios: Tensor, gains: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the loss of each token, and which tokens are clipped (N,).

    Ratios are of new to old probability, and gains are the advantages of the tokens' answers (N,).

    Source: TRL 1.16, GRPOTrainer, `_compute_loss` (`per_token_loss`, `is_region_clipped`).
    """
    losses = -torch.minimum(ratios * gains, ratios.clamp(1 - low, 1 + high) * gains)
    return losses, (losses > -ratios * gains)


def has_signal(rewards: Tensor) -> Tensor:
    """Return whether a group has two different rewards (B,); NaN as in `advantages`."""
    most = rewards.nan_to_num(-math.inf).amax(dim=1)
    return most > rewards.nan_to_num(math.inf).amin(dim=1)


def kl_estimate(losses: Tensor, reference: Tensor, old: Tensor | None = None) -> Tensor:
    """Return k3 of each token, from its losses by the model and by the reference (N,).

    It is multiplied by the ratio of new to old probability. Without the losses of the old model,
    the model is the old one.
    """
    gap = losses - reference
    ratio = ((losses.detach() if old is None else old) - losses).exp()
    return ratio * (gap.exp() - gap - 1)


@dataclass(slots=True)
class RewardedAnswers:
    """What a step learns from: sampled and scored answers (rft)."""

    figure: ClassVar[str] = "policy_loss"
    rollouts: Rollouts  # of a model in its initial state
    # Answers since the first step, until a group of them has had a signal
    _silent: list[Sample] | None = field(default=None, init=False)
    _computed: int = field(default=0, init=False)  # tokens of the answers that a step computes
    _divisor: float = field(default=1.0, init=False)  # divisor of a step's sums

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
        gains = scaled(advantages(rewards), rewards, self.rollouts.settings.scale)
        listed = cast("list[list[float]]", gains.tolist())  # pyright: ignore[reportUnknownMemberType]
        learnt = [*chain.from_iterable(map(self._learnt, rows, groups, listed))]
        samples = list(chain.from_iterable(groups))
        answered = sum(sample.tokens for sample in samples)
        prompts = sum(len(row.ids) * len(group) for row, group in zip(rows, groups, strict=True))
        sampled = sum(len(sample.ids) for sample in samples)  # with results of tools
        figures = {
            **_figures(samples, self.rollouts.names),
            "reward_std": _deviations(rewards).nanmean().nan_to_num(0.0).item(),
            "no_signal": 1 - has_signal(rewards).double().mean().item(),
            **(judgements.figures() if (judgements := self.rollouts.grader.judgements) else {}),
        }
        settings, count = self.rollouts.settings, len(samples)
        divisors = {"dapo": answered, "grpo": count, "dr_grpo": count * settings.max_tokens}
        self._divisor = divisors[settings.loss]
        self._computed = sum(row.trained_tokens for row in learnt)
        return StepRows(learnt, self._divisor, prompts + sampled, figures)

    def validate(self, rows: Sequence[TrainingRow]) -> dict[str, float]:
        """Return the mean figures of the likeliest answers."""
        return _figures(self.rollouts.greedy(rows), self.rollouts.names)

    def _learnt(
        self, prompt: TrainingRow, group: Sequence[Sample], gains: Sequence[float]
    ) -> list[TrainingRow]:
        """Return a prompt's answers as rows, weighted by their advantages; equal ones once."""
        weighted = [
            ((sample.ids, tuple(sample.learnt)), gain * prompt.weight)
            for sample, gain in zip(group, gains, strict=True)
        ]
        if not self.rollouts.settings.kl and self.rollouts.settings.updates == 1:
            sums = dict.fromkeys((answer for answer, _ in weighted), 0.0)
            for answer, weight in weighted:
                sums[answer] += weight
            weighted = [*sums.items()]
        if not self.rollouts.settings.kl:
            weighted = [(answer, weight) for answer, weight in weighted if weight]
        return [replace(prompt.followed_by(*answer), weight=weight) for answer, weight in weighted]

    def _require_signal(
        self, groups: Sequence[Sequence[Sample]], signals: Tensor, step: int
    ) -> None:
        samples = list(chain.from_iterable(groups))
        if all(math.isnan(sample.reward) for sample in samples):
            why = samples[0].reason
            words = f"no answer of step {step} could be graded: {why}"
            # Later, the function may only depend on something that is missing, so the training can
            # resume.
            raise RunFailed(words) if step == 1 else BackendError(words)
        if step == 1:
            self._silent = []
        if self._silent is None or signals.any():
            self._silent = None
            return
        self._silent += samples
        if len(self._silent) >= FIRST_GROUPS * len(groups[0]):
            raise RunFailed(_no_signal(self._silent, len(groups[0]), self.rollouts))


@dataclass(slots=True)
class RewardLoss(RewardedAnswers):
    """Loss of sampled answers by a model on this machine."""

    model: PeftModel
    form: Form  # form of its micro-batches
    # Trainable weights, each with a copy of its initial value
    _first: list[tuple[nn.Parameter, Tensor]] = field(
        default_factory=list[tuple[nn.Parameter, Tensor]], init=False
    )
    # Token losses of each micro-batch at the first update of a step
    _old: list[Tensor] = field(default_factory=list[Tensor], init=False)

    def __post_init__(self) -> None:
        """Copy the initial weights if a divergence is added to the loss."""
        if self.rollouts.settings.kl:
            weights = self.model.parameters()
            self._first = [(each, each.detach().clone()) for each in weights if each.requires_grad]

    def prepare(self, rows: Sequence[TrainingRow], step: int) -> StepRows:
        """Sample and score answers to a step's prompts; raises as `RewardedAnswers.prepare`."""
        self._old = []
        return RewardedAnswers.prepare(self, rows, step)

    def losses(self, parts: Parts) -> Iterator[PartLoss]:
        """Yield the loss of each micro-batch, and figures of its tokens.

        entropy: entropy of the model, in nats. clipped: share of clipped tokens, from the second
        update. kl: estimate of the divergence. All are means over the computed tokens of the step.
        """
        model, settings, first = self.model, self.rollouts.settings, not self._old
        clip = settings.clip, settings.clip_high or settings.clip
        for at, rows in enumerate(parts):
            batch = self.form.batch(rows, cast("torch.device", model.device))
            reference = self._reference(batch) if settings.kl else None
            losses, entropies = losses_and_entropies(model, batch, settings.temperature)  # (N,)
            if first:
                self._old.append(losses.detach())
            ratios = (self._old[at] - losses).exp()
            tokens, clipped = clipped_losses(ratios, batch.weights, *clip)
            figures = {"entropy": entropies.sum().item()}
            if not first:
                figures["clipped"] = clipped.sum().item()
            if reference is not None:
                estimates = kl_estimate(losses, reference, self._old[at])
                tokens = tokens + settings.kl * estimates
                figures["kl"] = estimates.sum().item()
            if settings.loss == "grpo":
                tokens = tokens / batch.answers.bincount()[batch.answers]
            share = self._divisor / self._computed  # the caller divides by the first
            yield PartLoss(tokens.sum(), {name: share * sum_ for name, sum_ in figures.items()})

    def _reference(self, batch: Batch) -> Tensor:
        """Return the losses of tokens by the initial model (N,)."""
        with torch.no_grad(), self._at_first():
            return token_losses(self.model, batch, self.rollouts.settings.temperature)

    @contextmanager
    def _at_first(self) -> Generator[None]:
        """Restore the initial weights while the body runs; no graph may be alive."""
        now = [weight.data for weight, _ in self._first]
        for weight, first in self._first:
            weight.data = first
        try:
            yield
        finally:
            for (weight, _), data in zip(self._first, now, strict=True):
                weight.data = data


def _no_signal(samples: Sequence[Sample], size: int, rollouts: Rollouts) -> str:
    rewards = [sample.reward for sample in samples if not math.isnan(sample.reward)]
    lowest, highest = min(rewards), max(rewards)
    named = ", ".join(map(repr, rollouts.names))
    beginning = (
        f"in each of the first {len(samples) // size} groups, all {size} sampled answers earn the "
        f"same reward, so the training cannot learn anything. According to {named}, "
    )
    best = sum(max(0.0, reward.weight) for reward in rollouts.grader.rewards)
    if lowest == highest == best:
        return f"{beginning}every answer is already right."
    if lowest < highest:
        return (
            f"{beginning}rewards only differ between prompts. Raise "
            f"tuning.reward.temperature (it is {rollouts.settings.temperature:g})."
        )
    return (
        f"{beginning}every answer earns {lowest:g}, such as {clip(samples[-1].text)}. Train on "
        "answers first (method: sft), choose a scorer that rewards partly right answers, or raise "
        f"tuning.reward.max_tokens if answers are cut off ({100 * _share_cut(samples):.0f} % are)."
    )


def _figures(samples: Sequence[Sample], names: Sequence[str]) -> dict[str, float]:
    """Return mean rewards, in all and by name, mean length, and shares cut off and unscored."""
    rewards = [sample.reward for sample in samples if not math.isnan(sample.reward)]
    figures = {
        "reward": fmean(rewards) if rewards else math.nan,
        "answer_tokens": fmean(sample.tokens for sample in samples),
        "cut": _share_cut(samples),
    }
    for at, name in enumerate(names if len(names) > 1 else ()):
        grades = [sample.grades[at] for sample in samples if not math.isnan(sample.grades[at])]
        figures |= {f"reward_{name}": fmean(grades)} if grades else {}
    unscored = len(samples) - len(rewards)
    return figures | ({"unscored": unscored / len(samples)} if unscored else {})


def _share_cut(samples: Sequence[Sample]) -> float:
    return fmean(sample.cut for sample in samples)
