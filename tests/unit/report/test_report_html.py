from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from support.html_pages import Page
from support.sample_comparison import (
    VERDICTS,
    Counts,
    contrast,
    gated,
    graded,
    infested,
    measured,
    sample_comparison,
)

from unitune.evaluate.documents.results import Comparison, GateResult, Money
from unitune.job.job import Gate
from unitune.render import typography
from unitune.report import words
from unitune.report.files import html_page

HOSTILE = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"' {{ 7*7 }}"
LIMIT = 1_500_000
MANY = Counts(gained=300, lost=200, both_right=200, both_wrong=300)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_page_begins_with_the_verdict_and_its_reason(verdict: str) -> None:
    comparison = sample_comparison(VERDICTS[verdict])
    page = html_page(comparison)

    (h1,) = re.findall("<h1>(.*?)</h1>", page)
    assert typography.typeset(words.headline(comparison)) == h1
    assert typography.typeset(words.reason(comparison)) in page


def test_every_contender_stands_with_score_interval_errors_tokens_seconds_and_effort() -> None:
    comparison = sample_comparison(errors=3)
    text = Page(html_page(comparison)).text

    assert "few-shot baseline hardest to beat, best on dev. 2, 4 and 8 shots tried on dev" in text
    assert "11.7 7.8\u201317.2 180 3 712 + 27 1.50 0.0312" in text
    assert "58.3 51.0\u201365.3 180 0 96 + 27 0.20 \u2013" in text


def test_each_case_stands_once() -> None:
    comparison = sample_comparison()
    page = html_page(comparison)

    assert {page.count(f">{case.id}<") for case in comparison.cases} == {1}


def test_gained_and_lost_are_open_and_the_rest_is_folded() -> None:
    groups = [
        attributes
        for attributes in Page(html_page(sample_comparison())).of("details")
        if attributes.get("class") == "group"
    ]

    assert [(group["id"], "open" in group) for group in groups] == [
        ("gained", True),
        ("lost", True),
        ("both-wrong", False),
        ("both-right", False),
    ]


def test_filters_lead_to_groups_that_exist() -> None:
    page = Page(html_page(sample_comparison()))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = [attributes["href"] for attributes in page.of("a")]

    assert len(targets) == 6
    assert {str(target).removeprefix("#") for target in targets} <= ids


def test_ids_are_unique() -> None:
    ids = [
        attributes["id"]
        for _, attributes in Page(html_page(sample_comparison())).tags
        if "id" in attributes
    ]

    assert sorted(set(ids)) == sorted(str(id_) for id_ in ids)


def test_nothing_on_the_page_points_outside() -> None:
    page = Page(html_page(sample_comparison()))
    pointing = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster") and value
    ]

    assert {value for value in pointing if not value.startswith("#")} == {"data:,"}
    assert "url(" not in html_page(sample_comparison())
    assert "@import" not in html_page(sample_comparison())


def test_text_of_any_kind_stays_text() -> None:
    plain = sample_comparison(errors=2).model_copy(update={"gate": failed_gate(), "caution": "x"})
    hostile = html_page(infested(plain, HOSTILE))

    def shape(page: str) -> list[str]:
        return [
            tag
            for tag, _ in Page(page).tags
            if tag not in ("ins", "del", "details", "summary", "span", "b", "div")
        ]

    assert sorted(shape(html_page(plain))) == sorted(shape(hostile))
    assert "{{ 7*7 }}" in hostile
    assert not any(
        name.startswith("on") for _, attributes in Page(hostile).tags for name in attributes
    )


def failed_gate() -> GateResult:
    return GateResult(mode="no-regress", passed=False, exit_code=1, reason="too much was lost")


def test_the_gate_is_told_with_its_exit_code() -> None:
    comparison = sample_comparison().model_copy(update={"gate": failed_gate(), "caution": "x"})

    assert (
        "Gate not passed no-regress, exit code 1: too much was lost"
        in Page(html_page(comparison)).text
    )
    assert "Gate" not in Page(html_page(sample_comparison())).text


def test_errors_are_listed_with_how_often_they_came() -> None:
    text = Page(html_page(sample_comparison(errors=3))).text

    assert "Answers that ended in an error Contender Cases Error few-shot 3 HTTP 503" in text
    assert "Answers that ended in an error" not in Page(html_page(sample_comparison())).text


def test_there_is_a_training_section_only_with_a_finite_loss() -> None:
    comparison = sample_comparison()
    *others, tuned = comparison.contenders
    assert tuned.curve is not None
    nothing = {"validation_steps": (), "validation_values": ()}
    nan = tuned.curve.model_copy(update={"values": (math.nan,) * len(tuned.curve.steps), **nothing})
    contenders = (*others, tuned.model_copy(update={"curve": nan}))

    assert "The training" in Page(html_page(comparison)).text
    for without in (
        sample_comparison(curve=False),
        comparison.model_copy(update={"contenders": contenders}),
    ):
        assert "The training" not in Page(html_page(without)).text


def test_without_its_cases_the_page_says_where_they_are() -> None:
    text = Page(html_page(sample_comparison().model_copy(update={"cases": ()}))).text

    assert "rows.jsonl next to it has every answer" in text
    assert "Both wrong" not in text


def test_a_lone_surrogate_in_an_answer_can_still_be_written() -> None:
    page = html_page(
        sample_comparison(Counts(2, 1, 1, 1), texts={"answer": 'broken \ud83d "half"'})
    )

    assert "broken \ufffd" in page.encode().decode()


def test_the_policy_lets_only_our_own_style_and_script_run() -> None:
    (policy,) = (
        str(meta["content"])
        for meta in Page(html_page(sample_comparison())).of("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param({}, id="short"),
        pytest.param(
            {
                "question": "My desk arrived with a wobble. " * 160,
                "expected": "apologise and offer a new leg " * 160,
                "answer": "apologise and promise a new top " * 160,
            },
            id="5,000 characters each",
        ),
        pytest.param(
            {"expected": '{"a": "b"} ' * 450, "answer": '{"c": "b"} ' * 450}, id="much to escape"
        ),
        pytest.param(
            {"expected": "交货延迟、请道歉" * 600, "answer": "交货准时、请道歉" * 600}, id="Chinese"
        ),
    ],
)
def test_a_page_of_1000_cases_stays_below_a_megabyte_and_a_half(texts: dict[str, str]) -> None:
    page = html_page(sample_comparison(MANY, texts=texts))

    assert page.count('class="id"') == 1000
    assert len(page.encode()) < LIMIT


def test_the_same_comparison_gives_the_same_page() -> None:
    comparison = sample_comparison()
    again = Comparison.model_validate_json(comparison.model_dump_json())

    assert html_page(comparison) == html_page(again)


@pytest.mark.parametrize("field", ["usd", "seconds", "prompt_tokens"])
def test_what_is_not_known_is_a_dash(field: str) -> None:
    comparison = sample_comparison()
    unknown: dict[str, Any] = {field: None}
    contenders = tuple(result.model_copy(update=unknown) for result in comparison.contenders)

    before, after = (
        html_page(shown).count("\u2013")
        for shown in (comparison, comparison.model_copy(update={"contenders": contenders}))
    )

    assert after > before


REGRESS = Gate.model_validate(
    {
        "mode": "no-regress",
        "baseline": "baseline.jsonl",
        "constraints": [{"metric": "json_valid", "at_least": 0.99}],
    }
)


def test_every_check_of_the_gate_has_a_row_and_those_that_failed_come_first() -> None:
    comparison = gated(sample_comparison(), REGRESS, required=1)
    text = Page(html_page(comparison)).text

    failed = "json_valid at least 0.99 failed The candidate's json_valid is 0.7917"
    passed = "no-regress passed The candidate is not worse by more than 5 points."
    assert 0 < text.index(failed) < text.index(passed)


def test_what_was_added_to_and_removed_from_the_baseline_file_is_listed() -> None:
    text = Page(html_page(gated(sample_comparison(), REGRESS))).text

    assert "Added since: 178-5a0b11ce, 179-77f0d2aa No longer there: old-case" in text


def test_of_hundreds_of_pinned_cases_the_rest_is_counted() -> None:
    text = Page(html_page(gated(sample_comparison(), REGRESS, required=100))).text

    assert "And 54 more; verdict.json has them all." in text


def test_there_are_filters_for_errors_and_pinned_cases_only_where_there_are_any() -> None:
    plain = [link["href"] for link in Page(html_page(sample_comparison())).of("a")]
    page = Page(html_page(gated(sample_comparison(errors=3), REGRESS, required=2)))

    assert not {"#only-error", "#only-required"} & set(plain)
    assert "Errors 3 Required 2" in page.text
    marks = [row.get("class") or "" for row in page.of("tr")]
    assert tuple(
        sum(mark in found.split() for found in marks) for mark in ("error", "required")
    ) == (3, 2)


def test_cut_answers_have_a_column_a_filter_and_a_note() -> None:
    comparison = sample_comparison()
    first, *rest = comparison.cases
    cut = replace(first.answers["few-shot"], text="{", cut=True, open=True)
    cut = replace(cut, scores={**cut.scores, comparison.metric: 0.0})
    cases = (replace(first, answers={**first.answers, "few-shot": cut}), *rest)
    contenders = tuple(
        each.model_copy(update={"cut": int(each.name == "few-shot")})
        for each in comparison.contenders
    )
    page = html_page(comparison.model_copy(update={"cases": cases, "contenders": contenders}))
    assert "Cut off 1" in Page(page).text
    assert "cut off at its longest" in Page(page).text
    assert [int(n) for n in re.findall(r'data-label="Cut off">(\d+)<', page)] == [0, 1, 0, 0]
    assert "Cut off" not in Page(html_page(comparison)).text


def test_contenders_are_sorted_by_score_and_long_groups_are_folded() -> None:
    page = html_page(sample_comparison())
    names = re.findall(
        r'<th role="rowheader" scope="row"[^>]*>(?:<b>)?([\w-]+)(?:</b>)? <small>', page
    )
    assert names == ["tuned", "few-shot", "zero-shot", "instructed"]
    assert "78 more" in Page(page).text


def test_fingerprints_are_folded_away() -> None:
    page = html_page(sample_comparison())
    assert page.index("<summary>Provenance") < page.index("sha256 5b0c21f4e9aa")


def test_a_case_says_which_other_contenders_got_it_right() -> None:
    comparison = sample_comparison(Counts(0, 1, 0, 0))
    (case,) = comparison.cases
    right = case.answers["few-shot"]
    changed = replace(case, answers={**case.answers, "instructed": right})

    assert "also right" not in Page(html_page(comparison)).text
    page = html_page(comparison.model_copy(update={"cases": (changed,)}))
    assert f"{case.id} also right: instructed" in Page(page).text


def test_a_metric_with_shades_is_called_a_score_and_its_answers_have_one() -> None:
    comparison = graded(sample_comparison()).model_copy(update={"graded": True})
    text = Page(html_page(comparison)).text

    assert "Over 180 test cases, tuned scored 58.3 % and few-shot" in text
    assert "Score over the test cases" in text
    assert "Gained: only tuned scores higher" in text
    assert "scored 0.50: urgency differs" in text
    assert "got 58.3 % right" not in text


def test_measures_and_mixed_up_labels_are_shown_where_there_are_any() -> None:
    text = Page(html_page(measured(sample_comparison()))).text

    assert "Further measures: mean of a case Contender latency zero-shot 0.25" in text
    assert "late_parcel wants_refund 3 late_parcel no label 1" in text
    assert "Most frequent confusions" not in Page(html_page(sample_comparison())).text


def test_slices_and_further_metrics_have_both_p_values() -> None:
    parts = {"slices": (contrast("topic = refunds"),), "secondary": (contrast("token_f1"),)}
    text = Page(html_page(sample_comparison().model_copy(update=parts))).text

    for name in ("topic = refunds", "token_f1"):
        assert f"{name} +50.0 40.0 to 62.5 25.0, 75.0 40 0.003 0.009" in text
    assert "Slices (exploratory)" in text
    assert "(Holm)" in text
    assert "exploratory" not in Page(html_page(sample_comparison())).text


def test_what_it_costs_is_told_where_it_is_known() -> None:
    plain = sample_comparison()
    money = Money(
        extra_usd=Decimal("-0.0012"),
        extra_interval_usd=(Decimal("-0.0013"), Decimal("-0.0011")),
        pay_back="after",
        break_even_answers=120_000,
    )
    text = Page(html_page(plain.model_copy(update={"economics": money}))).text

    assert "An answer costs less by $1.20 per 1,000 ($1.10 to $1.30)" in text
    assert "Pays for itself after 120,000 answers" in text
    assert "Net benefit" not in text
    assert "worth the money" not in Page(html_page(plain)).text


def test_the_candidate_stands_against_each_of_several_baselines() -> None:
    comparison = sample_comparison(VERDICTS["inconclusive"])
    text = Page(html_page(comparison)).text

    for rival in comparison.baselines:
        low, high = (f"{100 * end:.1f}".replace("-", "\N{MINUS SIGN}") for end in rival.interval)
        assert f"{low} to {high}" in text
    assert "It is not shown to be better than few-shot" in text
