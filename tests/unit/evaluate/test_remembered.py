"""Answers given before: no model gets another's, and a broken file only costs questions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from unitune.evaluate.inference.journal import CACHE, open_response_cache
from unitune.models import Reply

ANSWER = Reply(text="yes", prompt_tokens=5, completion_tokens=2, seconds=0.5)


def test_an_answer_is_known_to_the_next_comparison(tmp_path: Path) -> None:
    with open_response_cache(tmp_path, use_cache=True) as remembered:
        remembered.put("h1", ANSWER)
        assert remembered.get("h1") == ANSWER
    with open_response_cache(tmp_path, use_cache=True) as remembered:
        assert remembered.get("h1") == ANSWER
        assert None is remembered.get("h2")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(error="down", finish_reason="error"),
        Reply(text="I cannot", finish_reason="refusal"),
        Reply(text="", finish_reason="content_filter"),
    ],
)
def test_errors_and_refusals_are_asked_again(reply: Reply, tmp_path: Path) -> None:
    with open_response_cache(tmp_path, use_cache=True) as remembered:
        remembered.put("h", reply)
        assert None is remembered.get("h")


def test_a_file_that_is_none_of_ours_is_left_alone_and_everything_is_asked(tmp_path: Path) -> None:
    (tmp_path / CACHE).write_text("notes")
    with open_response_cache(tmp_path, use_cache=True) as remembered:
        remembered.put("h", ANSWER)
        assert None is remembered.get("h")
    assert (tmp_path / CACHE).read_text() == "notes"


def test_an_answer_that_cannot_be_read_is_asked_again(tmp_path: Path) -> None:
    with open_response_cache(tmp_path, use_cache=True) as remembered:
        remembered.put("h", ANSWER)
    with sqlite3.connect(tmp_path / CACHE) as file:
        file.execute("UPDATE kept SET value = '{'")
    file.close()
    with open_response_cache(tmp_path, use_cache=True) as remembered:
        assert None is remembered.get("h")


def test_another_process_that_writes_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune.evaluate.inference.journal.CACHE_WAIT_SECONDS", 0.05)
    with open_response_cache(tmp_path, use_cache=True) as remembered:
        other = sqlite3.connect(tmp_path / CACHE)
        other.execute("BEGIN EXCLUSIVE")
        remembered.put("h", ANSWER)
        assert None is remembered.get("h")
        other.rollback()
        other.close()


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    with open_response_cache(tmp_path / "none", use_cache=True) as remembered:
        assert None is remembered.get("h")


def test_an_answer_is_kept_for_later_and_not_given_unasked(tmp_path: Path) -> None:
    with open_response_cache(tmp_path, use_cache=False) as remembered:
        remembered.put("h", ANSWER)
        assert None is remembered.get("h")
    with open_response_cache(tmp_path, use_cache=True) as remembered:
        assert remembered.get("h") == ANSWER
