"""Sample answers from a model in training, and grade them.

A sample depends only on seed, step, row and place, so that a resumed training draws it again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, cast

from unitune.data.example import Message
from unitune.data.tools import opening, results_as_turns, sendable, with_call_ids
from unitune.scorers.interface import Score
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rendering import result_ids
from unitune_local.grading import Group, RewardGrader
from unitune_local.inference.answers import Generated, Sampling
from unitune_local.inference.structured import read_calls
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
    # Of a dialogue: 1 for each token that the model wrote, 0 for those of tools' results
    learnt: Sequence[int] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens that the model wrote."""
        return sum(self.learnt) if self.learnt else len(self.ids)


@dataclass(slots=True)
class Episode:
    """Turns of one sample: its answers and, in a dialogue, the results of the tools they call."""

    prompt: TrainingRow
    ids: list[int] = field(default_factory=list[int])
    learnt: list[int] = field(default_factory=list[int])
    turns: list[Message] = field(default_factory=list[Message])
    text: str = ""  # of the last answer
    cut: bool = False  # it reached the maximum number of tokens before its end
    is_open: bool = True

    @property
    def offers_tools(self) -> bool:
        """Whether its question offers tools, so that an answer may call them."""
        return self.prompt.case is not None and bool(self.prompt.case.tools)

    def answer(self, generated: Generated) -> None:
        """Add an answer, which ends the sample."""
        self.ids += generated.ids
        self.learnt += [1] * len(generated.ids)
        self.text, self.cut = generated.text, generated.finish_reason == "length"
        self.is_open = False

    def converse(
        self, generated: Generated, number: int, grader: RewardGrader, *, is_last: bool
    ) -> None:
        """Add the turn of an answer and the results of the tools it calls, which reopen it."""
        case = self.prompt.case
        assert case is not None, "rows of this method have a case"
        said = read_calls(generated.text, case.tools or ())
        calls = with_call_ids(({**call, "id": None} for call in said.calls), number)
        turn = Message(
            role="assistant",
            content=said.text or None,
            tool_calls=calls or None,
            reasoning_content=generated.reasoning or None,
        )
        self.text = said.text
        self.turns.append(turn)
        if self.cut or is_last or not calls:
            return
        assert grader.tools is not None, "dialogues have tools"
        results = results_as_turns(calls, [grader.tools.result(case, call) for call in calls])
        begun = opening(case).prompt
        ids = result_ids(grader.tokenizer, begun, sendable(turn), results, case.tools)
        self.turns += results
        self.ids += ids
        self.learnt += [0] * len(ids)
        self.is_open = True


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
        episodes = [Episode(prompt) for prompt in prompts for _ in range(size)]
        for number in range(self.settings.max_turns or 1):
            self._add_turns(number, episodes, temperature, seeds)
        groups = [episodes[at : at + size] for at in range(0, len(episodes), size)]
        graded = self.grader.grade(
            [
                Group(prompt.case, [each.text for each in group], [each.turns for each in group])
                for prompt, group in zip(prompts, groups, strict=True)
                if prompt.case  # rows of this method have one
            ]
        )
        return [
            [self._sample(*pair) for pair in zip(group, zip(*by_reward, strict=True), strict=True)]
            for group, by_reward in zip(groups, graded, strict=True)
        ]

    def _add_turns(
        self, number: int, episodes: Sequence[Episode], temperature: float, seeds: Sequence[int]
    ) -> None:
        """Add the next answer of each open episode."""
        room = [self.longest - len(episode.prompt.ids) - len(episode.ids) for episode in episodes]
        for episode, left in zip(episodes, room, strict=True):
            episode.cut = episode.cut or (episode.is_open and left < 1)
        asked = [at for at, episode in enumerate(episodes) if episode.is_open and room[at] > 0]
        samplings = [
            Sampling(
                min(self.settings.max_tokens, room[at]),
                temperature,
                seed_of(seeds[at], number) if number else seeds[at],
            )
            for at in asked
        ]
        prompts = [(*episodes[at].prompt.ids, *episodes[at].ids) for at in asked]
        answers = self.generate(prompts, samplings) if asked else []
        is_last = number + 1 == (self.settings.max_turns or 1)
        for at, answer in zip(asked, answers, strict=True):
            episodes[at].answer(answer)
            if self.settings.max_turns is not None or episodes[at].offers_tools:
                episodes[at].converse(answer, number, self.grader, is_last=is_last)

    def _sample(self, episode: Episode, scores: Sequence[Score]) -> Sample:
        values = [math.nan if score.failed else score.value for score in scores]
        weights = [reward.weight for reward in self.grader.rewards]
        parts = [weight * value for weight, value in zip(weights, values, strict=True) if weight]
        reason = "; ".join(score.reason for score in scores if score.reason)
        learnt = episode.learnt if episode.turns else ()
        return Sample(
            tuple(episode.ids), episode.text, sum(parts), reason, episode.cut, values, learnt
        )


def seed_of(*places: int) -> int:
    """Return a seed that differs for each combination of numbers."""
    text = "/".join(map(str, places))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
