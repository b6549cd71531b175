from __future__ import annotations

from decimal import Decimal

import pytest
from support.sample_comparison import VERDICTS, Counts, gated, sample_comparison

from unitune.data.overlap import Kind, SharedCase
from unitune.evaluate.documents.records import Contrast
from unitune.evaluate.documents.results import LeakResult, Money
from unitune.job.job import Gate
from unitune.render import typography
from unitune.report import facts, words


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_sample_of_each_verdict_has_that_verdict(verdict: str) -> None:
    assert verdict == sample_comparison(VERDICTS[verdict]).verdict


@pytest.mark.parametrize(
    ("verdict", "headline"),
    [
        ("better", "The tuned model is better than the best prompt"),
        ("worse", "The tuned model is worse than the best prompt"),
        (
            "equivalent",
            "No difference larger than ±5 points between the tuned model and the best prompt",
        ),
        ("non-inferior", "The tuned model is not worse than the best prompt by 5 points or more"),
        ("inconclusive", "Too close to call between the tuned model and the best prompt"),
    ],
)
def test_the_headline_says_the_verdict_in_plain_words(verdict: str, headline: str) -> None:
    assert headline == words.headline(sample_comparison(VERDICTS[verdict]))


def test_a_gain_below_the_margin_is_called_small_in_headline_and_gate() -> None:
    small = sample_comparison(margin=0.9)
    assert small.verdict == "better"
    assert words.headline(small).endswith(", by less than the 90 points that matter")
    assert "and below the margin of 90 points." in words.reason(small)
    assert "less than" not in words.headline(sample_comparison())


@pytest.mark.parametrize(
    ("verdict", "part"),
    [
        ("better", "lies wholly above zero"),
        ("worse", "lies wholly below zero"),
        ("equivalent", "wholly inside ±5 points"),
        ("non-inferior", "stays above -5 points"),
        ("inconclusive", "a loss that matters cannot be ruled out"),
    ],
)
def test_the_reason_gives_the_interval_and_what_follows(verdict: str, part: str) -> None:
    comparison = sample_comparison(VERDICTS[verdict])
    low, high = comparison.interval

    reason = words.reason(comparison)

    assert part in reason
    assert f"{100 * low:.1f} to {100 * high:.1f} points" in reason


def test_what_is_not_better_than_each_says_than_which() -> None:
    comparison = sample_comparison(VERDICTS["non-inferior"])
    low, high = comparison.interval

    assert words.reason(comparison).endswith(
        "It is better than zero-shot and instructed. It is not shown to be better than few-shot "
        f"(+2.8 points, {100 * low:.1f} to {100 * high:.1f}, the best on dev)."
    )


def test_better_than_the_one_that_dev_chose_alone_is_said_so() -> None:
    comparison = sample_comparison(VERDICTS["non-inferior"])
    rivals = [
        rival.model_copy(update={"best_on_dev": rival.name == "instructed"})
        for rival in comparison.baselines
    ]
    told = comparison.model_copy(update={"baselines": tuple(rivals)})

    assert "It is better than zero-shot and instructed (the best on dev)." in words.reason(told)


def test_a_loss_to_a_baseline_that_only_the_test_singled_out_is_no_verdict_and_says_so() -> None:
    worse = sample_comparison(VERDICTS["worse"])
    rivals = [
        rival.model_copy(update={"best_on_dev": rival.name == "instructed"})
        for rival in worse.baselines
    ]
    comparison = worse.model_copy(update={"verdict": "inconclusive", "baselines": tuple(rivals)})
    said = words.reason(comparison)

    assert "few-shot was chosen as the strongest of 3 baselines on the same cases" in said
    assert "No loss is shown against instructed, the best on dev" in said
    assert "includes zero" not in said


def test_an_inconclusive_reason_says_how_many_cases_would_settle_it() -> None:
    comparison = sample_comparison(VERDICTS["inconclusive"])

    assert f"About {comparison.cases_needed:,} cases would settle it" in words.reason(comparison)


def test_no_number_of_cases_below_those_at_hand_is_promised_to_settle_it() -> None:
    comparison = sample_comparison(VERDICTS["inconclusive"])
    enough = comparison.model_copy(update={"cases_needed": comparison.n})

    assert "More cases would settle it." in words.reason(enough)


def test_sides_go_by_their_names_unless_a_reader_knows_them_by_their_kind() -> None:
    comparison = sample_comparison()
    few_shot, tuned = (words.contender(comparison, name) for name in ("few-shot", "tuned"))
    second = tuned.model_copy(update={"name": "older tune"})
    for changed, headline in (
        ({"contenders": (few_shot, tuned)}, "The tuned model is better than the few-shot prompt"),
        ({"candidate": "instructed"}, "“instructed” is better than the best prompt"),
        (
            {"contenders": (*comparison.contenders, second)},
            "“tuned” is better than the best prompt",
        ),
        ({"candidate": "few-shot", "baseline": "tuned"}, "“few-shot” is better than “tuned”"),
    ):
        assert headline == words.headline(comparison.model_copy(update=changed))


def test_the_evidence_holds_every_figure_of_the_verdict() -> None:
    comparison = sample_comparison()
    shown = (*facts.evidence(comparison), *facts.judged_by(comparison))
    by_term = {fact.term: fact for fact in shown}

    assert by_term["95 % interval"].value == "38.6 to 54.4"
    assert by_term["Difference"].value == "+46.7 points"
    assert by_term["Gained and lost"].value == "88 and 4"
    assert by_term["p-value"].value == "below 0.0001"
    assert by_term["Margin"].value == "±5 points"
    assert f"{comparison.cases_needed:,} cases" in by_term["Margin"].meaning
    visible = by_term["Minimum detectable difference"].value
    assert visible == f"{100 * comparison.smallest_detectable:.1f} points"


@pytest.mark.parametrize(
    ("p", "often"),
    [
        (0.0, "in fewer than one of a million"),
        (0.0021, "in about one of 480"),
        (0.31, "in about 31 of 100"),
        (1.0, "in nearly all"),
    ],
)
def test_a_p_value_is_told_as_how_often_chance_does_this(p: float, often: str) -> None:
    comparison = sample_comparison().model_copy(update={"p_value": p})
    fact = next(fact for fact in facts.judged_by(comparison) if fact.term == "p-value")

    assert f"{often} such tests" in fact.meaning


def shared(kind: Kind) -> SharedCase:
    return SharedCase(
        case="a",
        line=1,
        kind=kind,
        similarity=1.0,
        train_file="train.jsonl",
        train_line=7,
        same_answer=True,
    )


def test_counted_leaks_come_first_among_the_caveats() -> None:
    leaks = LeakResult(action="allow", cases=(shared("exact"), shared("near-duplicate")))
    comparison = sample_comparison(errors=1).model_copy(update={"leaks": leaks})

    assert words.caveats(comparison)[0].startswith(
        "2 test cases also in the training rows (1 exact, 1 near duplicate) and counted"
    )


@pytest.mark.parametrize(
    ("leaks", "told"),
    [
        (
            LeakResult(action="refuse", searched=False),
            "not looked for: no contender was made from training rows",
        ),
        (LeakResult(action="refuse"), "none found"),
        (
            LeakResult(action="drop", cases=(shared("exact"),)),
            "1 case (1 exact), left out of the test",
        ),
        (
            LeakResult(action="allow", cases=(shared("exact"), shared("exact"))),
            "2 cases (2 exact), counted anyway",
        ),
    ],
)
def test_leaks_are_told_with_what_was_done(leaks: LeakResult, told: str) -> None:
    comparison = sample_comparison().model_copy(update={"leaks": leaks})
    by_term = {fact.term: fact.value for fact in facts.judging(comparison)}

    assert told == by_term["Test cases in the training rows"]


@pytest.mark.parametrize(
    ("counts", "mood"),
    [
        (VERDICTS["better"], ""),
        (VERDICTS["equivalent"], ""),
        (VERDICTS["inconclusive"], "doubtful"),
        (VERDICTS["worse"], "bad"),
        (Counts(0, 0, 0, 40), "bad"),
    ],
)
def test_a_page_looks_as_its_verdict_is_and_bad_if_nothing_is_right(
    counts: Counts, mood: str
) -> None:
    assert mood == words.mood(sample_comparison(counts))


def test_a_gain_that_passes_no_gate_is_no_bad_figure() -> None:
    better = sample_comparison(VERDICTS["better"])
    refused = gated(better, Gate(mode="improve"), required=len(better.cases))
    assert refused.gate is not None
    assert not refused.gate.passed
    assert not words.mood(refused)


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0.0000256", "$0.026 per 1,000"),
        ("-0.0012", "$1.20 per 1,000"),
        ("0.05", "$0.050"),
        ("1234.5", "$1,234.50"),
    ],
)
def test_small_amounts_are_told_by_the_thousand(usd: str, text: str) -> None:
    money = Money(extra_usd=Decimal(usd), extra_interval_usd=(None, None))
    (fact,) = facts.economics(money)
    assert fact.term == f"An answer costs {'less' if usd[0] == '-' else 'more'} by"

    assert fact.value == f"{text} (unbounded to unbounded)"


def test_judging_says_how_the_baseline_was_chosen() -> None:
    by_term = {fact.term: fact.value for fact in facts.judging(sample_comparison())}

    assert by_term["Baseline"].startswith("few-shot, the hardest to beat of 3 on the test.")
    assert "few-shot is the best on 44 dev rows" in by_term["Baseline"]
    assert by_term["Date"] == "2026-11-25 09:41 UTC"
    assert "Seed" not in by_term


@pytest.mark.parametrize(
    ("difference", "sign", "text"),
    [
        (0.05, False, "5 points"),
        (0.01, False, "1 point"),
        (0.025, False, "2.5 points"),
        (0.46667, True, "+46.7 points"),
        (-0.0001, True, "0 points"),
    ],
)
def test_points_are_short_and_never_minus_zero(difference: float, sign: bool, text: str) -> None:  # noqa: FBT001 - a parameter
    assert text == typography.points(difference, sign=sign)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (
            typography.typeset("few-shot-2: -5.0 to 2.0, 95 %"),
            "few-shot-2: \u22125.0 to 2.0, 95\u202f%",
        ),
        (typography.moment("yesterday"), "yesterday"),
        (typography.per_case(None, 180), "\u2013"),
        (typography.per_case(90.0, 180, "{:.2f}".format), "0.50"),
        (typography.counted(1, "case"), "1 case"),
        (typography.counted(1200, "case"), "1,200 cases"),
    ],
)
def test_texts_are_set_for_readers(shown: str, expected: str) -> None:
    assert shown == expected


def test_graded_scores_are_not_called_right_or_wrong() -> None:
    comparison = sample_comparison().model_copy(update={"graded": True})
    assert "tuned scored" in words.scores(comparison)
    by_term = {fact.term: fact for fact in facts.evidence(comparison)}
    assert by_term["Gained and lost"].meaning.startswith("Cases where tuned scored higher")


def test_a_p_value_beyond_what_a_float_holds_is_no_zero() -> None:
    certain = sample_comparison().model_copy(update={"p_value": 0.0})
    assert "p<1e-300" in words.figures(certain)


def test_leaks_beside_recorded_answers_accuse_no_tuned_model() -> None:
    leaks = LeakResult(action="allow", cases=(shared("exact"),))
    sample = sample_comparison()
    recorded = tuple(each.model_copy(update={"type": "recorded"}) for each in sample.contenders)
    found = sample.model_copy(update={"leaks": leaks, "contenders": recorded})
    assert "a model trained on them may have memorised" in words.caveats(found)[0]


def test_a_gate_that_passes_a_worse_candidate_says_so() -> None:
    lenient = Gate(mode="absolute", threshold=0.0001)
    passed = gated(sample_comparison(VERDICTS["worse"]), lenient)
    assert passed.gate is not None
    assert passed.gate.passed
    told = "The gate passed although the candidate is worse than few-shot: its threshold allows"
    assert any(told in caveat for caveat in words.caveats(passed))
    better = gated(sample_comparison(), lenient)
    assert not any("although" in caveat for caveat in words.caveats(better))


def test_a_reference_that_beats_the_candidate_is_named() -> None:
    strong = Contrast(
        name="strong",
        n=100,
        baseline=0.9,
        candidate=0.6,
        difference=-0.3,
        interval=(-0.4, -0.2),
        p_value=1e-6,
        p_adjusted=1e-6,
    )
    weak = strong.model_copy(update={"name": "weak", "interval": (-0.1, 0.1), "p_adjusted": 1.0})
    found = sample_comparison().model_copy(update={"references": (strong, weak)})
    said = [caveat for caveat in words.caveats(found) if "reference" in caveat]
    assert [caveat.partition(";")[0] for caveat in said] == [
        "The reference strong is better than the candidate by 30 points"
    ]
