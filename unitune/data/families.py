"""Group rows with equal or near-duplicate prompts into families.

All turns count; template words do not. Prompts with different numbers also need the same answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from unitune.data.example import Example
from unitune.data.questions import (
    TEMPLATE_CASES,
    TEMPLATE_SHARE,
    Templates,
    Turns,
    answer_key,
    conversation,
    numbers_of,
    text_of,
    words_of,
)

# Members of a family that each new prompt is compared with
MOST_COMPARED = 100


class Groups:
    """Positions joined into groups (disjoint sets); each is alone at first."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def head(self, at: int) -> int:
        """Return the first position in the group of a position."""
        above = self._above
        while above[at] != at:
            above[at] = at = above[above[at]]
        return at

    def join(self, one: int, other: int) -> None:
        """Join two groups."""
        first, last = sorted((self.head(one), self.head(other)))
        self._above[last] = first

    @property
    def heads(self) -> list[int]:
        """The first position of each position's group."""
        return [self.head(at) for at in range(len(self._above))]


class Prompt(NamedTuple):
    """Normalised prompt and answer of a row."""

    turns: Turns
    answer: tuple[str, ...]

    @classmethod
    def of(cls, example: Example) -> Self:
        """Return the prompt of a row."""
        return cls(conversation(example), answer_key(example))


class _Text(NamedTuple):
    rows: list[int]
    answers: set[tuple[str, ...]]


def families(examples: Iterable[Example]) -> list[int]:
    """Return the position of the first row of each row's family."""
    return families_of([Prompt.of(example) for example in examples])


def families_of(prompts: Sequence[Prompt]) -> list[int]:
    """Return the position of the first prompt of each prompt's family."""
    from unitune.data.near import NEAR_SIMILARITY, NearIndex  # noqa: PLC0415 - slow to import

    own = _without_shared_turns([prompt.turns for prompt in prompts])
    answers_to = {turns: prompt.answer for turns, prompt in zip(own, prompts, strict=True)}
    templates, texts = Templates(answers_to), dict[str, _Text]()
    for at, turns in enumerate(own):
        words = templates.own_words(turns) or words_of(turns) or turns
        rows, answers = texts.setdefault(text_of(words), _Text([], set()))
        rows.append(at)
        answers.add(prompts[at].answer)
    groups, known = Groups(len(prompts)), list(texts.values())
    for rows, _ in known:
        for at in rows[1:]:
            groups.join(rows[0], at)
    numbers = [numbers_of((text,)) for text in texts]
    index = NearIndex(names := list(texts))
    for text, candidates in index.candidates_within():
        ours, linked = known[text], False
        for count, other in enumerate(map(int, candidates)):
            if linked and count >= MOST_COMPARED:
                break
            theirs = known[other]
            if numbers[text] != numbers[other] and ours.answers.isdisjoint(theirs.answers):
                continue
            if groups.head(ours.rows[0]) == groups.head(theirs.rows[0]):
                linked = True
            elif index.similarity(names[text], other) >= NEAR_SIMILARITY:
                groups.join(ours.rows[0], theirs.rows[0])
                linked = True
    return groups.heads


def _without_shared_turns(prompts: Sequence[Turns]) -> list[Turns]:
    counts = Counter(turn for turns in set(prompts) for turn in set(turns))
    many = max(TEMPLATE_CASES, TEMPLATE_SHARE * len(prompts))
    return [tuple(turn for turn in turns if counts[turn] < many) or turns for turns in prompts]
