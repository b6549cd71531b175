from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.sample_comparison import Counts, gated, measured, sample_comparison

from unitune.evaluate.documents.history import CASES, read_comparison, write_verdict
from unitune.job.job import Gate


def test_a_comparison_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = gated(measured(sample_comparison(errors=2)), Gate(mode="improve"), required=3)

    write_verdict(written, tmp_path)

    assert written == read_comparison(tmp_path)


def test_without_its_cases_a_comparison_is_its_verdict(tmp_path: Path) -> None:
    """An earlier version wrote none, and a user may have deleted them."""
    written = sample_comparison(Counts(1, 1, 1, 1))
    write_verdict(written, tmp_path)
    (tmp_path / CASES).unlink()

    assert written.model_copy(update={"cases": ()}) == read_comparison(tmp_path)


def test_a_reason_that_quotes_half_a_character_is_written_all_the_same(tmp_path: Path) -> None:
    """A model's JSON may hold a lone surrogate, which no file of UTF-8 can."""
    written = sample_comparison(Counts(1, 1, 1, 1))
    first = written.cases[0]
    quoting = replace(first.answers["tuned"], reasons={"json_equal": "it says \ud800\u2028"})
    case = replace(first, answers={**first.answers, "tuned": quoting})
    write_verdict(written.model_copy(update={"cases": (case,)}), tmp_path)

    (read,) = read_comparison(tmp_path).cases
    assert read.answers["tuned"].reasons == {"json_equal": "it says \ufffd\u2028"}
