"""A job made for a file of examples: what it is read as, and how its answers are scored."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command

from unitune.errors import DataError
from unitune.evaluate.readiness import check
from unitune.importers.new_job import Draft, Wishes, draft_job
from unitune.job.job import Job
from unitune.scorers.row_scorers import RowScorers
from unitune.scorers.text import Numeric

MESSAGES = Path(__file__).parents[3] / "docs" / "tutorial" / "messages.csv"
"""Rows of banking77: messages with five labels."""


def banking() -> list[tuple[str, str]]:
    with MESSAGES.open(encoding="utf-8", newline="") as file:
        return [(row["message"], row["label"]) for row in csv.DictReader(file)][:200]


def pairs(answer: Callable[[int, str], Any] = lambda _, label: label) -> list[dict[str, Any]]:
    """Return rows with answers made of their place and label: the label, if not told otherwise."""
    return [
        {"prompt": message, "completion": answer(at, label)}
        for at, (message, label) in enumerate(banking())
    ]


def draft(
    folder: Path, content: str | list[dict[str, Any]], name: str = "rows.jsonl", **wishes: Any
) -> Draft:
    text = content if isinstance(content, str) else lines(content)
    (folder / name).write_text(text, encoding="utf-8")
    given = Wishes(backend="fake", model="base", **wishes)
    made = draft_job(folder / name, folder / "unitune.yaml", given)
    (folder / "unitune.yaml").write_text(made.text, encoding="utf-8")
    return made


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def sizes(made: Draft) -> tuple[int, int, int]:
    """Return how many rows are for training, validation and the test."""
    splits = made.rows.splits
    return len(splits.train), len(splits.validation), len(splits.test or ())


def scorers(made: Draft) -> list[str]:
    return [scorer.name for scorer in made.job.evaluate.scorers]


ANSWERS: dict[str, tuple[Callable[[int, str], str], list[str]]] = {
    "labels": (lambda _, label: label, ["choice", "class_f1"]),
    "grades": (lambda at, _: str(at % 5), ["choice", "class_f1"]),
    "JSON": (
        lambda at, label: json.dumps({"intent": label, "row": at}),
        ["json_equal", "json_fields", "json_valid"],
    ),
    "numbers": (lambda at, _: f"{at * 37 / 4:,.2f} EUR", ["numeric"]),
    # The form of openai/gsm8k
    "final numbers": (lambda at, _: f"He has {at} + {at} = {2 * at}.\n#### {2 * at}", ["numeric"]),
    "codes": (lambda at, _: f"{at:05d}", ["exact", "token_f1"]),
    "phrases": (lambda at, label: f"{label} {at}", ["exact", "token_f1"]),
    "texts": (
        lambda at, label: f"Dear customer {at}, {label} is what we do.",
        ["token_f1", "length"],
    ),
    "texts without spaces": (
        lambda at, _: "荷物がまだ届いていませんので、お調べします" + "。" * at,
        ["sentence_chrf", "length"],
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_scorers_fit_the_answers_and_the_written_job_passes_its_check(
    tmp_path: Path, kind: str
) -> None:
    answer, expected = ANSWERS[kind]
    made = draft(tmp_path, pairs(answer))
    assert expected == scorers(made)
    written = Job.load(tmp_path / "unitune.yaml")
    assert made.job == written
    assert check(written).errors == ()
    is_text = expected[1:] == ["length"]
    assert is_text == ("not whether they are right" in made.text.replace("\n# ", " "))


def test_a_job_in_a_folder_that_is_not_there_yet_names_its_rows_from_there(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of the rows names them as from here, without `evals/..`."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(lines(pairs()), encoding="utf-8")
    told = unitune("init", "--data", "rows.jsonl", "--output", "evals/unitune.yaml")
    assert (told.code, told.err) == (0, "")
    job = Job.load(Path("evals/unitune.yaml"))
    assert ("../rows.jsonl", {"rows.jsonl"}) == (
        job.data.train,
        {file.name for file in check(job).files},
    )


def test_rows_with_scorers_of_their_own_get_a_job_that_reads_them(tmp_path: Path) -> None:
    rows = pairs(lambda at, _: f"{at * 37}")
    own = [{**row, "scorers": ["contains"]} if at % 2 else row for at, row in enumerate(rows)]
    made = draft(tmp_path, own)
    (scorer,) = made.job.evaluate.scorers
    assert RowScorers(default=(Numeric(),)) == scorer
    assert "rows have their own scorers" in made.answers.kind
    assert [each for each in made.findings if each.severity == "error"] == []


def test_decimal_commas_are_seen(tmp_path: Path) -> None:
    made = draft(tmp_path, pairs(lambda at, _: f"{at * 37},{at % 100:02d}"))
    (numeric,) = made.job.evaluate.scorers
    assert numeric.model_dump(mode="json", exclude_defaults=True) | {"type": "numeric"} == {
        "type": "numeric",
        "decimal": "comma",
    }


def test_calls_of_tools_are_scored_as_calls(tmp_path: Path) -> None:
    """The row is the example of OpenAI's fine-tuning guide, section on tool calls."""
    tool = {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather",
            "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
        },
    }

    def row(at: int) -> dict[str, Any]:
        arguments = json.dumps({"location": f"Town {at}, USA"})
        call = {"name": "get_current_weather", "arguments": arguments}
        calls = [{"id": "call_id", "type": "function", "function": call}]
        asked = {"role": "user", "content": f"What is the weather in Town {at}?"}
        return {"messages": [asked, {"role": "assistant", "tool_calls": calls}], "tools": [tool]}

    made = draft(tmp_path, [row(at) for at in range(120)])
    assert (scorers(made), made.answers.kind) == (["tool_calls"], "tool calls")
    assert check(made.job).errors == ()
    mixed = [row(at) for at in range(100)] + pairs(lambda at, _: f"I cannot say {at}.")[:50]
    (tmp_path / "mixed").mkdir()
    assert draft(tmp_path / "mixed", mixed).answers.kind == "tool calls in 100 rows, text in 50"


def test_labels_are_listed_where_the_training_rows_may_lack_one(tmp_path: Path) -> None:
    """Of 40 labels, 39 have ten rows, and one has a single row, which is kept for the test."""
    rows = [{"prompt": f"word{n} {n * n}", "completion": f"label-{n % 39}"} for n in range(390)]
    # Of 2,000 such questions this has the smallest hash.
    made = draft(tmp_path, [*rows, {"prompt": "rare question 400", "completion": "label-39"}])
    assert "label-39" in {row.answer for row in made.rows.splits.test or ()}
    assert len(made.job.evaluate.scorers[0].model_dump(mode="json")["options"]) == 40
    assert check(made.job).errors == ()
    common = draft(tmp_path, rows)
    assert None is common.job.evaluate.scorers[0].model_dump(mode="json")["options"]


def test_labels_that_differ_by_case_alone_are_told_apart(tmp_path: Path) -> None:
    rows = lines(pairs(lambda at, _: ("US", "us", "no")[at % 3]))
    made = draft(tmp_path, rows, keep_spellings=True)
    assert [each.model_dump(mode="json")["ignore_case"] for each in made.job.evaluate.scorers] == [
        False,
        False,
    ]
    assert check(made.job).errors == ()


FORMS: dict[str, tuple[str, Callable[[list[tuple[str, str]]], str], str]] = {
    "a table of Excel's": (
        "tickets.csv",
        lambda rows: (
            "\ufeffCase;Text;Queue\r\n"
            + "".join(f'{at};"{text}";{label}\r\n' for at, (text, label) in enumerate(rows))
        ),
        "a table separated by semicolons: rows mapped by the job from Text, Queue; metadata Case",
    ),
    "a list of questions and answers": (
        "list.json",
        lambda rows: json.dumps([{"question": q, "answer": a} for q, a in rows], indent=1),
        "a JSON list: pairs from question, answer",
    ),
    "ShareGPT": (
        "dump.json",
        lambda rows: json.dumps(
            [
                {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
                for q, a in rows
            ],
            indent=1,
        ),
        "a JSON list: ShareGPT conversations from conversations",
    ),
    "chat": (
        "chat.jsonl",
        lambda rows: lines(
            [
                {
                    "messages": [
                        {"role": "user", "content": q},
                        {"role": "assistant", "content": a},
                    ]
                }
                for q, a in rows
            ]
        ),
        "JSON Lines: chat messages from messages",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_give_the_same_job_in_whatever_form(tmp_path: Path, form: str) -> None:
    name, write, read_as = FORMS[form]
    made = draft(tmp_path, write(banking()), name)
    assert read_as == made.read_as
    assert scorers(made) == ["choice", "class_f1"]
    assert sizes(made) == (130, 30, 40)
    as_pairs = draft(tmp_path, pairs(), "p.jsonl")
    asked, expected = (
        {row.messages[0].text for row in each.rows.splits.test or ()} for each in (made, as_pairs)
    )
    assert expected == asked


@pytest.mark.heavy
def test_a_large_file_keeps_no_more_cases_than_can_be_answered(tmp_path: Path) -> None:
    rows = [{"prompt": f"word{n} {n * n}", "completion": f"label-{n % 5}"} for n in range(5000)]
    assert sizes(draft(tmp_path, rows)) == (4302, 198, 500)
    asked = draft(tmp_path, rows, test=0.3).job.data
    assert asked.test == 0.3


def test_few_rows_are_not_all_held_out(tmp_path: Path) -> None:
    assert sizes(draft(tmp_path, pairs()[:60])) == (38, 10, 12)


def test_preferences_are_a_job_for_dpo(tmp_path: Path) -> None:
    rows = [
        {"prompt": q, "chosen": f"{a}, as you wish, sir", "rejected": "no"} for q, a in banking()
    ]
    made = draft(tmp_path, rows)
    assert made.job.method == "dpo"
    assert made.read_as.startswith("JSON Lines: TRL preferences from prompt")


def test_rated_answers_are_not_guessed_to_be_good_ones(tmp_path: Path) -> None:
    """Named columns do not make a bad answer one to learn either."""
    file = tmp_path / "rated.jsonl"
    row = {"prompt": "A question that is long enough?", "completion": "yes", "label": False}
    file.write_text((json.dumps(row) + "\n") * 40)
    for columns in ({}, {"user": "prompt", "assistant": "completion"}):
        with pytest.raises(DataError, match="rates its answer"):
            draft_job(file, tmp_path / "unitune.yaml", Wishes(columns))


def test_the_comments_say_what_was_seen_and_cannot_break_the_file(tmp_path: Path) -> None:
    rows = [{"a\nscorers: x": q, "b": label} for q, label in banking()]
    made = draft(tmp_path, rows, "od\u2028d: name.jsonl")
    assert "# Of 200 rows, 40 are reserved for the test" in made.text
    assert made.job == Job.load(tmp_path / "unitune.yaml")
    assert made.job.name == "od-d-name"


def test_rows_that_cannot_be_used_are_named_and_no_job_is_made(tmp_path: Path) -> None:
    rows = pairs()
    rows[3]["completion"] = ""
    with pytest.raises(DataError, match=r"rows\.jsonl:4: the answer is empty") as refused:
        draft(tmp_path, rows)
    assert re.search(r"unitune init --data \S*rows\.jsonl --drop", str(refused.value))
    made = draft(tmp_path, rows, drop=True)
    assert made.job.data.unusable == "drop"
    assert sum(sizes(made)) == 199


def test_spellings_of_a_label_are_read_as_the_usual_one_and_said(tmp_path: Path) -> None:
    def spelled(at: int, label: str) -> str:
        return {0: label.upper(), 1: f" {label.capitalize()} "}.get(at % 20, label)

    made = draft(tmp_path, pairs(spelled))
    labels = sorted({label for _, label in banking()})
    assert tuple(labels) == made.job.data.labels
    assert made.answers.kind == "5 labels; 14 spellings, 5 when case and blanks are ignored"
    assert set(labels) == {row.answer for row in made.rows.splits.train}
    assert made.job == Job.load(tmp_path / "unitune.yaml")
    quality = check(made.job).quality
    assert quality is not None
    assert "label-spellings" not in {cause.code for cause in quality.causes}


def test_an_object_beside_a_text_is_the_answer_and_other_columns_are_named(tmp_path: Path) -> None:
    rows = [
        {"id": at, "invoice": f"{message} <b>&", "language": ("de", "en")[at % 2],
         "extracted": {"vendor": f"O'Neil & Söhne {at}", "amount": at, "currency": "EUR"}}
        for at, (message, _) in enumerate(banking())
    ]  # fmt: skip
    made = draft(tmp_path, rows)
    assert made.guess is not None
    assert (
        made.guess.question, made.guess.answer, made.guess.others,
    ) == (("invoice",), "extracted", ("language",))  # fmt: skip
    assert scorers(made) == ["json_equal", "json_fields", "json_valid"]
    answer = made.rows.splits.train.rows[0].example.answer
    assert answer is not None
    assert list(json.loads(answer)) == ["vendor", "amount", "currency"]
    assert "O'Neil & Söhne" in answer


def test_several_labels_in_one_answer_are_said_and_scored_by_their_words(tmp_path: Path) -> None:
    parts = ("food", "service", "price", "noise", "staff", "place")
    made = draft(
        tmp_path,
        pairs(
            lambda at, _: "; ".join(dict.fromkeys((parts[at % 6], parts[at % 4], parts[at % 5])))
        ),
    )
    assert made.answers.kind.startswith("6 labels; ")
    assert scorers(made) == ["token_f1", "exact"]


def test_rows_with_tools_get_a_chat_template_with_tools_and_a_word_about_it(
    tmp_path: Path,
) -> None:
    call: dict[str, Any] = {
        "id": "1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": message},
                      {"role": "assistant", "tool_calls": [call]}],
         "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}
        for message, _ in banking()
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(lines(rows), encoding="utf-8")
    made = draft_job(tmp_path / "rows.jsonl", tmp_path / "unitune.yaml", Wishes())
    assert made.job.data.chat_template == "hermes"
    assert "chat_template: hermes" in made.text
    assert "A larger model" in made.caution
    assert not [finding for finding in made.findings if finding.severity == "error"]
    named = Wishes(model="smollm2-135m-instruct")
    made = draft_job(tmp_path / "rows.jsonl", tmp_path / "unitune.yaml", named)
    assert made.job.data.chat_template is None


def test_the_file_is_found_from_the_folder_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "rows.jsonl").write_text(lines(pairs()))
    wishes = Wishes(backend="fake", model="base")
    made = draft_job(tmp_path / "rows.jsonl", tmp_path / "jobs" / "a.yaml", wishes)
    (tmp_path / "jobs" / "a.yaml").write_text(made.text)
    assert made.job.data.train == "../rows.jsonl"
    assert check(tmp_path / "jobs" / "a.yaml").errors == ()
