"""Measure the style of answers as their distance to the training answers, without a judge.

An answer is described by features. The deviation of a feature is its distance from the training
answers' median, divided by their mean distance from it, and at most `MOST`. The features of length
are compared on a logarithmic scale. A first word or a language deviates by the share of training
answers that have another one, divided by the mean of that share. So every feature has the same
weight, whatever its unit, and one odd answer cannot outweigh all others.

The style of an answer is the mean deviation of its features, divided by that of held-out training
answers, which is computed by cross-fitting in `FOLDS` parts. So 1.0 is the house's own spread.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from math import log1p
from statistics import fmean, median
from typing import Literal, NamedTuple, Self

from pydantic import PrivateAttr, field_validator

from unitune.documents import Spec
from unitune.errors import JobError
from unitune.scorers.interface import Measured
from unitune.scorers.measures import Measure

# Largest deviation of one feature: what is five times as far as usual is simply not in style
MOST = 5.0
FOLDS = 5
FEWEST_ANSWERS = 10  # two for each fold
MOST_ANSWERS = 2_000  # enough to know a median, and read in less than a second
# Smallest unit of the mean deviation of held-out training answers
SMALLEST_YARDSTICK = 0.1

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f]+(?=\s|$)|\n+|[\u3002\uff01\uff1f]")
_LIST = re.compile(r"\s*(?:[-*\u2022\u2013]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s+\S")
_HEADING = re.compile(r"\s*(?:#{1,6}\s+\S|\*\*[^*]+\*\*:?\s*$|__[^_]+__:?\s*$)")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_EMOJI = re.compile("[\u2600-\u27bf\u2b50\u2b55\U0001f300-\U0001faff]")
_PRONOUNS = {  # English, German, French, Spanish
    "I": "i me my mine myself ich mich mir mein meine je moi mon ma mes yo mi",
    "we": "we us our ours ourselves wir uns unser unsere nous notre nos nosotros nuestro nuestra",
    "you": "you your yours yourself du dich dir dein deine ihnen ihr ihre tu toi ton vous votre "
    "vos usted ustedes tus su",
}
_STOP_WORDS = {
    "English": "the of and to is in that it for you with this are",
    "German": "der die das und ist nicht ein eine zu den mit sie es",
    "French": "le la les des et est une pour dans que vous nous du",
    "Spanish": "el los las y es una para por que con del su se",
    "Italian": "il che di e una per non con sono della gli del lo",
    "Portuguese": "o os uma para com que n\u00e3o em do da dos as um",
    "Dutch": "de het een van en is niet dat op met voor zijn te",
}


class Terms(Spec):
    """The house's own terms; letter case does not matter."""

    use: tuple[str, ...] = ()
    """Terms that the house prefers."""
    avoid: tuple[str, ...] = ()
    """Terms that the house avoids."""

    @field_validator("use", "avoid")
    @classmethod
    def _not_blank(cls, terms: tuple[str, ...]) -> tuple[str, ...]:
        if not all(term.strip() for term in terms):
            raise ValueError("a term must not be empty")
        return terms


# Smallest spread of each feature, so that one that never varies in the training answers has a unit
FEATURES = {
    "words": 0.1,
    "words per sentence": 0.1,
    "readability (ARI)": 1.0,
    "lists, share of lines": 0.05,
    "headings, share of lines": 0.05,
    "code, share of characters": 0.05,
    "emoji per sentence": 0.05,
    "exclamation marks per sentence": 0.05,
    "contractions, share of words": 0.01,
    **{f"\u201c{pronoun}\u201d, share of words": 0.01 for pronoun in _PRONOUNS},
    "preferred terms per sentence": 0.05,
    "avoided terms per sentence": 0.05,
}
LOGARITHMIC = ("words", "words per sentence")
WORDS = ("first word", "language")  # features that are compared by their frequency
SMALLEST_RARITY = 0.05


class Described(NamedTuple):
    """Features of one text."""

    numbers: dict[str, float]
    words: dict[str, str]


@lru_cache(maxsize=4096)  # an answer is measured, then described
def describe(text: str, use: tuple[str, ...] = (), avoid: tuple[str, ...] = ()) -> Described:
    """Return the features of a text, with the house's terms to use and to avoid.

    Source:
        Automated readability index: Senter and Smith 1967, AMRL-TR-66-220.
    """
    words = [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]
    sentences = max(1, sum(bool(_WORD.search(part)) for part in _SENTENCE_END.split(text)))
    lines = [line for line in text.splitlines() if line.strip()]
    count, counts = max(1, len(words)), Counter(words)
    numbers = [
        float(len(words)),
        len(words) / sentences,
        4.71 * sum(map(len, words)) / count + 0.5 * len(words) / sentences - 21.43 if words else 0,
        sum(bool(_LIST.match(line)) for line in lines) / max(1, len(lines)),
        sum(bool(_HEADING.match(line)) for line in lines) / max(1, len(lines)),
        sum(len(code) for code in _CODE.findall(text)) / max(1, len(text)),
        len(_EMOJI.findall(text)) / sentences,
        (text.count("!") + text.count("\uff01")) / sentences,
        sum("'" in word for word in words) / count,
        *(sum(counts[word] for word in each.split()) / count for each in _PRONOUNS.values()),
        *(_occurrences(some, text) / sentences for some in (use, avoid)),
    ]
    named = dict(zip(FEATURES, numbers, strict=True))
    first = words[0] if words else ""
    return Described(named, dict(zip(WORDS, (first, _language(counts)), strict=True)))


def _occurrences(terms: Sequence[str], text: str) -> int:
    return sum(
        len(re.findall(rf"(?<!\w){re.escape(term.strip())}(?!\w)", text, re.IGNORECASE))
        for term in terms
    )


def _language(counts: Mapping[str, int]) -> str:
    """Return the script of most words or, for the Latin one, the language by its stop words."""
    scripts = Counter[str]()
    for word, count in counts.items():
        scripts[unicodedata.name(word[0], "").partition(" ")[0]] += count
    script = max(scripts, key=scripts.__getitem__, default="")
    if script != "LATIN":
        return script.capitalize()
    known = {
        name: sum(counts.get(word, 0) for word in words.split())
        for name, words in _STOP_WORDS.items()
    }
    best = max(known, key=known.__getitem__)
    return best if known[best] else "unknown"


@dataclass(frozen=True, slots=True)
class House:
    """Style of the training answers."""

    described: Sequence[Described]
    centres: dict[str, float]
    spreads: dict[str, float]
    words: dict[str, Counter[str]]  # of first words and of languages
    rarities: dict[str, float]  # mean share of training answers with another word

    @classmethod
    def of(cls, described: Sequence[Described]) -> House:
        """Return the house with these answers."""
        n, house = len(described), cls(described, {}, {}, {}, {})
        for name, smallest in FEATURES.items():
            values = [_scaled(name, each.numbers[name]) for each in described]
            centre = house.centres[name] = median(values)
            house.spreads[name] = max(fmean(abs(value - centre) for value in values), smallest)
        for name in WORDS:
            counts = house.words[name] = Counter(each.words[name] for each in described)
            same = sum(count * (count - 1) for count in counts.values()) / (n * (n - 1))
            house.rarities[name] = max(1 - same, SMALLEST_RARITY)
        return house

    def means(self, described: Sequence[Described]) -> dict[str, float]:
        """Return the mean of every feature; for a word, the share with the usual one."""
        means = {name: fmean(each.numbers[name] for each in described) for name in FEATURES}
        usual = {name: counts.most_common(1)[0][0] for name, counts in self.words.items()}
        return means | {
            f"{name} \u201c{word}\u201d": fmean(each.words[name] == word for each in described)
            for name, word in usual.items()
        }

    def deviations(self, each: Described) -> dict[str, float]:
        """Return the deviation of every feature of an answer."""
        numbers = {
            name: abs(_scaled(name, value) - self.centres[name]) / self.spreads[name]
            for name, value in each.numbers.items()
        }
        words = {
            name: (1 - self.words[name][word] / self.words[name].total()) / self.rarities[name]
            for name, word in each.words.items()
        }
        return {name: min(MOST, value) for name, value in (numbers | words).items()}

    def distance(self, each: Described) -> float:
        """Return the mean deviation of an answer."""
        return fmean(self.deviations(each).values())


def _scaled(name: str, value: float) -> float:
    return log1p(value) if name in LOGARITHMIC else value


class FeatureOf(NamedTuple):
    """Feature of some answers."""

    house: float  # mean over the training answers
    mean: float
    deviation: float


class Style(Measure):
    """Distance of the answer to the style of the training answers.

    1.0 is the distance of held-out training answers to the others; lower is closer. It is the mean
    over length, sentence length, readability (ARI), lists, headings, code, emoji, exclamation
    marks, contractions, pronouns, first word, language and the house's terms, each in units of the
    training answers' own spread. Why: whether a model sounds like the house can be measured without
    a judge. It leaves out content, tone and wording. Below 1, answers vary less than the house's.
    """

    type: Literal["style"] = "style"
    name: str = "style"
    terms: Terms = Terms()
    """Terms that the house prefers or avoids, such as ``{use: [customer], avoid: [client]}``."""
    _house: House | None = PrivateAttr(None)
    _yardstick: float = PrivateAttr(1.0)

    def prepared(self, answers: Iterable[str]) -> Self:
        described = [self._describe(text) for text in _sample(answers)]
        if len(described) < FEWEST_ANSWERS:
            raise JobError(
                f"the measure {self.name!r} needs at least {FEWEST_ANSWERS} training "
                f"answers to know their style; there are {len(described)}. Add rows to data.train, "
                "or remove the measure."
            )
        yardstick = max(_held_out(described), SMALLEST_YARDSTICK)
        made = self.model_copy()
        made._house, made._yardstick = House.of(described), yardstick  # noqa: SLF001 - its own
        return made

    def of_answer(self, answer: Measured) -> float | None:
        assert self._house is not None, "scoring_of prepares it"
        return self._house.distance(self._describe(answer.text)) / self._yardstick

    def features(self, texts: Sequence[str]) -> dict[str, FeatureOf]:
        """Return the mean and the mean deviation of every feature over some texts."""
        house = self._house
        assert house is not None, "scoring_of prepares it"
        described = [self._describe(text) for text in texts]
        deviations = [house.deviations(each) for each in described]
        mean_deviations = [fmean(each[name] for each in deviations) for name in deviations[0]]
        means = house.means(described), house.means(house.described)
        return {
            name: FeatureOf(means[1][name], mean, deviation)
            for (name, mean), deviation in zip(means[0].items(), mean_deviations, strict=True)
        }

    def _describe(self, text: str) -> Described:
        return describe(text, self.terms.use, self.terms.avoid)


def _sample(answers: Iterable[str]) -> list[str]:
    """Return the answers in an order of their own, or some of many."""
    texts = filter(str.strip, answers)
    order = sorted(texts, key=lambda each: sha256(each.encode(errors="replace")).digest())
    return order[:MOST_ANSWERS]


def _held_out(described: Sequence[Described]) -> float:
    """Return the mean distance of training answers to those of the other folds."""
    distances: list[float] = []
    for fold in range(FOLDS):
        others = [each for at, each in enumerate(described) if at % FOLDS != fold]
        house = House.of(others)
        distances += [house.distance(each) for each in described[fold::FOLDS]]
    return fmean(distances)
