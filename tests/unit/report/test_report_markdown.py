from __future__ import annotations

import re

import pytest
from support.sample_comparison import (
    VERDICTS,
    Counts,
    contrast,
    gated,
    infested,
    measured,
    sample_comparison,
)

from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Gate
from unitune.render.markdown import escaped, marker
from unitune.report import words
from unitune.report.files import MAX_CASES, markdown_summary

GITHUB_CHARACTERS = 65_536
"""As GitHub says when it refuses a comment: body is too long (maximum is 65536 characters)."""
HOSTILE = "</details></code><img src=x> @octocat #1 https://evil.example | `x` **b** [a](b)\n\n# no"
REGRESS = Gate(mode="no-regress", baseline="baseline.jsonl")


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_hidden_marker_comes_first_and_then_the_verdict(verdict: str) -> None:
    comparison = sample_comparison(VERDICTS[verdict])
    first, _, second, *_ = markdown_summary(comparison).splitlines()

    assert first == "<!-- unitune compare: support-triage -->"
    assert second == f"### {words.headline(comparison)}"


@pytest.mark.parametrize("verdict", VERDICTS)
def test_it_says_against_which_baselines_it_holds_whole(verdict: str) -> None:
    comparison = sample_comparison(VERDICTS[verdict])

    assert escaped(words.reasons(comparison)[-1]) in markdown_summary(comparison)


def test_the_marker_is_the_same_from_run_to_run_and_differs_between_jobs() -> None:
    one, other = sample_comparison(VERDICTS["better"]), sample_comparison(VERDICTS["worse"])

    assert markdown_summary(one).splitlines()[0] == markdown_summary(other).splitlines()[0]
    assert marker("compare", "support-triage") != marker("compare", "labels")


@pytest.mark.parametrize("job", ["--> <b>", "a\nb", "x" * 500])
def test_no_name_ends_the_marker_early(job: str) -> None:
    assert re.fullmatch("<!-- unitune compare: [a-z0-9-]{1,40} -->", marker("compare", job))


def test_other_metrics_slices_and_confusions_have_tables() -> None:
    comparison = measured(sample_comparison()).model_copy(
        update={"secondary": (contrast("json_valid"),), "slices": (contrast("topic = x"),)}
    )
    text = markdown_summary(comparison)
    for name in (r"json\_valid", "topic = x"):
        figures = "**+50.0** 40.0 to 62.5 | 25.0, 75.0 | 40 | 0.003 | 0.009 |"
        assert f"| {name} | {figures}" in text
    assert r"| late\_parcel | wants\_refund | 3 |" in text
    assert r"| late\_parcel | no label | 1 |" in text
    assert "confusions" not in markdown_summary(sample_comparison())


def test_every_contender_has_a_row_with_its_interval() -> None:
    page = markdown_summary(sample_comparison(errors=3))

    figures = "**11.7** 7.8\u201317.2 | **3** | 712 + 27 | 1.50 | 0.0312 |"
    assert f"| **few-shot** baseline | {figures}" in page
    assert len(re.findall(r"^\| .*(?:baseline|candidate) \|", page, re.MULTILINE)) == 4


def test_the_gate_stands_with_its_exit_code_checks_and_what_the_baseline_file_lacks() -> None:
    page = markdown_summary(gated(sample_comparison(), REGRESS, required=1))

    assert "**Gate passed** no-regress, exit code 0:" in page
    assert "| no-regress | passed |" in page
    assert "Against baseline.jsonl: +1.1 points" in page
    assert "178-5a0b11ce" in page
    assert "old-case" in page


def test_a_gate_without_a_baseline_file_has_its_checks_alone() -> None:
    page = markdown_summary(gated(sample_comparison(), Gate(mode="improve")))

    assert "**Gate passed** improve, exit code 0:" in page
    assert re.search(r"\d+ checks?; the first of error", page)


def test_lost_cases_come_before_gained_ones_and_of_each_the_first_few() -> None:
    page = markdown_summary(
        sample_comparison(Counts(gained=30, lost=4, both_right=5, both_wrong=5))
    )

    lost, gained = page.index("Lost: 4 cases<"), page.index("Gained: 30 cases, the first 10<")
    assert lost < gained
    assert page.count("<tr><td>") == 4 + MAX_CASES


def test_without_its_cases_there_is_still_a_verdict() -> None:
    page = markdown_summary(sample_comparison().model_copy(update={"cases": ()}))

    assert "<tr><td>" not in page
    assert "### The tuned model" in page


def infested_whole() -> Comparison:
    return infested(gated(sample_comparison(errors=3), REGRESS, required=1), HOSTILE)


def test_no_text_makes_markup_mentions_anybody_or_links_anywhere() -> None:
    page = markdown_summary(infested_whole())
    tags = set(re.findall(r"</?([a-z]+)", page))
    outside = re.sub(r"<code>.*?</code>", "", page)

    assert tags == {"details", "summary", "table", "tr", "td", "th", "code", "br", "sub"}
    assert not re.search(r"@\w|#\d|://\w", outside)
    assert "**b**" not in outside
    assert "[a](b)" not in outside
    assert page.count("<details>") == page.count("</details>") > 3


def test_no_text_breaks_out_of_its_table() -> None:
    """A blank line would end the HTML, a line break or a bare bar a row of Markdown."""
    page = markdown_summary(infested_whole())

    assert all(line.endswith("</tr>") for line in page.splitlines() if line.startswith("<tr>"))
    rows = [line for line in page.splitlines() if re.search(r"(baseline|candidate) \|", line)]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


@pytest.mark.parametrize(
    "text", ["<" * 5000, "交货" * 4000, "word " * 3000, "\\" * 5000, "\0" * 999]
)
def test_it_always_fits_into_a_comment(text: str) -> None:
    counts = Counts(gained=400, lost=300, both_right=10, both_wrong=10)
    comparison = infested(gated(sample_comparison(counts), REGRESS, required=200), text)
    many = comparison.model_copy(
        update={
            "notes": (text,) * 200,
            "contenders": (*comparison.contenders, *comparison.contenders * 50),
        }
    )
    page = markdown_summary(many)

    assert len(page.encode()) < GITHUB_CHARACTERS
    assert page.count("<details>") == page.count("</details>")
