"""What is worth a look in training rows: each cause on rows planted for it."""

from __future__ import annotations

import csv
import json
import os
import random
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from support.chat_rows import chat_rows
from support.rows import job_on, write_rows

from unitune.data.load import Files
from unitune.data.quality import look
from unitune.data.quality.look import look_at, quality_of
from unitune.data.report import MOST_ISSUES, Cause, Quality
from unitune.evaluate.readiness import check

BANKING77 = Path(__file__).parents[3] / "../shared/data/banking77"
TOPICS = {
    "card": "card plastic chip wallet arrived envelope delivery posted",
    "rate": "exchange rate euro dollar currency conversion market worse",
    "pin": "pin digits unlock blocked attempts keypad forgotten reset",
}


def look_at_rows(pairs: Iterable[tuple[str, str]]) -> Quality:
    """Look at rows that ask and answer this, on lines from 1."""
    return look_at(chat_rows(pairs), Files(["train.jsonl"]))


def lines_by_cause(quality: Quality) -> dict[str, list[int]]:
    return {cause.code: [each.row.line for each in cause.issues] for cause in quality.causes}


def cause_of(quality: Quality, code: str) -> Cause:
    return next(cause for cause in quality.causes if cause.code == code)


def tickets(count: int = 60) -> list[tuple[str, str]]:
    """Return questions of three topics, each of eight words of its own, with their labels."""
    chance = random.Random(3)  # noqa: S311 - repeatable, not secret
    labels = list(TOPICS)
    return [
        (" ".join(chance.sample(TOPICS[label].split(), 6)), label)
        for label in (labels[at % len(labels)] for at in range(count))
    ]


def test_rows_that_say_what_others_do_not_are_worth_no_look() -> None:
    quality = look_at_rows(tickets())

    assert lines_by_cause(quality) == {}
    assert (quality.rows, quality.is_whole) == (60, True)
    assert quality.answers == {"card": 20, "rate": 20, "pin": 20}


def test_a_wrong_label_comes_first_beside_rows_that_have_the_right_one() -> None:
    rows = tickets()
    rows[7] = (rows[7][0], "pin")  # of the rate
    issue = cause_of(look_at_rows(rows), "label-errors").issues[0]

    assert (issue.row.line, issue.row.answer) == (8, "pin")
    assert "'rate'" in issue.why
    assert [beside.answer for beside in issue.related] == ["rate", "rate"]


@pytest.mark.skipif(not BANKING77.is_dir(), reason="needs the banking77 files beside the checkout")
def test_of_flipped_labels_of_real_rows_nine_in_ten_are_at_the_beginning_of_the_list() -> None:
    """5 % of banking77's labels are flipped at random; the first 5 % of the list are looked at."""
    with (BANKING77 / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    labels = sorted({label for _, label in rows})
    chance = random.Random(1)  # noqa: S311 - repeatable, not secret
    flipped = set(chance.sample(range(len(rows)), round(0.05 * len(rows))))
    for at in flipped:
        question, label = rows[at]
        rows[at] = question, chance.choice([other for other in labels if other != label])
    listed = cause_of(look_at_rows(rows), "label-errors").issues[: len(flipped)]

    hits = sum(issue.row.line - 1 in flipped for issue in listed)
    assert len(listed) == len(flipped)
    assert hits / len(flipped) > 0.9


@pytest.mark.parametrize(("flipped", "least", "most"), [(0, 0, 4), (10, 6, 14), (60, 36, 72)])
def test_how_many_labels_are_wrong_is_estimated(flipped: int, least: int, most: int) -> None:
    """Of 200 rows, where labels are wrong at random."""
    rows, chance = tickets(200), random.Random(2)  # noqa: S311 - repeatable, not secret
    for at in chance.sample(range(200), flipped):
        question, label = rows[at]
        rows[at] = question, chance.choice([each for each in TOPICS if each != label])
    quality = look_at_rows(rows)
    likely = sum(cause.likely for cause in quality.causes)
    assert least <= likely <= most


def test_labels_that_do_not_follow_from_words_are_not_doubted() -> None:
    chance = random.Random(6)  # noqa: S311 - repeatable, not secret
    rows = [(text, chance.choice(["yes", "no", "maybe"])) for text, _ in tickets(90)]

    assert "label-errors" not in lines_by_cause(look_at_rows(rows))


def test_near_questions_with_different_answers_contradict_each_other() -> None:
    """Those that differ in a number as well are two questions."""
    question = "How long does it take until my new card arrives at {}?"
    rows = [
        *tickets(),
        (question.format("my home"), "card"),
        (question.format("my homes"), "pin"),
        ("Where do I see my transfer number 17 to my friend abroad?", "pin"),
        ("Where do I see my transfer number 18 to my friend abroad?", "card"),
    ]
    cause = cause_of(look_at_rows(rows), "contradictions")

    (issue,) = cause.issues
    assert {61, 62} == {issue.row.line, issue.related[0].line}
    assert {"card", "pin"} == {issue.row.answer, issue.related[0].answer}


def test_near_duplicates_that_answer_alike_are_one_family() -> None:
    question = "How long does it take until my new card arrives at my {}?"
    rows = [*tickets(), *((question.format(place), "card") for place in ("home", "homes", "hom"))]
    cause = cause_of(look_at_rows(rows), "near-duplicates")

    (family,) = cause.issues
    assert (family.row.line, [beside.line for beside in family.related]) == (61, [62, 63])
    assert family.why.startswith("3 rows")


def test_a_template_around_each_question_makes_no_duplicates() -> None:
    rows = [
        (f"Sort this message of a customer of ours: {text}", label) for text, label in tickets()
    ]

    assert lines_by_cause(look_at_rows(rows)) == {}


def test_long_answers_contradict_each_other_only_where_they_say_something_else() -> None:
    answer = "You can change the address of your account in the settings of the app at any time."
    same = "You can change the address of your account in the settings of the app, at any time!"
    other = "Please send us a letter with a copy of your passport, and we will do the rest for you."
    question = "How do I change the address of my account, now that I have moved?"
    first = [(question, answer), (f"{question}!", same)]

    assert "contradictions" not in lines_by_cause(look_at_rows(first))
    contradicted = look_at_rows([*first, (f"{question}!!", other)])
    assert lines_by_cause(contradicted)["contradictions"] == [3]


def broken(answers: Sequence[str], odd: str) -> Quality:
    """Look at rows with answers of a format, after which comes one of another."""
    texts = [text for text, _ in tickets(len(answers) + 1)]
    return look_at_rows(zip(texts, [*answers, odd], strict=True))


@pytest.mark.parametrize(
    ("usual", "odd", "code"),
    [
        ('{{"city": "town {}"}}', '{"city": "town"', "answer-json"),
        ('{{"city": "town {}"}}', '["town"]', "answer-json"),
        ('{{"city": "town {}"}}', '{"town": "town"}', "answer-keys"),
        ("the town of {}", "Город номер семь", "answer-script"),
        ("the town of {}", "The town of ten", "answer-case"),
        ("the town of {}", "THE TOWN", "answer-case"),
        ("it is the town of number {}.", "it is the town", "answer-end"),
    ],
)
def test_an_answer_that_breaks_the_format_of_the_others_is_named(
    usual: str, odd: str, code: str
) -> None:
    quality = broken([usual.format(number) for number in range(40)], odd)

    assert lines_by_cause(quality) == {code: [41]}
    assert cause_of(quality, code).issues[0].related[0].line == 1


def test_formats_that_are_both_usual_are_not_named() -> None:
    answers = [f"the town of {at}" if at % 3 else json.dumps({"town": at}) for at in range(40)]

    assert lines_by_cause(broken(answers, "the town")) == {}


def test_a_label_in_two_spellings_is_named_once() -> None:
    more = tickets(63)[60:]
    quality = look_at_rows([*tickets(), *((text, "CARD") for text, _ in more), ("chip", "Card")])
    issues = cause_of(quality, "label-spellings").issues

    assert [(issue.row.line, issue.related[0].answer) for issue in issues] == [
        (61, "card"),
        (64, "card"),
    ]
    assert issues[0].why == "'CARD' is in 3 rows, 'card' in 20."


def test_rare_labels_and_one_that_outweighs_the_others_are_named() -> None:
    rows = [row for row in tickets(90) if row[1] != "pin"]
    quality = look_at_rows([*rows, *tickets(9)[2::3]])
    rare = cause_of(quality, "uneven-labels")

    assert [issue.row.answer for issue in rare.issues] == ["pin"]
    assert "3 of 63 rows" in rare.issues[0].why
    mostly = [row for row in tickets(90) if row[1] == "card"]
    large = cause_of(look_at_rows([*mostly, *tickets(30)]), "uneven-labels")
    assert large.issues[0].why.startswith("67 % of the rows")


def test_few_rows_with_much_of_the_bill_are_named_by_their_length() -> None:
    quality = look_at_rows([*tickets(), ("card " * 900, "card")])

    assert lines_by_cause(quality)["long-rows"] == [61]
    assert "% of all" in cause_of(quality, "long-rows").issues[0].why


def test_only_the_beginning_of_a_large_file_is_looked_at_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(look, "MOST_ROWS", 50)

    quality = look_at_rows(tickets(51))
    assert (quality.rows, quality.is_whole) == (50, False)
    quality = look_at_rows(tickets(50))
    assert (quality.rows, quality.is_whole) == (50, True)


def test_of_very_many_rows_of_a_cause_the_first_are_listed_and_all_counted() -> None:
    rows = [(f"what is the sum of {at} and the number {at + 7}?", f"{at}.") for at in range(1100)]
    rows += [(text, "THE SUM") for text, _ in rows]
    cause = cause_of(look_at_rows(rows), "contradictions")

    assert (cause.total, len(cause.issues)) == (1100, MOST_ISSUES)


def test_rows_that_weigh_two_answers_do_not_contradict_each_other(tmp_path: Path) -> None:
    """One question may well have several pairs of answers."""
    rows = [
        {"prompt": "How do I reset my pin?", "chosen": f"So {at}.", "rejected": "No."}
        for at in range(30)
    ]
    quality = quality_of(str(write_rows(tmp_path / "pairs.jsonl", rows)))

    assert quality is not None
    assert lines_by_cause(quality) == {}


def test_what_looks_like_a_secret_is_shown_by_its_kind() -> None:
    """Source: a token of the form that gitleaks' rule ``github-pat`` names, made for this test."""
    token = "ghp_" + "9wQx3ZrT7kLm2VbN8cYd5HsJ4fGp6AeU1oRi"
    rows = [(f"{text} {token}", label) for text, label in tickets()]
    rows[7] = (rows[7][0], "pin")
    shown = look_at_rows(rows).model_dump_json()

    assert token not in shown
    assert "[github-pat]" in shown


def test_rows_are_shown_as_they_are_trained_on_where_personal_data_is_redacted(
    tmp_path: Path,
) -> None:
    rows = [(f"{text} write to ann@seabank.com", label) for text, label in tickets()]
    rows[7] = (rows[7][0], "pin")
    pairs = ({"prompt": text, "completion": label} for text, label in rows)
    write_rows(tmp_path / "train.jsonl", pairs)
    quality = quality_of(job_on(tmp_path, {"train": "train.jsonl", "personal_data": "redact"}))

    assert quality is not None
    row = cause_of(quality, "label-errors").issues[0].row
    assert row.question.endswith("write to <EMAIL_1>")


def test_a_file_without_rows_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert quality_of(str(tmp_path / "none.jsonl")) is None


def test_a_pipe_is_checked_as_a_file_is(tmp_path: Path) -> None:
    pipe, file = tmp_path / 'my "rows".jsonl', tmp_path / "same.jsonl"
    os.mkfifo(pipe)
    pairs = [{"prompt": "Ahoy?", "completion": answer, "label": True} for answer in ("A", "A", "")]
    write_rows(file, pairs)
    writer = threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()))
    writer.start()
    report = check(pipe)
    writer.join()

    assert {"rated-row", "duplicate"} < {finding.code for finding in report.findings}
    names = str(file), str(pipe).replace('"', '\\"')
    assert report.model_dump_json() == check(file).model_dump_json().replace(*names)


def labelled(flipped: int) -> list[tuple[str, str]]:
    """Return 1,200 questions of 12 labels; words of most are no label's own, and some are wrong."""
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    words = {f"label{at}": [f"o{at}x{number}" for number in range(30)] for at in range(12)}
    rows = [
        (" ".join(chance.choice(words[label] if own < 3 else [f"w{chance.randrange(300)}"])
                  for own in chance.sample(range(8), 8)), label)
        for label in chance.choices(list(words), k=1200)
    ]  # fmt: skip
    for at in range(flipped):
        question, label = rows[at]
        rows[at] = question, chance.choice([other for other in words if other != label])
    return rows


def test_the_list_of_doubtful_labels_is_short_where_none_is_wrong() -> None:
    listed = lines_by_cause(look_at_rows(labelled(0))).get("label-errors", [])
    assert len(listed) <= 3


def test_the_list_of_doubtful_labels_ends_where_half_are_wrong_and_says_how_many() -> None:
    cause = cause_of(look_at_rows(labelled(60)), "label-errors")
    wrong = sum(issue.row.line <= 60 for issue in cause.issues)
    assert cause.total <= 2.5 * wrong
    assert wrong >= 40
    expected = int(cause.fix.split()[1])
    assert abs(expected - wrong) < 20
