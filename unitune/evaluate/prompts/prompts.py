"""How a case is put to a model: the row's own messages, with instructions and shots around them.

`Prompt.messages` is all that turns a case into a question. Instructions go to the end of the
system prompt, so that a prompt which all rows share stays the beginning of every request; shots
are answered rows of train, as user and assistant turns before the question: the same for every
case, or each case's nearest. `instructions_from` writes instructions out of answers of train alone,
for a job that has none.

`draw` spreads shots over the answers: one seeded sequence of rows, whose first k are the k shots,
so that more shots only add rows. Each next row is the one whose answer shows most of what was shown
least: a new label before a label a second time, and, in JSON answers, a new value of a key before
one that stood in an earlier shot.

`Neighbours` ranks rows by the cosine of TF-IDF vectors, without a model. A row's vector has two
halves of equal weight: its words and pairs of words, and the runs of 3 to 5 letters inside its
words, which also meet across endings and typing errors. Frequencies count as 1 + log(count), and
rarity as log((1 + rows) / (1 + rows with it)) + 1 (Manning, Raghavan and Schütze, Introduction to
Information Retrieval, 6.2 and 6.4; smoothed as scikit-learn does).

Ties are broken by hash: the same rows give the same shots on every machine, in whatever order they
stand. Which prompt is used is chosen on dev (`unitune.evaluate.prompts.contenders`).
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
from unitune.findings import clip
from unitune.job.contenders import Tuned
from unitune.scorers.json_text import read_json

if TYPE_CHECKING:
    from scipy.sparse import csc_array


# Rows that `draw` considers; a seeded sample of a larger file. Keeps it under a second.
DRAWN_FROM = 2000
# Rows that `Neighbours` searches, by hash of a larger file; their vectors take some seconds
SEARCHED = 20_000
# Lengths of the runs of letters: shorter ones are in all words, longer ones are words
LETTERS = (3, 4, 5)


def draw(train: Iterable[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Choose rows to show, in the order in which they are shown, spread over the answers."""
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
    """Return what an answer shows: the values of its keys for a JSON object, else itself."""
    with suppress(ValueError):
        value: object = json.loads(answer)
        if isinstance(value, dict) and value:
            return tuple(json.dumps(pair) for pair in cast("dict[str, object]", value).items())
    return (answer.strip(),)


class Neighbours:
    """Finds training rows by their questions; nothing is computed before the first search.

    Args:
        train: The training rows; of several with one input the first by hash is kept.
    """

    def __init__(self, train: Sequence[Example]) -> None:
        self._train = train

    def nearest(self, case: Example, count: int) -> tuple[Example, ...]:
        """Return the rows most like a case, the least like first.

        The last of the shots stands next to the question, and models lean to what they saw last
        (Zhao et al. 2021, arXiv 2102.09690): so that is the likest.
        """
        order = np.argsort(-self._likeness(case), kind="stable")[:count]
        return tuple(self._rows[int(at)] for at in order[::-1])

    def _likeness(self, case: Example) -> NDArray[np.float64]:
        text = _text(case)
        words = self._words.likeness(_word_terms(text))
        letters = self._letters.likeness(_letter_terms(text))
        # Rounded, so that equals stay equal whatever the order of additions on a machine.
        return np.round(words + letters, 9)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the rows, in whatever order."""
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
    """Vectors of length 1 of texts, over one kind of terms."""

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
        """Return each text's cosine with a text; terms that no text has count for nothing."""
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
# Where there are more of them than a tenth of the rows, they hold content and are no prompt
MOST_SYSTEM_PROMPTS = 0.1

MOST_LISTED = 30  # distinct answers, or values of a key, up to which they are listed as a choice
# A longer value is a text and no label; listing it would teach nothing and cost every request
MOST_LABEL_BYTES = 80
# Answers shown where they are no labels: enough to show the manner, short enough to read
MOST_SAMPLES = 5
# All samples together, some 500 tokens: more belongs into shots. The first is always shown.
MOST_SAMPLE_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Nearest:
    """Shots of each case's own: so many of its nearest neighbours, the nearest last."""

    neighbours: Neighbours
    count: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """One way to put a case to a model."""

    label: str  # in words, for effort and progress: ``8 shots with instructions``
    instructions: str = ""  # added to the end of the system prompt
    shots: tuple[Example, ...] | Nearest = ()  # answered rows shown before the question

    def messages(self, case: Example) -> tuple[Message, ...]:
        """Return the messages of a request: the case's own with what this prompt adds.

        The system prompt is the case's own; those of the shots are left out.
        """
        system, question = _split(case.prompt)
        shots = self.shots
        if isinstance(shots, Nearest):
            shots = shots.neighbours.nearest(case, shots.count)
        shown = (turn for shot in shots for turn in _turns(shot))
        return (*_instructed(system, self.instructions), *shown, *question)

    @property
    def shot_count(self) -> int:
        """How many rows are shown."""
        return self.shots.count if isinstance(self.shots, Nearest) else len(self.shots)


OWN_MESSAGES = Prompt(label="the row's own messages")  # the case as it stands in the file


def instructions_from(train: Iterable[Example]) -> str:
    """Write instructions from the answers of train alone.

    Returns:
        A sentence on the format, with the distinct answers (up to 30) listed; for JSON objects the
        keys with their values (up to 30 a key); for texts that differ a few of them as samples.
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
    """Return the answers as JSON objects; nothing unless every one of them is an object."""
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
    # Values that seldom come back are texts rather than labels: a few show their manner.
    shown = MOST_LISTED if 2 * len(values) <= len(given) else MOST_SAMPLES
    return f"- {name}{optional}: such as {', '.join(labels[:shown])}"


def _by_frequency(values: Iterable[str]) -> list[str]:
    return [value for value, _ in Counter(values).most_common()]


def _is_label(value: str) -> bool:
    return len(value.encode()) <= MOST_LABEL_BYTES and "\n" not in value


def _typical(answers: Sequence[str]) -> list[str]:
    """Return distinct answers around the median length, within the bytes that samples may take."""
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
    """Refuse cases whose system prompt a contender's model has never seen in training.

    Its own prompt is the one that it was trained with; another would judge another setup. Where
    nearly every row has a system prompt of its own, none of them is the model's, and any will do.

    Raises:
        Mismatch: There are such cases, and the contender uses its own prompt.
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
        f"{clip(known.most_common(1)[0][0])}. Give the cases the prompt of training, or let the "
        "contender use another: {type: tuned, prompt: baseline}."
    )


def _system(row: Example) -> str:
    turns = (turn.text for turn in row.prompt if turn.role in SYSTEM_ROLES)
    return " ".join(" ".join(turns).split())
