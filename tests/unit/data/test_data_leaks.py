from __future__ import annotations

import pytest

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.data.leaks import SharedCase, leaks

SYSTEM = Message(role="system", content="You sort questions.")


def dataset(*conversations: tuple[Message, ...]) -> Dataset:
    examples = (Example(messages=messages) for messages in conversations)
    return Dataset("rows", tuple(Row(line, example) for line, example in enumerate(examples, 1)))


def chat(question: str, answer: str, system: Message | None = SYSTEM) -> tuple[Message, ...]:
    asked = Message(role="user", content=question)
    answered = Message(role="assistant", content=answer)
    return (system, asked, answered) if system else (asked, answered)


def shared(train: Dataset, test: Dataset) -> list[tuple[int, int, bool]]:
    return [(found.line, found.train_line, found.same_answer) for found in leaks(train, test)]


def test_a_shared_system_prompt_alone_is_no_leak() -> None:
    assert () == leaks(dataset(chat("a", "x")), dataset(chat("b", "x")))


def test_another_system_prompt_hides_no_leak() -> None:
    assert [(1, 1, True)] == shared(dataset(chat("a", "x")), dataset(chat("a", "x", None)))


@pytest.mark.parametrize(
    "question",
    [
        "Where is my CARD?",
        "  where\tis \n my card? ",
        "\uff37here is my card?",
        "where is my\u00a0card?",
    ],
)
def test_case_white_space_and_width_hide_no_leak(question: str) -> None:
    train = dataset(chat("other", "x"), chat("Where is my card?", "Arrival"))
    assert [(1, 2, True)] == shared(train, dataset(chat(question, "arrival ")))


def test_the_same_question_with_another_answer_leaks_the_input() -> None:
    train = dataset(chat("a", "x"), chat("a", "y"))
    test = dataset(chat("a", "z"), chat("a", "y"))
    assert [(1, 1, False), (2, 2, True)] == shared(train, test)


def test_a_conversation_leaks_by_all_its_user_turns() -> None:
    longer = (*chat("a", "x"), *chat("b", "y", None))
    assert () == leaks(dataset(chat("b", "y")), dataset(longer))
    assert [(1, 1, True)] == shared(dataset(longer), dataset(longer))


def test_a_turn_cut_in_two_is_another_question() -> None:
    train = dataset((*chat("a b", "x"), *chat("c", "y", None)))
    assert () == leaks(train, dataset((*chat("a", "x"), *chat("b c", "y", None))))


def test_rows_without_user_turns_are_told_apart_by_what_they_have() -> None:
    def only_system(text: str) -> tuple[Message, ...]:
        return (
            Message(role="system", content=text),
            Message(role="assistant", content="x"),
        )

    train = dataset(only_system("a"))
    assert () == leaks(train, dataset(only_system("b")))
    assert [(1, 1, True)] == shared(train, dataset(only_system("a")))


def test_a_leaking_case_goes_by_its_case_id() -> None:
    named = Example(messages=chat("a", "x"), id="case-7")
    test = Dataset("test", (Row(3, named),))
    assert (SharedCase("case-7", 3, 1, same_answer=True),) == leaks(dataset(chat("a", "x")), test)
