"""Samples of lm-eval come over with what was asked, answered and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unitune.errors import DataError
from unitune.importers.lm_eval import read_samples

MADE = Path(__file__).parent / "made" / "lm-eval"


def samples(name: str) -> Path:
    return next((MADE / name).glob("samples_*.jsonl"))


def test_samples_hold_cases_answers_and_every_metric_by_filter() -> None:
    suite = read_samples(samples("small"))

    assert suite.name == "capitals"
    assert [f"capitals-{number}" for number in range(6)] == [case.id for case in suite.cases]
    assert [turn.text for turn in suite.cases[0].messages] == [
        "Q: What is the capital of France?\nA:"
    ]
    assert suite.cases[0].answer == "Paris"
    (answers,) = suite.answers
    assert answers.model == "small"
    assert answers.texts["capitals-0"] == "I do not know.", "what was said, before any filter"
    assert set(answers.scores["capitals-0"]) == {"exact_match,strip", "exact_match,first-word"}
    # lm-eval's own result of this run is 0.5 under both filters.
    for key in answers.scores["capitals-0"]:
        assert sum(scores[key] for scores in answers.scores.values()) / 6 == 0.5


def test_a_chat_template_leaves_messages() -> None:
    assert [(turn.role, turn.text) for turn in read_samples(samples("chat")).cases[0].messages] == [
        ("system", "One word."),
        ("user", "Q: What is the capital of France?\nA:"),
    ]


def test_the_answer_of_a_multiple_choice_is_the_likeliest_choice() -> None:
    suite = read_samples(samples("dummy"))
    (answers,) = suite.answers
    assert suite.cases[0].answer == "Paris"
    for case in suite.cases:
        right = answers.texts[case.case_id] == case.answer
        assert float(right) == answers.scores[case.case_id]["acc,none"]


def test_the_results_beside_the_samples_name_the_model(tmp_path: Path) -> None:
    source = samples("small")
    (tmp_path / source.name).write_bytes(source.read_bytes())
    results = tmp_path / source.name.replace("samples_capitals", "results").replace("jsonl", "json")
    results.write_text(json.dumps({"model_name": "Qwen/Qwen3-0.6B", "model_source": "hf"}))

    suite = read_samples(tmp_path / source.name)

    assert suite.base == ("local", "Qwen/Qwen3-0.6B")
    assert suite.answers[0].model == "Qwen/Qwen3-0.6B"


def test_lines_that_are_no_samples_are_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(samples("small").read_text().splitlines()[0] + '\n{"doc_id": 1}\n')
    with pytest.raises(
        DataError, match=r"samples\.jsonl:2 is not a sample of lm-eval: target is missing"
    ):
        read_samples(path)
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_samples(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(tmp_path / "none.jsonl")


def test_likelihoods_of_whole_texts_are_no_answers(tmp_path: Path) -> None:
    row = {
        "doc_id": 0,
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": "A whole text."}},
        "resps": [["-12.5"]],
        "metrics": ["word_perplexity"],
        "word_perplexity": [-12.5, 3],
    }
    (tmp_path / "samples.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="no answers to compare"):
        read_samples(tmp_path / "samples.jsonl")
