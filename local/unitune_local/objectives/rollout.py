"""Sample answers from a model in training, and grade them.

A sample depends only on seed, step, row and place, so that a resumed training draws it again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

from unitune.scorers.interface import Score
from unitune_local.data.batches import TrainingRow
from unitune_local.grading import Group, RewardGrader
from unitune_local.inference.answers import Generated, Sampling
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.settings import RewardSettings

# Answers prompts with the model in its current state
Generate: TypeAlias = Callable[[Sequence[tuple[int, ...]], Sequence[Sampling]], list[Generated]]


class Sample(NamedTuple):
    """A sampled answer."""

    ids: tuple[int, ...]  # including the token that ended it
    text: str
    reward: float  # weighted sum of its grades; NaN if one is missing
    reason: str  # reasons given by the rewards
    cut: bool  # it reached the maximum number of tokens before its end
    grades: Sequence[float]  # grade by each reward; NaN if it could not grade the answer


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Sampler of answers from a model in its current state."""

    generate: Generate
    grader: RewardGrader
    settings: RewardSettings
    seed: int
    longest: int  # maximum tokens of prompt and answer together
    ranks: Ranks = ALONE

    @property
    def names(self) -> list[str]:
        """Names of the rewards."""
        return [reward.name for reward in self.grader.rewards]

    def groups(self, prompts: Sequence[TrainingRow], step: int) -> list[list[Sample]]:
        """Sample a group of answers to each prompt of a step."""
        return self._groups(prompts, self.settings.group_size, self.settings.temperature, step)

    def greedy(self, prompts: Sequence[TrainingRow]) -> list[Sample]:
        """Answer each prompt once, with the likeliest tokens."""
        return [sample for (sample,) in self._groups(prompts, 1, 0.0, 0)]

    def _groups(
        self, prompts: Sequence[TrainingRow], size: int, temperature: float, step: int
    ) -> list[list[Sample]]:
        def compute(places: Sequence[int]) -> list[list[Sample]]:
            own = [(prompts[place], at) for place in places for at in range(size)]
            seeds = [seed_of(self.seed, step, prompt.line, at) for prompt, at in own]
            return self._answers([prompts[place] for place in places], size, temperature, seeds)

        lengths = [len(prompt.ids) for prompt in prompts]
        groups = cast("list[list[Any]]", self.ranks.spread(lengths, compute))  # as in JSON
        return [[Sample(tuple(ids), *rest) for ids, *rest in group] for group in groups]

    def _answers(
        self, prompts: Sequence[TrainingRow], size: int, temperature: float, seeds: Sequence[int]
    ) -> list[list[Sample]]:
        if not prompts:
            return []
        ids = [tuple(prompt.ids) for prompt in prompts for _ in range(size)]
        limits = [min(self.settings.max_tokens, self.longest - len(prompt)) for prompt in ids]
        samplings = [
            Sampling(limit, temperature, seed) for limit, seed in zip(limits, seeds, strict=True)
        ]
        answers = self.generate(ids, samplings)
        groups = [answers[at : at + size] for at in range(0, len(answers), size)]
        texts = [[answer.text for answer in group] for group in groups]
        cases = [prompt.case for prompt in prompts if prompt.case]  # rows of this method have one
        graded = self.grader.grade([Group(*pair) for pair in zip(cases, texts, strict=True)])
        return [
            [self._sample(*pair) for pair in zip(group, zip(*by_reward, strict=True), strict=True)]
            for group, by_reward in zip(groups, graded, strict=True)
        ]

    def _sample(self, answer: Generated, scores: Sequence[Score]) -> Sample:
        values = [math.nan if score.failed else score.value for score in scores]
        weights = [reward.weight for reward in self.grader.rewards]
        parts = [weight * value for weight, value in zip(weights, values, strict=True) if weight]
        reason = "; ".join(score.reason for score in scores if score.reason)
        cut = answer.finish_reason == "length"
        return Sample(tuple(answer.ids), answer.text, sum(parts), reason, cut, values)


def seed_of(*places: int) -> int:
    """Return a seed that differs for each combination of numbers."""
    text = "/".join(map(str, places))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
