"""Logs of inspect come over with what was asked, answered and scored."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from unitune.errors import DataError, MissingExtra
from unitune.importers.inspect_log import read_log

MADE = Path(__file__).parent / "made" / "inspect"


def test_a_log_holds_cases_answers_and_every_score() -> None:
    pytest.importorskip("backports.zstd", reason="needs the extra inspect")
    suite = read_log(MADE / "capitals-small.eval")

    assert suite.name == "capitals"
    assert suite.base == ("openai", "small")
    assert [str(number) for number in range(1, 9)] == [case.id for case in suite.cases]
    first = suite.cases[0]
    assert [(turn.role, turn.text) for turn in first.messages] == [
        ("system", "Answer with the name of the city alone."),
        ("user", "What is the capital of France?"),
    ]
    assert first.answer == "Paris"
    (answers,) = suite.answers
    assert answers.model == "openai/small"
    assert answers.texts["1"] == "I do not know."
    assert answers.scores["1"] == {"includes": 0.0, "match": 0.0}
    # inspect's own accuracy in the log's header is 0.625.
    assert sum(scores["match"] for scores in answers.scores.values()) / 8 == 0.625


def test_what_a_template_made_of_the_question_is_what_was_asked() -> None:
    pytest.importorskip("backports.zstd", reason="needs the extra inspect")
    case = read_log(MADE / "choices.eval").cases[0]
    assert case.messages[0].text.startswith("Answer the following multiple choice question.")
    assert case.messages[0].text.endswith("A) Paris\nB) Berlin\nC) Rome")
    assert case.answer == "A"


def test_further_epochs_are_told_and_the_first_one_stays() -> None:
    suite = read_log(MADE / "capitals-epochs.json")
    assert [case.id for case in suite.cases] == ["1", "2"]
    assert [finding.message[:17] for finding in suite.findings] == [
        "sample 1: epoch 2",
        "sample 2: epoch 2",
    ]


def test_without_the_extra_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if sys.version_info >= (3, 14):
        pytest.skip("this Python reads zstd itself")
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[inspect\]'.*inspect log convert"):
        read_log(MADE / "choices.eval")


def log(tmp_path: Path, **sample: Any) -> Path:
    """A log of one sample, as inspect would write it."""
    path = tmp_path / "log.json"
    one = {
        "id": "a",
        "epoch": 1,
        "input": "2+2?",
        "target": ["4", "four"],
        "messages": [
            {"role": "user", "content": "2+2?", "source": "input"},
            {"role": "assistant", "content": "4", "source": "generate"},
        ],
        "output": {"choices": [{}], "completion": "4"},
        "scores": {"match": {"value": "C"}},
        **sample,
    }
    head = {"version": 2, "eval": {"task": "suite/sums", "model": "mockllm/model"}}
    path.write_text(json.dumps({**head, "samples": [one]}), encoding="utf-8")
    return path


def test_several_targets_are_shown_together_and_kept_apart(tmp_path: Path) -> None:
    suite = read_log(log(tmp_path))
    assert suite.name == "sums"
    assert None is suite.base
    assert suite.cases[0].answer == "4 | four"
    assert suite.cases[0].model_extra == {"targets": ["4", "four"]}


def test_scores_that_are_no_figures_stay_behind(tmp_path: Path) -> None:
    """Source: inspect_ai's `value_to_float`: C 1, P 0.5, I and N 0; NaN is a case not scored."""
    scores = {
        "letter": {"value": "P"},
        "yes": {"value": True},
        "word": {"value": "good"},
        "unscored": {"value": float("nan")},
        "several": {"value": {"a": 0.25, "b": "I"}},
    }
    (answers,) = read_log(log(tmp_path, scores=scores)).answers
    assert answers.scores["a"] == {"letter": 0.5, "yes": 1.0, "several.a": 0.25, "several.b": 0.0}


def test_long_texts_that_inspect_keeps_apart_are_put_back(tmp_path: Path) -> None:
    where = {"attachments": {"abc": "a long text"}, "input": "attachment://abc", "messages": []}
    assert read_log(log(tmp_path, **where)).cases[0].messages[0].text == "a long text"


def test_a_sample_of_several_turns_is_its_input(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "2+2?", "source": "input"},
        {"role": "assistant", "content": "hm", "source": "generate"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "4", "source": "generate"},
    ]
    suite = read_log(log(tmp_path, messages=turns))
    assert [turn.text for turn in suite.cases[0].messages] == ["2+2?"]
    assert "1 samples took several turns" in suite.notes[-1]


def test_a_sample_in_error_has_no_answer(tmp_path: Path) -> None:
    (answers,) = read_log(log(tmp_path, error={"message": "down"})).answers
    assert answers.texts == {}


def test_pictures_are_told(tmp_path: Path) -> None:
    shown = [{"role": "user", "content": [{"type": "image", "image": "x"}], "source": "input"}]
    suite = read_log(log(tmp_path, input=shown, messages=[]))
    assert suite.cases == ()
    assert suite.findings[0].message == "sample a: a message of user holds 'image', not text."


def test_files_that_are_no_logs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"version": 2, "eval": {"task": "x"}}')
    with pytest.raises(
        DataError, match=r"log\.json is not a log of inspect: eval\.model is missing"
    ):
        read_log(path)
    path.write_text('{"version": 1, "eval": {"task": "x", "model": "m"}}')
    with pytest.raises(DataError, match="has log version 1; only 2 is supported"):
        read_log(path)
    torn = tmp_path / "torn.eval"
    torn.write_bytes((MADE / "choices.eval").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"not a complete log of inspect.*inspect log recover"):
        read_log(torn)
    with zipfile.ZipFile(tmp_path / "other.eval", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(DataError, match=r"not a complete log of inspect.*header\.json"):
        read_log(tmp_path / "other.eval")


def test_a_failed_evaluation_is_refused_with_its_own_error(tmp_path: Path) -> None:
    """The status and error are those of inspect_ai's `EvalLog`."""
    path = log(tmp_path, scores=None)
    whole = json.loads(path.read_text("utf-8"))
    failed = {"status": "error", "error": {"message": "ConnectionError: no route to host"}}
    path.write_text(json.dumps(whole | failed), "utf-8")
    with pytest.raises(DataError, match="the evaluation failed: 'ConnectionError: no route"):
        read_log(path)


def test_a_missing_file_is_named_without_an_error_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json cannot be read: No such file or directory\."):
        read_log(tmp_path / "none.json")
