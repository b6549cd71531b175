from __future__ import annotations

import json

import pytest
from pydantic import JsonValue

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.data.overlap import Kind, SharedCase, by_kind, leaks, refuse
from unitune.errors import Leak

SYSTEM = Message(role="system", content="You sort questions.")


def dataset(*conversations: tuple[Message, ...]) -> Dataset:
    examples = (Example(messages=messages) for messages in conversations)
    return Dataset("rows", tuple(Row(line, example) for line, example in enumerate(examples, 1)))


def chat(question: str, answer: str, system: Message | None = SYSTEM) -> tuple[Message, ...]:
    asked = Message(role="user", content=question)
    answered = Message(role="assistant", content=answer)
    return (system, asked, answered) if system else (asked, answered)


def shared(train: Dataset, test: Dataset) -> list[tuple[int, int, bool]]:
    return [(found.line, found.train_line, found.same_answer) for found in leaks((train,), test)]


def test_a_shared_system_prompt_alone_is_no_leak() -> None:
    assert leaks((dataset(chat("a", "x")),), dataset(chat("b", "x"))) == ()


def test_another_system_prompt_hides_no_leak() -> None:
    assert shared(dataset(chat("a", "x")), dataset(chat("a", "x", None))) == [(1, 1, True)]


@pytest.mark.parametrize(
    "question",
    [
        "Where is my CARD?",
        "  where\tis \n my card? ",
        "\uff37here is my card?",
        "where is my\u00a0card?",
        "\u200b".join("where is my card?"),
        "wh\u00ade\ufe0fre is my \u2060card?",
        "wh\u0435r\u0435 is m\u0443 c\u0430rd?",
        "WH\u0415R\u0395 \u0406S \u039cY C\u0410RD?",
    ],
)
def test_case_white_space_width_and_invisible_or_look_alike_letters_hide_no_leak(
    question: str,
) -> None:
    train = dataset(chat("other", "x"), chat("Where is my card?", "Arrival"))
    assert shared(train, dataset(chat(question, "arrival "))) == [(1, 2, True)]


QUIZ = "Which colour has the flag of Peru, in one word please?"


@pytest.mark.parametrize(
    "row",
    [
        (Message(role="system", content=QUIZ), *chat("Go", "red", None)),
        chat("Make a quiz", f"Q: {QUIZ} A: red"),
        (
            Message(role="user", content="Look it up"),
            Message(role="tool", content=f'{{"text": "Today\\n{QUIZ.lower()}\\n"}}'),
            Message(role="assistant", content="red"),
        ),
        chat(f"Where is Rome? In Italy?\n{QUIZ}\nWho am I?", "x"),
    ],
    ids=["system prompt", "answer", "result of a tool", "several in one turn"],
)
def test_a_question_that_is_quoted_in_any_turn_leaks(row: tuple[Message, ...]) -> None:
    (found,) = leaks((dataset(row),), dataset(chat(QUIZ, "red")))
    assert (found.kind, found.similarity, str(found)) == ("quoted", 1.0, "rows:1, quoted")


@pytest.mark.parametrize(
    ("question", "row"),
    [
        ("How do I top up my card?", "How do I top up my card with Apple Pay?"),
        ("Where is my card?", "Help!\nWhere is my card?\nI need it."),
        ("How do I top up my card?", "I am new. How do I top up my card? I have Apple Pay."),
    ],
)
def test_what_a_longer_line_of_a_user_holds_and_short_questions_are_no_quotation(
    question: str, row: str
) -> None:
    assert leaks((dataset(chat(row, "x")),), dataset(chat(question, "x"))) == ()


def calls(question: str, name: str, **arguments: int) -> tuple[Message, ...]:
    function: dict[str, JsonValue] = {"name": name, "arguments": json.dumps(arguments)}
    call: dict[str, JsonValue] = {"id": f"{question} {arguments}", "function": function}
    return Message(role="user", content=question), Message(role="assistant", tool_calls=(call,))


def test_tool_calls_are_compared_by_name_and_arguments_and_numbers_tell_questions_apart() -> None:
    asked = "Please set the heating of the living room to {} degrees tonight"
    train = dataset(calls(asked.format(22), "set_heating", to=22))
    assert shared(train, dataset(calls(asked.format(22), "set_heating", to=22))) == [(1, 1, True)]
    assert shared(train, dataset(calls(asked.format(22), "report", to=22))) == [(1, 1, False)]
    assert shared(train, dataset(calls(asked.format(23), "set_heating", to=23))) == []


def test_the_same_question_with_another_answer_leaks_the_input() -> None:
    train = dataset(chat("a", "x"), chat("a", "y"))
    test = dataset(chat("a", "z"), chat("a", "y"))
    assert shared(train, test) == [(1, 1, False), (2, 2, True)]


def test_a_conversation_leaks_by_all_its_user_turns() -> None:
    longer = (*chat("a", "x"), *chat("b", "y", None))
    assert leaks((dataset(chat("b", "y")),), dataset(longer)) == ()
    assert shared(dataset(longer), dataset(longer)) == [(1, 1, True)]


def test_turns_cut_otherwise_are_no_equal_question_but_a_near_one() -> None:
    train = dataset((*chat("a b", "x"), *chat("c d e", "y", None)))
    (found,) = leaks((train,), dataset((*chat("a b c", "x"), *chat("d e", "y", None))))
    assert (found.kind, found.similarity) == ("near-duplicate", 1.0)


def test_rows_without_user_turns_are_told_apart_by_what_they_have() -> None:
    def only_system(text: str) -> tuple[Message, ...]:
        return (
            Message(role="system", content=text),
            Message(role="assistant", content="x"),
        )

    train = dataset(only_system("a"))
    assert leaks((train,), dataset(only_system("b"))) == ()
    assert shared(train, dataset(only_system("a"))) == [(1, 1, True)]


def test_a_leaking_case_goes_by_its_case_id() -> None:
    named = Example(messages=chat("a", "x"), id="case-7")
    test = Dataset("test", (Row(3, named),))
    assert leaks((dataset(chat("a", "x")),), test) == (
        SharedCase(
            case="case-7",
            line=3,
            kind="exact",
            similarity=1.0,
            train_file="rows",
            train_line=1,
            same_answer=True,
        ),
    )


def test_a_double_is_looked_for_in_every_set_of_rows_and_the_nearest_is_told() -> None:
    near = dataset(chat("My card hasn't arrived yet, what shall I do now?", "x"))
    equal = Dataset("dev", dataset(chat("My card hasn't arrived yet. What shall I do?", "x")).rows)
    (found,) = leaks(
        (near, equal), dataset(chat("my card hasn't arrived yet. what shall i do?", "x"))
    )
    assert (found.kind, found.train_file) == ("exact", "dev")


def test_a_refusal_names_kinds_places_and_what_may_be_done() -> None:
    train = dataset(
        chat("a", "x"), chat("Is there a fee for exchanging foreign currencies?", "fee")
    )
    test = dataset(chat("A", "x"), chat("Is there a few for exchanging foreign currencies?", "fee"))
    with pytest.raises(Leak) as caught:
        refuse(leaks((train,), test), test)
    assert (
        "2 of 2 test cases are in the training or validation rows, 1 exact, 1 near duplicate: "
        "rows:1 (as rows:1), rows:2 (as rows:2, near-duplicate 0.80). Remove them from one of the "
        "files, or set evaluate.leaks to `drop`"
    ) in str(caught.value)


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ((), ""),
        (("exact",), "1 exact"),
        (
            ("n-gram", "near-duplicate", "exact", "near-duplicate"),
            "1 exact, 2 near duplicates, 1 by n-grams",
        ),
    ],
)
def test_kinds_are_counted_in_words(kinds: tuple[Kind, ...], told: str) -> None:
    assert told == by_kind(kinds)
