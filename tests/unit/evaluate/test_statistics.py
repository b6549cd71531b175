"""The paired comparison: its verdict, and what must hold for any scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.evaluate.statistics.intervals import Interval, Units, difference_interval, own_interval
from unitune.evaluate.statistics.paired import Verdict, compare_paired, own_score, verdict
from unitune.evaluate.statistics.sample_size import cases_needed_for_margin, smallest_detectable
from unitune.evaluate.statistics.significance import mcnemar_exact, mcnemar_mid_p, sign_flip_p

GRADED = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=60)
# Eighths, so that 1 - score is exact.
EIGHTHS = st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=1, max_size=50)


def scores(both: int, gained: int, lost: int, neither: int) -> tuple[list[int], list[int]]:
    """Baseline's and candidate's scores with these outcomes."""
    baseline = [1] * both + [0] * gained + [1] * lost + [0] * neither
    candidate = [1] * both + [1] * gained + [0] * lost + [0] * neither
    return baseline, candidate


def assert_flipped(there: object, back: object) -> None:
    """Every signed figure of one comparison is that of the other with its sign flipped."""
    assert -there.difference == back.difference
    for name in ("interval", "interval90"):
        one, other = getattr(there, name), getattr(back, name)
        assert (-one.high, -one.low) == (other.low, other.high)
    for name in ("p_value", "p_exact", "cases_needed", "smallest_detectable", "design_effect"):
        assert getattr(there, name) == getattr(back, name)
    assert (there.gained, there.baseline) == (back.lost, back.candidate)
    assert (there.verdict == Verdict.BETTER) == (back.verdict == Verdict.WORSE)
    assert (there.verdict == Verdict.EQUIVALENT) == (back.verdict == Verdict.EQUIVALENT)


class TestVerdict:
    @pytest.mark.parametrize(
        ("interval", "interval90", "expected"),
        [
            ((0.001, 0.04), (0.005, 0.03), Verdict.BETTER),
            ((-0.04, -0.001), (-0.03, -0.005), Verdict.WORSE),
            ((-0.06, 0.03), (-0.049, 0.02), Verdict.EQUIVALENT),
            ((-0.04, 0.08), (-0.03, 0.07), Verdict.NON_INFERIOR),
            ((-0.06, 0.08), (-0.05, 0.04), Verdict.INCONCLUSIVE),
            ((0.0, 0.08), (0.0, 0.07), Verdict.NON_INFERIOR),
            ((-0.08, 0.0), (-0.07, 0.0), Verdict.INCONCLUSIVE),
        ],
    )
    def test_the_first_claim_that_holds_is_the_verdict(
        self,
        interval: tuple[float, float],
        interval90: tuple[float, float],
        expected: Verdict,
    ) -> None:
        actual = verdict(Interval(*interval, 0.95), Interval(*interval90, 0.90), 0.05, 0.01)
        assert expected == actual

    @pytest.mark.parametrize(("level", "p"), [(0.95, 0.0501), (0.99, 0.0101)])
    def test_a_difference_needs_the_test_as_well_as_the_interval(
        self, level: float, p: float
    ) -> None:
        above, below = Interval(0.01, 0.2, level), Interval(-0.2, -0.01, level)
        for interval, expected in ((above, Verdict.NON_INFERIOR), (below, Verdict.INCONCLUSIVE)):
            assert expected == verdict(interval, interval, 0.05, p)

    @pytest.mark.parametrize("margin", [0, -0.05, 5])
    def test_a_margin_that_is_no_share_is_refused(self, margin: float) -> None:
        with pytest.raises(ValueError, match="margin must be above 0 and below 1"):
            verdict(Interval(-0.1, 0.1, 0.95), Interval(-0.1, 0.1, 0.90), margin, 1.0)


class TestBinary:
    def test_the_report_line_of_the_stub_workload(self) -> None:
        """Facts, section 8.3.11: 0.900 vs 0.761, 151 gained / 12 lost, +13.9, SE 0.0120.

        The interval there is a t interval, [11.5, 16.3]; the score interval is as wide and lies
        0.1 higher. The p of 9e-32 there is the exact one; the mid-p is 4.9e-32.
        """
        actual = compare_paired(*scores(both=749, gained=151, lost=12, neither=88))
        assert (actual.n, actual.gained, actual.lost, actual.difference) == (1000, 151, 12, 0.139)
        assert pytest.approx((0.761, 0.900)) == (actual.baseline, actual.candidate)
        interval = actual.interval.low, actual.interval.high
        assert pytest.approx((0.116, 0.164), abs=5e-4) == interval
        assert pytest.approx(0.0120, abs=5e-5) == (interval[1] - interval[0]) / 2 / 1.96
        assert pytest.approx(9e-32, abs=5e-33, rel=0) == actual.p_exact
        assert pytest.approx(4.9e-32, abs=5e-34, rel=0) == actual.p_value
        assert actual.verdict == Verdict.BETTER
        assert actual.method == "Tango score interval, McNemar mid-p test"
        assert not actual.graded

    def test_few_cases_that_all_gain_are_not_better(self) -> None:
        """Four gains in four cases come up by chance in 6 % of such tests, p = 0.0625."""
        for lost, gained in (([0] * 4, [1] * 4), ([0] * 4 + [1] * 16, [1] * 20)):
            actual = compare_paired(lost, gained)
            assert (actual.p_value, actual.verdict) == (0.0625, Verdict.NON_INFERIOR)
            assert actual.interval.low > 0
            assert "too few to show a difference" in actual.warnings[0]
            assert compare_paired(gained, lost).verdict != Verdict.WORSE

    def test_few_clusters_that_all_gain_are_not_better(self) -> None:
        """The exact sign-flip p of four clusters is 2 / 2^4, however many cases they hold."""
        clusters = [at // 30 for at in range(120)]
        actual = compare_paired([0] * 120, [1] * 120, clusters=clusters)
        assert (actual.clusters, actual.p_value) == (4, 0.125)
        assert actual.verdict != Verdict.BETTER
        six = compare_paired([0] * 120, [1] * 120, clusters=[at // 20 for at in range(120)])
        assert (six.p_value, six.verdict) == (0.03125, Verdict.BETTER)

    def test_what_the_cases_could_have_shown_comes_from_the_discordance(self) -> None:
        actual = compare_paired(*scores(53, 16, 8, 9))
        assert actual.verdict == Verdict.NON_INFERIOR
        assert actual.interval90.level == 0.90
        assert cases_needed_for_margin(24 / 86, 0.05) == actual.cases_needed
        assert pytest.approx(smallest_detectable(86, 24 / 86)) == actual.smallest_detectable

    def test_margin_and_level_reach_the_verdict(self) -> None:
        baseline, candidate = scores(53, 16, 8, 9)
        assert compare_paired(baseline, candidate, level=0.80).verdict == Verdict.BETTER
        assert compare_paired(baseline, candidate, margin=0.01).verdict == Verdict.INCONCLUSIVE

    def test_the_same_answers_are_equivalent_once_there_are_enough(self) -> None:
        assert compare_paired([1] * 300, [1] * 300).verdict == Verdict.EQUIVALENT
        assert compare_paired([1] * 10, [1] * 10).verdict == Verdict.INCONCLUSIVE

    def test_bools_and_whole_floats_count_as_zero_and_one(self) -> None:
        actual = compare_paired([True, False, True], [1.0, 1.0, 0.0])
        assert (actual.gained, actual.lost) == (1, 1)
        assert mcnemar_mid_p(1, 1) == actual.p_value
        assert mcnemar_exact(1, 1) == actual.p_exact

    @given(st.tuples(*[st.integers(0, 300)] * 4).filter(any))
    def test_exchanging_the_contenders_flips_every_sign(self, counts: tuple[int, ...]) -> None:
        old, new = scores(*counts)
        assert_flipped(compare_paired(old, new), compare_paired(new, old))


class TestGraded:
    @given(GRADED, st.data())
    def test_exchanging_the_contenders_flips_every_sign(
        self, pairs: list[tuple[float, float]], data: st.DataObject
    ) -> None:
        old, new = zip(*pairs, strict=True)
        labels = st.lists(st.integers(0, 12), min_size=len(old), max_size=len(old))
        clusters = data.draw(st.one_of(st.none(), labels))
        assert_flipped(
            compare_paired(old, new, clusters=clusters), compare_paired(new, old, clusters=clusters)
        )

    def test_repeats_are_averaged_within_their_case(self) -> None:
        """Not pooled: five answers to one case are no five cases."""
        random = np.random.default_rng(4)
        old, new = random.integers(0, 2, (40, 5)), random.integers(0, 2, (40, 3))
        actual = compare_paired(old, new)
        expected = compare_paired(old.mean(1), new.mean(1))
        assert expected == actual
        assert actual.n == 40
        assert actual.graded
        assert actual.p_exact is None
        assert sign_flip_p(new.mean(1) - old.mean(1)) == actual.p_value
        assert (
            actual.method
            == "score interval of graded differences, sign-flip test (10,000 draws, seed 0)"
        )

    def test_one_repeat_is_no_repeat(self) -> None:
        old, new = scores(20, 9, 3, 8)
        nested = [[score] for score in old], [[score] for score in new]
        assert compare_paired(old, new) == compare_paired(*nested)

    def test_small_gains_in_few_cases_do_not_rule_out_a_rare_loss_of_everything(self) -> None:
        """16 of 20 cases gain .0625: a loss of all in one case of 20 would undo that."""
        old, new = [0.5] * 20, [0.5625] * 16 + [0.5] * 4
        actual = compare_paired(old, new)
        assert actual.verdict == Verdict.INCONCLUSIVE
        assert actual.interval.low < -0.05
        assert actual.warnings[0] == (
            "20 cases are few. Up to 16.8 % of all cases could be total losses of one side without "
            "any in this sample, so the interval allows for them. From the observed scores alone "
            "the verdict would be better."
        )
        assert compare_paired(old * 20, new * 20).warnings == ()

    def test_the_cases_own_scores_do_not_rule_it_out_either(self) -> None:
        """Scores that are .9 in 95 % of cases and 0 in 5 %: true mean .855."""
        assert own_score([0.9] * 20).low < 0.855
        assert own_score([0.1] * 20).high > 0.145

    @pytest.mark.parametrize(("sd", "most"), [(0.14, 0.97), (0.35, 0.85)])
    def test_smallest_detectable_is_what_four_of_five_samples_find(
        self, sd: float, most: float
    ) -> None:
        """600 drawn samples, standard error 0.016; for values of small scale at least as often."""
        random = np.random.default_rng(6)
        noise = random.normal(0, sd, (600, 200)).clip(-0.9, 0.9)
        effect = smallest_detectable(200, float(noise.var()), graded=True)
        found = [
            difference_interval(Units.of(differences + effect, None, 1.0)).low > 0
            for differences in noise
        ]
        assert 0.75 <= float(np.mean(found)) <= most


class TestClusters:
    def test_copies_of_a_case_are_no_evidence(self) -> None:
        """Ten copies of each case count ten times as much without clusters, and once with them."""
        old, new = scores(30, 9, 3, 8)
        tenfold = [each * 10 for each in (old, new, list(range(50)))]
        alone = compare_paired(*tenfold[:2])
        together = compare_paired(*tenfold[:2], clusters=tenfold[2])
        once = compare_paired(old, new)
        assert once.difference == together.difference == alone.difference
        width = [each.interval.high - each.interval.low for each in (once, together, alone)]
        assert pytest.approx(width[0], rel=0.06) == width[1]
        assert width[1] > 2.5 * width[2]
        assert pytest.approx(10) == together.design_effect
        assert pytest.approx(once.smallest_detectable, rel=0.1) == together.smallest_detectable
        assert pytest.approx(mcnemar_exact(9, 3), abs=0.01) == together.p_value
        assert together.clusters == 50
        assert together.method == "score interval over 50 clusters, sign-flip test (in full)"

    def test_clusters_of_one_case_are_none(self) -> None:
        old, new = scores(30, 9, 3, 8)
        assert compare_paired(old, new) == compare_paired(old, new, clusters=range(50))

    @given(GRADED, st.data())
    def test_clusters_only_add_doubt(
        self, pairs: list[tuple[float, float]], data: st.DataObject
    ) -> None:
        old, new = zip(*pairs, strict=True)
        labels = st.lists(st.integers(0, 30), min_size=len(old), max_size=len(old))
        clusters = data.draw(labels)
        alone, together = (
            compare_paired(old, new, clusters=each).interval for each in (None, clusters)
        )
        assert together.low <= alone.low
        assert together.high >= alone.high

    def test_few_clusters_show_little_and_say_so(self) -> None:
        """Nine clusters, each better by 17 points: one that collapses would undo five of them."""
        n = 90
        clusters = [place % 9 for place in range(n)]
        old = [0.0 if place < 18 else 0.5 for place in range(n)]
        new = [0.85 if place < 18 else 0.5 for place in range(n)]
        nine = compare_paired(old, new, clusters=clusters)
        assert compare_paired(old, new).verdict == Verdict.BETTER
        assert nine.verdict == Verdict.INCONCLUSIVE
        assert nine.warnings[0].startswith(
            "9 clusters (of 90 cases) are few. Up to 33.6 % of all clusters could be total losses"
        )
        assert nine.method.startswith("score interval over 9 clusters")
        whole = compare_paired([0] * n, [1] * n, clusters=clusters)
        assert whole.verdict == Verdict.BETTER

    def test_labels_may_be_anything_and_must_be_as_many_as_cases(self) -> None:
        old, new = scores(5, 3, 2, 2)
        labels = ["a", "b", ("c", 1)] * 4
        assert compare_paired(old, new, clusters=labels).clusters == 3
        with pytest.raises(ValueError, match="11 cluster labels for 12 cases"):
            compare_paired(old, new, clusters=labels[1:])


class TestOwnScore:
    def test_of_right_and_wrong_it_is_wilsons(self) -> None:
        """Newcombe 1998, Stat Med 17:857: 81 of 263, 0.2553 to 0.3662."""
        actual = own_score([1] * 81 + [0] * 182)
        assert pytest.approx((0.2553, 0.3662), abs=5e-5) == (actual.low, actual.high)

    @given(EIGHTHS, st.sampled_from([1, 12, 60]))
    def test_it_lies_around_the_mean_and_within_0_to_1(
        self, values: list[float], groups: int
    ) -> None:
        clusters = [place % groups for place in range(len(values))]
        actual = own_score(values, clusters=clusters)
        mean = float(np.mean(values))
        assert 0 <= actual.low <= mean + 1e-12
        assert mean - 1e-12 <= actual.high <= 1
        assert actual.low < actual.high

    @given(EIGHTHS)
    def test_counting_what_is_wrong_mirrors_it(self, values: list[float]) -> None:
        right = own_interval(Units.of(np.array(values), None))
        wrong = own_interval(Units.of(1 - np.array(values), None))
        assert pytest.approx((1 - right.high, 1 - right.low), abs=1e-9) == (wrong.low, wrong.high)


class TestRefusals:
    @pytest.mark.parametrize("score", [1.5, -1, math.nan, math.inf])
    def test_a_score_outside_0_to_1_is_refused_with_its_place(self, score: float) -> None:
        with pytest.raises(ValueError, match=f"candidate has the score {score:g} at position 1"):
            compare_paired([1, 0], [1, score])
        with pytest.raises(ValueError, match=r"at position \(1, 0\)"):
            compare_paired([[1, 0], [score, 0]], [1, 0])

    @pytest.mark.parametrize(
        ("baseline", "candidate", "message"),
        [
            ([1, 0], [1], "baseline has 2 scores and candidate 1"),
            ([], [], "no cases to compare"),
            ([[1, 0], [1]], [1, 0], "same number of repeats"),
            ([[[1]]], [1], "not \\(1, 1, 1\\)"),
        ],
    )
    def test_scores_that_are_not_paired_are_refused(
        self, baseline: Sequence[float], candidate: Sequence[float], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            compare_paired(baseline, candidate)

    @pytest.mark.parametrize("level", [0, 1, 95])
    def test_a_level_that_is_no_share_is_refused(self, level: float) -> None:
        with pytest.raises(ValueError, match="level must be above 0 and below 1"):
            compare_paired([1, 0], [1, 1], level=level)
