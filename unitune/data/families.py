"""Group rows with equal or near-duplicate prompts into families, and find repeated rows.

All turns count; template words do not. Prompts with different numbers also need the same answer.

Repeated rows, contradictory answers and repeated ids are found in one file. Each row takes 48 bytes
on disk. By 64-bit hashes, two of 10⁷ rows collide in one of 370,000 files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Self

from unitune.data.dataset import NumberTable, later_and_first
from unitune.data.example import Example, called, digest
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
from unitune.findings import Finding, error, warning

if TYPE_CHECKING:
    from unitune.data.dataset import Row


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


def key(text: str) -> int:
    """Return 64 bits of a text's hash."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


class Repeats:
    """Hashes of a file's rows, for finding repeats."""

    def __init__(self) -> None:
        self._rows = NumberTable(4)
        self._ids = NumberTable(2)

    def add(self, row: Row, input_key: str) -> None:
        """Add the next row with its `Example.input_key`."""
        example = row.example
        turns = (*example.messages, *(example.non_preferred_output or ()))
        calls = [called(turn.tool_calls) for turn in turns]
        bare = example
        if any(calls):
            without = [replace(turn, tool_calls=None, tool_call_id=None) for turn in turns]
            bare = example.model_copy(
                update={"messages": tuple(without), "non_preferred_output": None}
            )
        content = bare.identity
        content.pop("id", None)
        if example.id:
            self._ids.append(len(self._rows), key(example.id))
        answer = _key([example.answer, called(example.messages[-1].tool_calls)])
        self._rows.append(row.line, _key([content, calls]), _question(example, input_key), answer)

    def findings(
        self, words: Callable[[int], str] = "line {}".format, *, ids_are_cases: bool
    ) -> Iterator[tuple[int, Finding]]:
        """Yield findings about repeats, each with the position of the later row."""
        lines, rows, questions, answers = map(self._rows.column, range(4))
        equal = bytearray(len(rows))
        for at, first in later_and_first(rows):
            equal[at] = True
            finding = warning(
                "duplicate",
                f"the row equals the one on {words(lines[first])}.",
                "Keep one, and give it a weight if it should count more.",
            )
            yield at, finding.at(line=lines[at])
        for at, first in later_and_first(questions):
            if answers[at] != answers[first]:
                finding = warning(
                    "contradiction",
                    f"the row has the input of the one on {words(lines[first])}, but another "
                    "answer.",
                    "If only one answer is right, remove the other row.",
                )
                yield at, finding.at(line=lines[at])
        severity = error if ids_are_cases else warning
        named, ids = self._ids.column(0), self._ids.column(1)
        for entry, first in later_and_first(ids):
            if not equal[at := named[entry]]:
                finding = severity(
                    "repeated-id",
                    f"the id is already used on {words(lines[named[first]])}.",
                    "Give every case a unique id or none.",
                )
                yield at, finding.at(line=lines[at])


def _question(example: Example, input_key: str) -> int:
    """Return the key that two contradictory rows share: for preferences, input and answer pair."""
    if example.non_preferred_output is None:
        return int(input_key[:16], 16)
    turns = (example.messages[-1], *example.non_preferred_output)
    return _key([input_key, sorted(digest([turn.key, called(turn.tool_calls)]) for turn in turns)])


def _key(value: list[object]) -> int:
    return int(digest(value)[:16], 16)
