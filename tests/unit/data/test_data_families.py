"""Which rows ask nearly the same, and so count as one piece of evidence."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import pytest
from support.chat_rows import chat_rows

from unitune.data.example import Example
from unitune.data.families import families

QUESTIONS = [
    "Is there a fee for exchanging foreign currencies?",
    "My card has not arrived yet, what shall I do?",
    "Why was I charged twice for one taxi last night?",
    "Which documents do I need to prove who I am?",
]

TEXTS = [hashlib.sha256(bytes([at])).hexdigest().replace("0", " ") for at in range(30)]


def sizes(*pairs: tuple[str, str]) -> list[int]:
    heads = families(row.example for row in chat_rows(pairs))
    return sorted(Counter(heads).values(), reverse=True)


def copies(kind: str, text: str) -> list[str]:
    """Return forty copies of a text that look alike, or nearly."""
    copy: dict[str, Callable[[int], str]] = {
        "invisible letters": lambda at: f"{text[:at]}\u200b{text[at:]}",
        "dots": lambda at: text + "." * at,
        "serial numbers": lambda at: f"[{at}] {text}",
        "look-alikes": lambda at: text.replace("a", "\u0430", at % 3 + 1),
        "case and white space": lambda at: f"{' ' * at}{text}".upper(),
    }
    return [copy[kind](at) for at in range(40)]


@pytest.mark.parametrize(
    "kind",
    ["invisible letters", "dots", "serial numbers", "look-alikes", "case and white space"],
)
def test_forty_copies_of_four_questions_are_four_families(kind: str) -> None:
    """A run of words that a quarter of the rows have is no template: all have one answer."""
    rows = [(copy, f"answer {text}") for text in QUESTIONS for copy in copies(kind, text)]
    assert sizes(*rows) == [40, 40, 40, 40]


def test_wordings_of_a_question_are_one_family_whatever_the_words_of_their_answers() -> None:
    rows = [
        (form.format(text), f"answer {form}")
        for text in TEXTS
        for form in ("{}", "So {}", "{} Thanks", "Hi, {}")
    ]
    assert [4] * len(TEXTS) == sizes(*rows)


def test_a_template_around_every_question_joins_none() -> None:
    template = "Read the message of a customer and answer with one label. Message: {} Label:"
    labels = ("fee", "card")
    rows = [(template.format(text), labels[at % 2]) for at, text in enumerate(QUESTIONS)]
    assert sizes(*rows) == [1, 1, 1, 1]
    slots = [(f"What is the capital of {name}?", name[::-1]) for name in ("Peru", "Chile", "Mali")]
    assert sizes(*slots) == [1, 1, 1]


def test_questions_that_differ_in_a_number_are_one_family_only_with_one_answer() -> None:
    text = "A shop had 1234 boxes of apples and got {} more of them. How many are there now?"
    assert sizes((text.format(5678), "6912"), (text.format(5679), "6913")) == [1, 1]
    assert sizes((text.format(5678), "sum"), (text.format(5679), "sum")) == [2]


def test_one_instruction_for_different_documents_joins_none() -> None:
    def row(document: str) -> Example:
        turns = [
            {"role": "system", "content": "You summarise."},
            {"role": "system", "content": document},
            {"role": "user", "content": "Summarise the document above in one short sentence."},
            {"role": "assistant", "content": "x"},
        ]
        return Example.model_validate({"messages": turns})

    assert len(set(families(map(row, QUESTIONS)))) == 4


def test_families_are_joined_through_their_members() -> None:
    first = TEXTS[0]
    nearer, farther = f"{first} 12345678", f"{first} 12345678 87654321"
    assert sizes((farther, "x"), *((text, "x") for text in TEXTS)) == [1] * 31
    assert sizes((nearer, "x"), (farther, "x"), *((text, "x") for text in TEXTS))[0] == 3
