"""Turn a case into a request: the row's own messages plus instructions and shots.

Instructions are appended to the system prompt, so that all requests share a prefix. Shots are
answered training rows, shown as user and assistant turns: the same for every case, or each case's
nearest. Ties are broken by hash, so the same rows give the same shots on every machine.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise, takewhile
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from unitune.data.example import Example, Message, digest
from unitune.data.questions import question
from unitune.errors import Mismatch
from unitune.job.contenders import Tuned
from unitune.scorers.json_text import read_json
from unitune.text import clip

if TYPE_CHECKING:
    from scipy.sparse import csc_array


# Rows that `draw` considers (a seeded sample of larger files), to keep it under a second
DRAWN_FROM = 2000
# Rows that `Neighbours` searches (by hash from larger files); their vectors take seconds
SEARCHED = 20_000
# Lengths of letter runs: shorter ones are in all words, longer ones are words
LETTERS = (3, 4, 5)


def draw(train: Iterable[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Choose rows as shots, in the order shown, that cover the answers evenly.

    Rows are taken one by one from a seeded order, so more shots only add rows. The next row is the
    one whose answer was shown least: a new label before a repeated one, and in JSON answers a new
    value of a key before a repeated value.
    """
    rows = sorted(train, key=lambda example: digest([seed, example.case_id]))
    pool = list({example.input_key: example for example in rows}.values())[:DRAWN_FROM]
    facets = [_facets(example.answer or "") for example in pool]
    shown: Counter[str] = Counter()
    left = list(range(len(pool)))
    drawn: list[Example] = []
    while left and len(drawn) < count:
        best = min(left, key=lambda at: sum(shown[facet] for facet in facets[at]) / len(facets[at]))
        left.remove(best)
        shown.update(facets[best])
        drawn.append(pool[best])
    return tuple(drawn)


def _facets(answer: str) -> tuple[str, ...]:
    """Return the key-value pairs of a JSON object, or the answer itself."""
    with suppress(ValueError):
        value: object = json.loads(answer)
        if isinstance(value, dict) and value:
            return tuple(json.dumps(pair) for pair in cast("dict[str, object]", value).items())
    return (answer.strip(),)


class Neighbours:
    """Training rows ranked by the similarity of their questions, computed at the first search.

    The similarity is the cosine of TF-IDF vectors with two halves of equal weight: words and word
    pairs, and runs of 3 to 5 letters inside words, which also match across endings and typing
    errors. Frequencies count as 1 + log(count), and rarity as log((1 + rows) / (1 + rows with it))
    + 1 (Manning, Raghavan and Schütze, Introduction to Information Retrieval, 6.2 and 6.4; smoothed
    as in scikit-learn).
    """

    def __init__(self, train: Sequence[Example]) -> None:
        self._train = train

    def nearest(self, case: Example, count: int) -> tuple[Example, ...]:
        """Return the rows most similar to a case, least similar first.

        Models favour what they saw last (Zhao et al. 2021, arXiv 2102.09690), so the most similar
        row is next to the question.
        """
        order = np.argsort(-self._likeness(case), kind="stable")[:count]
        return tuple(self._rows[int(at)] for at in order[::-1])

    def _likeness(self, case: Example) -> NDArray[np.float64]:
        text = _text(case)
        words = self._words.likeness(_word_terms(text))
        letters = self._letters.likeness(_letter_terms(text))
        # Rounded, so that ties do not depend on a machine's order of additions.
        return np.round(words + letters, 9)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the rows, in any order."""
        return digest(sorted(row.case_hash for row in self._train))

    @cached_property
    def _rows(self) -> Sequence[Example]:
        ordered = sorted(self._train, key=lambda row: digest(row.content))
        return tuple({row.input_key: row for row in reversed(ordered)}.values())[:SEARCHED]

    @cached_property
    def _words(self) -> _TfIdf:
        return _TfIdf([_word_terms(_text(row)) for row in self._rows])

    @cached_property
    def _letters(self) -> _TfIdf:
        return _TfIdf([_letter_terms(_text(row)) for row in self._rows])


class _TfIdf:
    def __init__(self, texts: Sequence[Iterable[str]]) -> None:
        from scipy.sparse import csc_array  # noqa: PLC0415 - slow to import

        self._columns: dict[str, int] = {}
        rows: list[int] = []
        columns: list[int] = []
        frequencies: list[float] = []
        for at, terms in enumerate(texts):
            for term, count in Counter(terms).items():
                rows.append(at)
                columns.append(self._columns.setdefault(term, len(self._columns)))
                frequencies.append(1 + math.log(count))
        holders = np.bincount(columns, minlength=len(self._columns))
        self._rarity = np.log((1 + len(texts)) / (1 + holders)) + 1
        weights = np.array(frequencies) * self._rarity[columns]
        lengths = np.sqrt(np.bincount(rows, weights**2, minlength=len(texts)))
        shape = (len(texts), len(self._columns))
        self._vectors: csc_array[np.float64] = csc_array(
            (weights / lengths[rows], (rows, columns)), shape=shape
        )

    def likeness(self, terms: Iterable[str]) -> NDArray[np.float64]:
        """Return each text's cosine with a text; terms that no text has are ignored."""
        counts = {term: count for term, count in Counter(terms).items() if term in self._columns}
        if not counts:
            return np.zeros(self._vectors.shape[0])
        columns = [self._columns[term] for term in counts]
        weights = (1 + np.log(list(counts.values()))) * self._rarity[columns]
        return np.asarray(self._vectors[:, columns] @ (weights / np.linalg.norm(weights)))


def _text(example: Example) -> str:
    return " ".join(question(example))


def _word_terms(text: str) -> Iterator[str]:
    words = _plain(text)
    yield from words
    yield from map(" ".join, pairwise(words))


def _letter_terms(text: str) -> Iterator[str]:
    for word in _plain(text):
        padded = f" {word} "
        for length in LETTERS:
            for start in range(max(1, len(padded) - length + 1)):
                yield padded[start : start + length]


def _plain(text: str) -> list[str]:
    return "".join(sign if sign.isalnum() else " " for sign in text).split()


SYSTEM_ROLES = ("system", "developer")
# If more than this fraction of the rows have distinct ones, they are content, not prompts
MOST_SYSTEM_PROMPTS = 0.1

# maximum number of distinct answers, or values of a key, that are listed as choices
MOST_LISTED = 30
# A longer value is a text, not a label; listing it would be useless and cost tokens
MOST_LABEL_BYTES = 80
# Sample answers, if they are not labels: enough to show the style, short enough to read
MOST_SAMPLES = 5
# All samples together, about 500 tokens; the first sample is always shown.
MOST_SAMPLE_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Nearest:
    """Shots chosen per case: its nearest neighbours, nearest last."""

    neighbours: Neighbours
    count: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt around a case."""

    label: str  # for effort and progress: ``8 shots with instructions``
    instructions: str = ""  # appended to the system prompt
    shots: tuple[Example, ...] | Nearest = ()  # answered rows shown before the question

    def messages(self, case: Example) -> tuple[Message, ...]:
        """Return a case's own messages plus this prompt's, without shots' system prompts."""
        system, question = _split(case.prompt)
        shots = self.shots
        if isinstance(shots, Nearest):
            shots = shots.neighbours.nearest(case, shots.count)
        shown = (turn for shot in shots for turn in _turns(shot))
        return (*_instructed(system, self.instructions), *shown, *question)

    @property
    def shot_count(self) -> int:
        """Number of shots."""
        return self.shots.count if isinstance(self.shots, Nearest) else len(self.shots)


OWN_MESSAGES = Prompt(label="the row's own messages")  # the unchanged case


def instructions_from(train: Iterable[Example]) -> str:
    """Write instructions from the answers of the training rows.

    They list up to 30 distinct answers; for JSON objects, the keys with up to 30 values each; for
    other texts, a few samples.
    """
    answers = [answer.strip() for example in train if (answer := example.answer)]
    if objects := _objects(answers):
        keys = dict.fromkeys(key for value in objects for key in value)
        return (
            "Answer with one JSON object and nothing else: no words around it, no code fence. "
            "Its keys, in this order, and their values:\n"
            + "\n".join(_key_line(key, objects) for key in keys)
        )
    labels = _by_frequency(answers)
    if len(labels) <= MOST_LISTED and all(map(_is_label, labels)):
        return "Answer with exactly one of these, and nothing else:\n" + _bullets(labels)
    manner = "Answer in the manner and at the length of these samples, and add nothing:\n"
    return manner + _bullets(_typical(answers))


def _split(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    system = tuple(takewhile(lambda message: message.role in SYSTEM_ROLES, messages))
    return system, tuple(messages[len(system) :])


def _instructed(system: tuple[Message, ...], instructions: str) -> tuple[Message, ...]:
    if not instructions:
        return system
    if not system:
        return (Message(role="system", content=instructions),)
    last = system[-1]
    text = f"{last.text}\n\n{instructions}" if last.text else instructions
    return (*system[:-1], replace(last, content=text))


def _turns(shot: Example) -> tuple[Message, ...]:
    _, question = _split(shot.prompt)
    last = shot.messages[-1]
    answer = (
        replace(last, weight=None)
        if last.role == "assistant" and shot.expected is None
        else Message(role="assistant", content=shot.answer)
    )
    return (*question, answer)


def _objects(answers: Sequence[str]) -> list[dict[str, object]]:
    objects: list[dict[str, object]] = []
    for answer in answers:
        try:
            read_json(answer)
            value: object = json.loads(answer)
        except ValueError:
            return []
        if not isinstance(value, dict):
            return []
        objects.append(cast("dict[str, object]", value))
    return objects


def _key_line(key: str, objects: Sequence[dict[str, object]]) -> str:
    given = [value[key] for value in objects if key in value]
    values = _by_frequency(json.dumps(value, ensure_ascii=False) for value in given)
    labels = [value for value in values if _is_label(value)]
    name = json.dumps(key, ensure_ascii=False)
    optional = "" if len(given) == len(objects) else " (only where it applies)"
    if len(values) <= MOST_LISTED and len(labels) == len(values):
        return f"- {name}{optional}: one of {', '.join(labels)}"
    if not labels:
        return f"- {name}{optional}: a text"
    # Values that rarely repeat are texts rather than labels, so only a few are shown.
    shown = MOST_LISTED if 2 * len(values) <= len(given) else MOST_SAMPLES
    return f"- {name}{optional}: such as {', '.join(labels[:shown])}"


def _by_frequency(values: Iterable[str]) -> list[str]:
    return [value for value, _ in Counter(values).most_common()]


def _is_label(value: str) -> bool:
    return len(value.encode()) <= MOST_LABEL_BYTES and "\n" not in value


def _typical(answers: Sequence[str]) -> list[str]:
    """Return distinct answers around the median length, within the size limit of samples."""
    distinct = sorted(dict.fromkeys(answers), key=len)
    start = max(0, (len(distinct) - MOST_SAMPLES) // 2)
    samples = distinct[start : start + MOST_SAMPLES]
    sizes = accumulate(len(sample.encode()) for sample in samples)
    return [
        sample
        for at, (sample, size) in enumerate(zip(samples, sizes, strict=True))
        if at == 0 or size <= MOST_SAMPLE_BYTES
    ]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def check_prompts(
    spec: Tuned, trained: Iterable[Iterable[Example]], cases: Iterable[Example]
) -> None:
    """Raise Mismatch for cases whose system prompt the contender's model was not trained with.

    If nearly every row has its own system prompt, the prompts are content, and any is accepted.
    """
    if spec.prompt != "own":
        return
    cases = list(cases)
    known, missing = Counter[str](), set(map(_system, cases))
    for row in (row for rows in trained for row in rows):
        system = _system(row)
        known[system] += 1
        missing.discard(system)
        if not missing:
            return
    strange = [case for case in cases if _system(case) in missing]
    if not 0 < len(known) <= max(1, MOST_SYSTEM_PROMPTS * known.total()):
        return
    raise Mismatch(
        f"{spec.name}: its model was not trained with the system prompt of {len(strange)} test "
        f"cases, such as {clip(_system(strange[0]))}; most of its rows have "
        f"{clip(known.most_common(1)[0][0])}. Use the training prompt in the cases, or choose "
        "another prompt for the contender: {type: tuned, prompt: baseline}."
    )


def _system(row: Example) -> str:
    turns = (turn.text for turn in row.prompt if turn.role in SYSTEM_ROLES)
    return " ".join(" ".join(turns).split())
