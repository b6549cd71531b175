"""What a `Comparison` shows in a notebook, and what it gives to pandas."""

from __future__ import annotations

import json
import re
import sys

import jsonschema
import pandas as pd
import pytest
from support.sample_comparison import Counts, gated, infested, sample_comparison

from unitune.errors import MissingExtra
from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Gate

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(1)>\"'"


def test_a_notebook_shows_verdict_contenders_and_gate() -> None:
    comparison = gated(sample_comparison(), Gate(mode="improve"))
    shown = comparison._repr_html_()

    assert "BETTER  tuned 0.583 vs few-shot 0.117: +46.7 points" in shown
    names = [each.name for each in comparison.contenders]
    assert all(f">{name} <small>" in shown for name in names)
    assert "<b>Gate passed</b> improve" in shown


def test_it_is_small_and_needs_neither_style_sheet_nor_script_nor_network() -> None:
    shown = sample_comparison()._repr_html_()

    assert len(shown) < 10_000
    assert not re.search("<script|<style|<link|src=|href=|url", shown)


def test_no_text_becomes_markup() -> None:
    plain = gated(sample_comparison(errors=3), Gate(mode="improve"))
    plain = plain.model_copy(update={"caution": "x"})
    tags = [re.findall("<[a-z]+", c._repr_html_()) for c in (plain, infested(plain, HOSTILE))]

    assert tags[0] == tags[1]


def test_rows_are_one_a_case_and_contender() -> None:
    comparison = sample_comparison(errors=1)
    rows = comparison.rows()

    assert 4 * comparison.n == len(rows)
    assert {(case.id, name) for case in comparison.cases for name in case.answers} == {
        (row["case"], row["contender"]) for row in rows
    }
    assert [row["error"] for row in rows if row["error"]] == ["HTTP 503: overloaded"]


def test_the_frames_means_are_the_contenders_scores() -> None:
    comparison = sample_comparison(Counts(5, 3, 2, 4))
    frame = comparison.to_frame()

    assert list(frame.index.names) == ["case", "contender"]
    means = frame["score_json_equal"].groupby("contender").mean().to_dict()
    assert {result.name: pytest.approx(result.score) for result in comparison.contenders} == means
    assert isinstance(frame, pd.DataFrame)


def test_without_pandas_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(MissingExtra, match="pip install pandas"):
        sample_comparison().to_frame()
    assert sample_comparison().rows()


def test_verdict_json_keeps_to_its_published_schema() -> None:
    comparison = gated(
        sample_comparison(errors=3), Gate(mode="no-regress", baseline="b.jsonl"), required=2
    )
    document = json.loads(comparison.verdict_json())

    jsonschema.validate(document, Comparison.model_json_schema(mode="serialization"))
    assert "cases" not in document
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "verdict": "fine"}, Comparison.model_json_schema())
