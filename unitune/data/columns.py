"""Guess which columns of flat rows hold the question and the answer.

Usual names come first. Otherwise the answer is a column of objects, else one with few short values,
else the second longest text; the question is the longest remaining text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from unicodedata import normalize

from pydantic import JsonValue

from unitune.data.records import Flat, json_or_none
from unitune.errors import UserError
from unitune.files.validation import did_you_mean
from unitune.job.job import Columns, Template

# English, and the most common names in German, French, Spanish, Italian, Portuguese and Dutch
QUESTIONS = (
    *("prompt", "question", "instruction", "query", "input", "user", "message", "text"),
    *("utterance", "sentence", "review", "comment", "content", "body", "email", "ticket"),
    *("request", "document", "article", "passage", "description", "title", "source"),
    *("frage", "anfrage", "nachricht", "pregunta", "mensaje", "domanda", "pergunta", "vraag"),
)
ANSWERS = (
    *("completion", "response", "answer", "output", "assistant", "reply", "label", "category"),
    *("intent", "class", "sentiment", "topic", "target", "expected", "summary", "translation"),
    *("tag", "rating", "score", "labels", "categories", "topics", "tags"),
    *("antwort", "kategorie", "reponse", "categorie", "respuesta", "categoria", "risposta"),
    *("resposta", "antwoord"),
)
SYSTEMS = ("system", "system_prompt")
TOGETHER = (  # pairs of which a model needs both, as public data sets name them
    *(("context", "question"), ("passage", "question"), ("subject", "body"), ("title", "body")),
    *(("title", "text"), ("title", "content"), ("title", "description")),
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2")),
)
# Names of objects that describe a row and are not its answer
ASIDE = ("metadata", "meta", "info", "extra", "attributes")
LABEL_CHARACTERS = 60  # longer values are texts; the longest label of banking77 has 48
ALIKE = 1.5  # below this ratio of mean lengths, length does not identify the question
# Minimum mean rows per label; values that differ in nearly every row are not labels
ROWS_A_LABEL = 3


def may_be_labels(texts: Sequence[str], different: int) -> bool:
    """Return whether texts with `different` distinct values are labels: short and repeated."""
    short = max(map(len, texts), default=0) <= LABEL_CHARACTERS
    return short and 2 <= different <= max(2, len(texts) // ROWS_A_LABEL)


class UnknownColumns(UserError):
    """The question or answer column cannot be determined."""


@dataclass(frozen=True)
class Guess:
    """Guessed columns for the input and the answer of a model."""

    mapping: Columns | Template
    question: tuple[str, ...]
    answer: str
    others: tuple[str, ...] = ()  # other possible answers, if no name decided it


@dataclass(frozen=True)
class _Column:
    name: str
    values: Sequence[JsonValue]

    @cached_property
    def texts(self) -> list[str]:
        return [str(value).strip() for value in self.values if value not in (None, "")]

    @cached_property
    def different(self) -> int:
        return len(set(self.texts))

    @cached_property
    def is_object(self) -> bool:
        found = sum(
            isinstance(json_or_none(value) if isinstance(value, str) else value, dict)
            for value in self.values
        )
        return found > len(self.texts) / 2 and self.name.lower() not in ASIDE

    @cached_property
    def characters(self) -> float:
        return fmean(map(len, self.texts)) if self.texts else 0.0

    @property
    def is_text(self) -> bool:
        worded = sum(bool(re.search(r"[^\W\d_]\s+[^\W\d_]", text)) for text in self.texts)
        unspaced = sum(len(text) > 1 and ord(text[0]) > 0x2E7F for text in self.texts)
        return self.different > 1 and worded + unspaced > len(self.texts) / 2

    def rank(self, names: Sequence[str]) -> tuple[int, int] | None:
        """Return how usual the name is, lower is better; None if it is not."""
        plain = normalize("NFKD", self.name).encode("ascii", "ignore").decode()  # Réponse
        words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", plain).lower())
        whole = "_".join(words)
        if whole in names:
            return names.index(whole), 0
        held = [names.index(word) for word in words if word in names]
        return (len(names) + min(held), len(words)) if held else None


def guess_columns(rows: Sequence[Flat], chosen: Mapping[str, str]) -> Guess:
    """Guess columns except `chosen` ones (by role); raises `UnknownColumns`, listing all."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _Column(name, [row.get(name) for row in rows]) for name in names}
    for role, name in chosen.items():
        if name not in columns:
            raise UnknownColumns(
                f"--{role} names {name!r}, which is not a column.{did_you_mean(name, names)} "
                f"{_listed(names)}"
            )
    given = [columns[name] for name in chosen.values()]
    open_columns = [each for each in columns.values() if each not in given and each.texts]
    system = chosen.get("system") or _named(open_columns, SYSTEMS)
    open_columns = [each for each in open_columns if each.name != system]
    answer = chosen.get("assistant") or _answer(open_columns, question=chosen.get("user"))
    open_columns = [each for each in open_columns if each.name != answer]
    together = _together(open_columns)
    question = (chosen["user"],) if "user" in chosen else together or _question(open_columns)
    if not (answer and question):
        missing, role = ("answer", "assistant") if question else ("question", "user")
        raise UnknownColumns(
            f"cannot guess which column is the {missing}. {_listed(names)} "
            f"Name it with --{role} COLUMN"
        )
    named = "assistant" in chosen or columns[answer].rank(ANSWERS) is not None
    others = () if named else _could_be(each for each in open_columns if each.name not in question)
    return Guess(_mapping(columns, question, answer, system), question, answer, tuple(others))


def _listed(names: Sequence[str]) -> str:
    return f"The columns are: {', '.join(map(repr, names))}."


def _named(columns: Sequence[_Column], names: Sequence[str]) -> str | None:
    ranked = [(rank, each.name) for each in columns if (rank := each.rank(names)) is not None]
    return min(ranked)[1] if ranked else None


def _answer(columns: Sequence[_Column], question: str | None) -> str | None:
    if named := _named(columns, ANSWERS):
        return named
    if could_be := _could_be(columns):
        return could_be[-1]  # tables tend to end with the answer
    texts = sorted((each for each in columns if each.is_text), key=lambda each: each.characters)
    needed = 1 if question else 2
    if len(texts) < needed:
        return None
    two = texts[-2:]
    if needed == 2 and two[1].characters < ALIKE * two[0].characters:
        return max(two, key=columns.index).name  # questions tend to precede their answers
    return texts[-needed].name


def _could_be(columns: Iterable[_Column]) -> list[str]:
    columns = tuple(columns)
    labels = [each.name for each in columns if may_be_labels(each.texts, each.different)]
    objects = [each.name for each in columns if each.is_object]
    return [*(name for name in labels if name not in objects), *objects]


def _question(columns: Sequence[_Column]) -> tuple[str, ...]:
    if named := _named([each for each in columns if each.is_text], QUESTIONS):
        return (named,)
    texts = [each for each in columns if each.is_text]
    return (max(texts, key=lambda each: each.characters).name,) if texts else ()


def _together(columns: Sequence[_Column]) -> tuple[str, ...]:
    by_name = {each.name.lower(): each.name for each in columns}
    for pair in TOGETHER:
        if all(name in by_name and by_name[name].isidentifier() for name in pair):
            return tuple(by_name[name] for name in pair)
    return ()


def _mapping(
    columns: Mapping[str, _Column], question: Sequence[str], answer: str, system: str | None
) -> Columns | Template:
    used = [*question, answer, *([system] if system else [])]
    texts = all(isinstance(v, str) for name in used for v in columns[name].values if v is not None)
    if len(question) == 1 and (texts or not all(name.isidentifier() for name in used)):
        return Columns(user=question[0], assistant=answer, system=system)
    headed = "\n\n".join(f"{name.capitalize()}: {_slot(columns[name])}" for name in question)
    return Template(
        user=headed if len(question) > 1 else _slot(columns[question[0]]),
        assistant=_slot(columns[answer]),
        system=_slot(columns[system]) if system else None,
    )


def _slot(column: _Column) -> str:
    nested = any(isinstance(value, list | dict | bool) for value in column.values)
    return f"{{{{ {column.name}{' | tojson' if nested else ''} }}}}"
