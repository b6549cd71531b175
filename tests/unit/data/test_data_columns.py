"""Which columns of public data sets are the question and the answer.

The headers are those of the data sets' cards on the Hugging Face Hub and Kaggle; the rows are made
up in their manner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unitune.data.columns import UnknownColumns, guess_columns
from unitune.data.mapping import mapping_of
from unitune.job.job import Columns, Data, Template

Make = Callable[[int], Any]
WORDS = ("the parcel", "my card", "a refund", "this offer", "our order", "one bill", "the flight")
VERBS = ("has not arrived", "was charged twice", "never came back", "looks rather good")


def text(at: int, length: int = 1) -> str:
    return ". ".join(
        f"{WORDS[(at + n) % 7]} {VERBS[(at * 3 + n) % 4]} on day {at * 31 % 97}"
        for n in range(length)
    )


def number(at: int) -> str:
    return str(at * 7919)


def date(at: int) -> str:
    return f"2026-{at % 12 + 1:02d}-{at % 28 + 1:02d} 10:{at % 60:02d}"


def label(at: int) -> str:
    return ("ham", "spam", "other")[at % 3]


def long(at: int) -> str:
    return text(at, 6)


def rows(**columns: Make) -> list[dict[str, Any]]:
    return [{name: make(at) for name, make in columns.items()} for at in range(60)]


SETS: list[tuple[dict[str, Make], list[str], str]] = [
    # a German table, a French one, and one whose names say nothing of texts much as long
    ({"Antwort": long, "Frage": text}, ["Frage"], "Antwort"),
    ({"R\u00e9ponse": long, "Texte": text}, ["Texte"], "R\u00e9ponse"),
    ({"a": text, "b": lambda at: text(at + 9)}, ["a"], "b"),
    # PolyAI/banking77
    ({"text": text, "category": label}, ["text"], "category"),
    # SMS Spam Collection, Kaggle: names that say nothing
    ({"v1": label, "v2": text}, ["v2"], "v1"),
    # Large Movie Review Dataset, Kaggle
    ({"review": long, "sentiment": label}, ["review"], "sentiment"),
    # Twitter US Airline Sentiment, Kaggle
    (
        {
            "tweet_id": number,
            "airline_sentiment": label,
            "airline_sentiment_confidence": number,
            "name": number,
            "text": text,
            "tweet_created": date,
        },
        ["text"],
        "airline_sentiment",
    ),
    # 200,000 Jeopardy questions, Kaggle
    (
        {
            "Show Number": number,
            "Air Date": date,
            "Category": text,
            "Value": number,
            "Question": text,
            "Answer": lambda at: WORDS[at % 7],
        },
        ["Question"],
        "Answer",
    ),
    # abisee/cnn_dailymail
    (
        {"article": long, "highlights": text, "id": lambda at: f"{at * 7919:040x}"},
        ["article"],
        "highlights",
    ),
    # EdinburghNLP/xsum
    ({"document": long, "summary": text, "id": number}, ["document"], "summary"),
    # An export of a help desk, with names of two words
    (
        {
            "Ticket ID": number,
            "Created at": date,
            "Customer message": text,
            "Priority": lambda at: ("low", "high")[at % 2],
            "Routing label": label,
        },
        ["Customer message"],
        "Routing label",
    ),
    # The same in Japanese, where words have no spaces
    (
        {"本文": lambda at: "荷物がまだ届いていません" + "。" * (at % 5 + 1), "分類": label},
        ["本文"],
        "分類",
    ),
    # fancyzhx/ag_news as CSV, mteb/amazon_polarity
    (
        {"Class Index": label, "Title": text, "Description": text},
        ["Title", "Description"],
        "Class Index",
    ),
    ({"label": label, "title": text, "content": long}, ["title", "content"], "label"),
    # rajpurkar/squad, flattened
    (
        {"id": number, "context": long, "question": text, "answer": lambda at: WORDS[at % 7]},
        ["context", "question"],
        "answer",
    ),
    # stanfordnlp/snli
    (
        {"premise": text, "hypothesis": text, "label": lambda at: at % 3},
        ["premise", "hypothesis"],
        "label",
    ),
    # Quora question pairs
    (
        {
            "id": number,
            "qid1": number,
            "question1": text,
            "question2": text,
            "is_duplicate": lambda at: str(at % 2),
        },
        ["question1", "question2"],
        "is_duplicate",
    ),
]


@pytest.mark.parametrize(("columns", "question", "answer"), SETS)
def test_columns_of_public_data_sets(
    columns: dict[str, Make], question: list[str], answer: str
) -> None:
    guess = guess_columns(rows(**columns), {})
    assert (question, answer) == (list(guess.question), guess.answer)


def test_one_text_column_is_mapped_as_it_is() -> None:
    guess = guess_columns(rows(text=text, category=label), {})
    assert Columns(user="text", assistant="category") == guess.mapping


def test_two_columns_and_numbers_go_into_a_template() -> None:
    premises = rows(premise=text, hypothesis=text, label=lambda at: at % 3)
    guess = guess_columns(premises, {})
    expected = Template(
        user="Premise: {{ premise }}\n\nHypothesis: {{ hypothesis }}", assistant="{{ label }}"
    )
    assert expected == guess.mapping
    mapping = mapping_of(Data(template=expected))
    assert mapping is not None
    assert mapping.content(premises[4])["messages"] == [
        {"role": "user", "content": f"Premise: {text(4)}\n\nHypothesis: {text(4)}"},
        {"role": "assistant", "content": "1"},
    ]


def test_nested_values_are_written_as_json() -> None:
    found = guess_columns(rows(text=text, target=lambda at: {"n": at}), {}).mapping
    assert Template(user="{{ text }}", assistant="{{ target | tojson }}") == found


def test_what_the_user_names_is_taken_and_the_rest_is_guessed() -> None:
    table = rows(text=text, category=label, note=long)
    guess = guess_columns(table, {"user": "note", "system": "text"})
    assert Columns(user="note", assistant="category", system="text") == guess.mapping


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        UnknownColumns, match=r"--assistant names 'categry'.*Did you mean 'category'"
    ):
        guess_columns(rows(text=text, category=label), {"assistant": "categry"})


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        ({"id": number, "when": date}, "--user COLUMN"),
        ({"id": number, "message": text}, "--assistant COLUMN"),
    ],
)
def test_what_cannot_be_told_is_asked_for_by_its_flag(
    columns: dict[str, Make], missing: str
) -> None:
    with pytest.raises(UnknownColumns, match=missing):
        guess_columns(rows(**columns), {})
