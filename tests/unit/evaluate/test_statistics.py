"""The statistics against printed figures, other software, and what must hold for any counts."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import normal_power
from statsmodels.stats.proportion import proportion_confint

from unitune.evaluate.intervals import Interval, PairedCounts, paired_interval, wilson
from unitune.evaluate.sample_size import cases_needed, cases_needed_for_margin, smallest_detectable
from unitune.evaluate.statistics import (
    Verdict,
    compare_binary,
    mcnemar_exact,
    mcnemar_mid_p,
    verdict,
)

SHARES = st.floats(0.01, 0.99)


def counts_up_to(most: int) -> st.SearchStrategy[PairedCounts]:
    cell = st.integers(0, most)
    cells = st.tuples(cell, cell, cell, cell).filter(any)
    return cells.map(lambda four: PairedCounts(*four))


# Small and large tables, so that both intervals are drawn.
COUNTS = st.one_of(counts_up_to(12), counts_up_to(100), counts_up_to(2000))


def swapped(counts: PairedCounts) -> PairedCounts:
    return PairedCounts(counts.both, counts.lost, counts.gained, counts.neither)


def scores(counts: PairedCounts) -> tuple[list[int], list[int]]:
    """Baseline's and candidate's scores with these counts."""
    ones = [1] * counts.both
    baseline = ones + [0] * counts.gained + [1] * counts.lost + [0] * counts.neither
    candidate = ones + [1] * counts.gained + [0] * counts.lost + [0] * counts.neither
    return baseline, candidate


class TestPairedCounts:
    def test_gained_means_that_the_candidate_alone_is_right(self) -> None:
        actual = PairedCounts.from_scores(baseline=[1, 0, 0, 1, 0, 0], candidate=[1, 1, 1, 0, 0, 0])
        assert PairedCounts(both=1, gained=2, lost=1, neither=2) == actual
        assert 6 == actual.n
        assert 1 / 6 == actual.difference
        assert 0.5 == actual.discordance

    def test_bools_and_whole_floats_count_as_zero_and_one(self) -> None:
        assert PairedCounts(1, 1, 0, 0) == PairedCounts.from_scores([True, False], [1.0, 1.0])

    @settings(deadline=None)
    @given(COUNTS)
    def test_counts_survive_the_way_over_scores(self, counts: PairedCounts) -> None:
        assert counts == PairedCounts.from_scores(*scores(counts))

    def test_different_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="baseline has 2 scores and candidate 1"):
            PairedCounts.from_scores([1, 0], [1])

    def test_no_cases_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no cases to compare"):
            PairedCounts.from_scores([], [])

    @pytest.mark.parametrize("score", [0.5, 2, -1, math.nan])
    def test_a_score_that_is_not_binary_is_refused_with_its_place(self, score: float) -> None:
        with pytest.raises(ValueError, match=f"candidate has the score {score} at position 1"):
            PairedCounts.from_scores([1, 0], [1, score])

    def test_negative_counts_are_refused(self) -> None:
        with pytest.raises(ValueError, match="0 or more"):
            PairedCounts(3, -1, 0, 0)


class TestMcNemar:
    @pytest.mark.parametrize(
        ("gained", "lost", "expected"),
        [
            (121, 59, 0.000004),
            (70, 59, 0.378688),
            (80, 59, 0.089452),
            (30, 60, 0.00206),
            (10, 30, 0.002221),
            (10, 10, 1.0),
        ],
    )
    def test_exact_p_is_that_of_statsmodels_own_tests(
        self, gained: int, lost: int, expected: float
    ) -> None:
        """statsmodels/stats/tests/test_nonparametric.py, test_mcnemar_exact, six decimals."""
        assert pytest.approx(expected, abs=5e-7) == mcnemar_exact(gained, lost)

    def test_armitage_and_berry_sputum_cultures(self) -> None:
        """Armitage and Berry's sputum data (20, 12, 2, 16) at statsdirect.com: exact p 0.0129.

        The mid-p is not printed there: 0.007385 = 2 * (1 + 14 + 91 / 2) / 2**14.
        """
        assert pytest.approx(0.0129, abs=5e-5) == mcnemar_exact(12, 2)
        assert pytest.approx(0.007385, abs=5e-7) == mcnemar_mid_p(12, 2)
        assert pytest.approx(2 * (1 + 14 + 91 / 2) / 2**14, rel=1e-12) == mcnemar_mid_p(12, 2)

    def test_agresti_approval_ratings(self) -> None:
        """Agresti's approval table (794, 86, 150, 570): exact p 3.716e-5 (facts, section 9.2)."""
        assert pytest.approx(3.716e-5, abs=5e-9, rel=0) == mcnemar_exact(86, 150)

    def test_fagerland_complete_response(self) -> None:
        """Cavo et al. 2012 (59, 6, 16, 80): mid-p 0.034690, exact 0.052479.

        Printed by Fagerland, Lydersen and Laake's R package contingencytables,
        tests/testthat/test-ch8.R.
        """
        assert pytest.approx(0.034690, abs=5e-7) == mcnemar_mid_p(6, 16)
        assert pytest.approx(0.052479, abs=5e-7) == mcnemar_exact(6, 16)

    @given(st.integers(0, 400), st.integers(0, 400))
    def test_exact_p_is_that_of_statsmodels(self, gained: int, lost: int) -> None:
        expected = float(mcnemar([[7, gained], [lost, 7]], exact=True).pvalue)
        assert pytest.approx(min(1.0, expected), rel=1e-9) == mcnemar_exact(gained, lost)

    @given(st.integers(0, 3000), st.integers(0, 3000))
    def test_p_lies_in_0_to_1_and_exact_is_never_below_mid_p(self, gained: int, lost: int) -> None:
        assert 0 <= mcnemar_mid_p(gained, lost) <= mcnemar_exact(gained, lost) <= 1

    @given(st.integers(0, 3000), st.integers(0, 3000))
    def test_p_is_the_same_with_contenders_exchanged(self, gained: int, lost: int) -> None:
        assert mcnemar_mid_p(lost, gained) == mcnemar_mid_p(gained, lost)
        assert mcnemar_exact(lost, gained) == mcnemar_exact(gained, lost)

    @pytest.mark.parametrize("each", [0, 1, 10, 1000])
    def test_a_tie_is_no_evidence(self, each: int) -> None:
        assert pytest.approx(1) == mcnemar_mid_p(each, each)
        assert pytest.approx(1) == mcnemar_exact(each, each)


class TestWilson:
    @pytest.mark.parametrize(
        ("successes", "n", "low", "high"),
        [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ],
    )
    def test_newcombes_table(self, successes: int, n: int, low: float, high: float) -> None:
        """Newcombe 1998, Stat Med 17:857, score method without correction, four decimals."""
        actual = wilson(successes, n)
        assert pytest.approx((low, high), abs=5e-5) == (actual.low, actual.high)

    @given(st.integers(1, 5000), st.floats(0, 1), SHARES)
    def test_it_is_that_of_statsmodels(self, n: int, share: float, level: float) -> None:
        successes = round(share * n)
        actual = wilson(successes, n, level)
        low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
        assert pytest.approx((float(low), float(high)), abs=1e-9) == (actual.low, actual.high)

    @given(st.integers(1, 5000), st.floats(0, 1))
    def test_it_contains_the_share_and_stays_within_0_to_1(self, n: int, share: float) -> None:
        successes = round(share * n)
        actual = wilson(successes, n)
        assert 0 <= actual.low <= successes / n <= actual.high <= 1
        assert actual.low < actual.high

    @pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4)])
    def test_impossible_counts_are_refused(self, successes: int, n: int) -> None:
        with pytest.raises(ValueError, match="successes must be from 0 to n"):
            wilson(successes, n)


class TestPairedInterval:
    @pytest.mark.parametrize(
        ("counts", "level", "low", "high"),
        [
            pytest.param(PairedCounts(4, 9, 3, 16), 0.95, -0.027, 0.390, id="Tango 1998"),
            pytest.param(PairedCounts(43, 0, 1, 0), 0.90, -0.096, 0.037, id="Tango 1998, 90 %"),
            pytest.param(PairedCounts(53, 16, 8, 9), 0.95, -0.020, 0.207, id="Agresti, Min 2005"),
            pytest.param(PairedCounts(1, 1, 7, 12), 0.95, -0.517, -0.026, id="Fagerland 2014"),
        ],
    )
    def test_published_score_intervals(
        self, counts: PairedCounts, level: float, low: float, high: float
    ) -> None:
        """Worked examples, named in the ids, as PeteLaud/ratesci holds them to three decimals.

        tests/testthat/test3.R there, "legacy & new methods match published examples".
        """
        actual = paired_interval(counts, level)
        assert pytest.approx((low, high), abs=5e-4) == (actual.low, actual.high)

    def test_fagerland_complete_response(self) -> None:
        """Cavo et al. 2012 (59, 6, 16, 80): Tango -0.1240 to -0.0054.

        Printed by Fagerland, Lydersen and Laake's R package contingencytables,
        tests/testthat/test-ch8.R.
        """
        actual = paired_interval(PairedCounts(59, 6, 16, 80))
        assert pytest.approx((-0.1240, -0.0054), abs=5e-5) == (actual.low, actual.high)

    def test_many_cases_give_the_mean_plus_and_minus_t_standard_errors(self) -> None:
        """The report line in facts, section 8.3.11: +13.9 [11.5, 16.3], standard error 0.0120."""
        actual = paired_interval(PairedCounts(749, 151, 12, 88))
        assert pytest.approx((0.115, 0.163), abs=5e-4) == (actual.low, actual.high)
        # 1.9623 is the 97.5 % point of t with 999 degrees of freedom.
        assert pytest.approx(0.0120, abs=5e-5) == (actual.high - actual.low) / 2 / 1.9623

    @given(COUNTS, SHARES)
    def test_exchanging_the_contenders_flips_every_sign_bit_for_bit(
        self, counts: PairedCounts, level: float
    ) -> None:
        there, back = paired_interval(counts, level), paired_interval(swapped(counts), level)
        assert -there.low == back.high
        assert -there.high == back.low
        assert -counts.difference == swapped(counts).difference

    @given(COUNTS, SHARES)
    def test_it_contains_the_difference_has_width_and_stays_within_one(
        self, counts: PairedCounts, level: float
    ) -> None:
        actual = paired_interval(counts, level)
        assert -1 <= actual.low <= counts.difference <= actual.high <= 1
        assert actual.low < actual.high

    @given(COUNTS)
    def test_a_higher_level_gives_a_wider_interval(self, counts: PairedCounts) -> None:
        narrow, wide = paired_interval(counts, 0.90), paired_interval(counts, 0.95)
        assert wide.low <= narrow.low
        assert narrow.high <= wide.high

    @pytest.mark.parametrize("n", [10, 299, 300, 5000])
    def test_without_discordant_cases_it_reaches_as_far_as_wilsons(self, n: int) -> None:
        actual = paired_interval(PairedCounts(n, 0, 0, 0))
        assert pytest.approx(wilson(0, n).high, rel=1e-9) == actual.high

    @pytest.mark.parametrize("n", [10, 300, 5000])
    def test_all_cases_gained_still_leave_doubt(self, n: int) -> None:
        actual = paired_interval(PairedCounts(0, n, 0, 0))
        assert 1 == actual.high
        assert pytest.approx(1 - 2 * wilson(0, n).high, rel=1e-9) == actual.low

    @given(counts_up_to(70))
    def test_score_interval_leaves_out_zero_when_mcnemars_chi_square_rejects(
        self, counts: PairedCounts
    ) -> None:
        """Tango 1998: the score test at no difference is McNemar's, z = (b - c) / sqrt(b + c)."""
        z = abs(counts.gained - counts.lost) / math.sqrt(max(1, counts.gained + counts.lost))
        actual = paired_interval(counts)
        # 280 cases at most, so always the score interval; 1.959964 is the 97.5 % normal point.
        assert (z > 1.959964) == (actual.low > 0 or actual.high < 0)

    @pytest.mark.parametrize("level", [0, 1, 95])
    def test_a_level_that_is_no_share_is_refused(self, level: float) -> None:
        with pytest.raises(ValueError, match="level must be above 0 and below 1"):
            paired_interval(PairedCounts(5, 1, 1, 1), level)


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
        actual = verdict(Interval(*interval, 0.95), Interval(*interval90, 0.90), margin=0.05)
        assert expected == actual

    @pytest.mark.parametrize("margin", [0, -0.05, 5])
    def test_a_margin_that_is_no_share_is_refused(self, margin: float) -> None:
        with pytest.raises(ValueError, match="margin must be above 0 and below 1"):
            verdict(Interval(-0.1, 0.1, 0.95), Interval(-0.1, 0.1, 0.90), margin)

    @pytest.mark.parametrize("n", [50, 100, 200, 500])
    @pytest.mark.parametrize("discordance", [0.05, 0.16, 0.3])
    def test_without_a_difference_at_most_5_5_percent_of_samples_find_one(
        self, n: int, discordance: float
    ) -> None:
        """Facts, section 9, behavioural checks; every likely outcome is gone through."""
        found = 0.0
        for discordant in range(n + 1):
            share = math.comb(n, discordant) * discordance**discordant
            share *= (1 - discordance) ** (n - discordant)
            for gained in range(discordant + 1):
                chance = share * (math.comb(discordant, gained) / 2**discordant)
                if chance > 1e-6:
                    lost = discordant - gained
                    interval = paired_interval(PairedCounts(n - discordant, gained, lost, 0))
                    found += chance * (interval.low > 0 or interval.high < 0)
        assert found < 0.055


class TestCasesNeeded:
    def test_millers_worked_example(self) -> None:
        """Miller 2024, arXiv 2411.00640: variance 1/9, difference 0.03, power 0.8: n = 969.

        968.997 before rounding (facts, section 9.7); here variance = discordance - effect².
        """
        assert 969 == cases_needed(discordance=1 / 9 + 0.03**2, effect=0.03)

    @given(st.floats(0.05, 1), st.floats(0.01, 0.99), st.floats(0.7, 0.95))
    def test_it_is_the_least_n_that_has_the_power_by_statsmodels(
        self, discordance: float, share: float, power: float
    ) -> None:
        """statsmodels adds the wrong tail, which from 70 % power on is below 1e-5."""
        effect = discordance * share
        sd = math.sqrt(discordance - effect**2)
        n = cases_needed(discordance, effect, power)
        assert float(normal_power(effect, n, alpha=0.05, sigma=sd)) > power - 1e-5
        assert n == 1 or float(normal_power(effect, n - 1, alpha=0.05, sigma=sd)) < power + 1e-5

    @given(st.integers(5, 100_000), st.floats(0, 1))
    def test_smallest_detectable_is_its_inverse(self, n: int, discordance: float) -> None:
        assert n == cases_needed(discordance, smallest_detectable(n, discordance))

    @given(st.floats(0, 1), st.floats(0.01, 0.5), st.floats(1.01, 1.9))
    def test_a_smaller_effect_needs_no_fewer_cases(
        self, discordance: float, effect: float, factor: float
    ) -> None:
        assert cases_needed(discordance, effect) >= cases_needed(discordance, effect * factor)

    @given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 1))
    def test_more_cases_or_less_discordance_see_smaller_differences(
        self, n: int, first: float, second: float
    ) -> None:
        low, high = sorted((first, second))
        assert smallest_detectable(n + 1, high) < smallest_detectable(n, high)
        assert smallest_detectable(n, low) <= smallest_detectable(n, high)

    @given(st.integers(1, 10_000))
    def test_without_discordance_some_difference_still_stays_unseen(self, n: int) -> None:
        assert 0 < smallest_detectable(n, 0) < 1

    def test_200_cases_do_not_see_three_points(self) -> None:
        """Facts, section 3.3: at discordance 0.16 and 200 cases, 3 points are found in 17 %."""
        assert smallest_detectable(200, 0.16) > 0.03
        assert 200 < cases_needed(0.16, 0.03)

    def test_power_of_the_whole_comparison_is_as_promised(self) -> None:
        n, effect, discordance = cases_needed(0.16, 0.05), 0.05, 0.16
        assert pytest.approx(0.8, abs=0.03) == share_of_verdicts(
            Verdict.BETTER, n, discordance, effect
        )

    @pytest.mark.parametrize(
        ("discordance", "effect", "power"), [(1.2, 0.1, 0.8), (0.2, 0, 0.8), (0.2, 0.1, 1)]
    )
    def test_arguments_outside_their_range_are_refused(
        self, discordance: float, effect: float, power: float
    ) -> None:
        with pytest.raises(ValueError, match="must be"):
            cases_needed(discordance, effect, power)
        with pytest.raises(ValueError, match="must be"):
            smallest_detectable(0, 0.2)


class TestCasesNeededForMargin:
    def test_chows_equivalence_example(self) -> None:
        """powerandsamplesize.com, 1-Sample Equivalence (Chow, Shao, Wang 2008, page 87): 52.

        Their variance 0.6 * 0.4 and margin 0.2, at 5 % and 80 % power.
        """
        assert 52 == cases_needed_for_margin(discordance=0.6 * 0.4, margin=0.2)

    def test_equal_contenders_are_found_equivalent_as_often_as_promised(self) -> None:
        n = cases_needed_for_margin(0.16, 0.05)
        assert pytest.approx(0.8, abs=0.03) == share_of_verdicts(
            Verdict.EQUIVALENT, n, 0.16, effect=0
        )

    @pytest.mark.parametrize("margin", [0.02, 0.05, 0.1])
    def test_without_discordance_it_is_the_least_n_that_can_be_equivalent(
        self, margin: float
    ) -> None:
        n = cases_needed_for_margin(0, margin)
        assert Verdict.EQUIVALENT == compare_binary([1] * n, [1] * n, margin).verdict
        assert Verdict.EQUIVALENT != compare_binary([1] * (n - 1), [1] * (n - 1), margin).verdict

    @given(st.floats(0, 1), st.floats(0.01, 0.5), st.floats(1.01, 1.9))
    def test_a_wider_margin_needs_no_more_cases(
        self, discordance: float, margin: float, factor: float
    ) -> None:
        narrow = cases_needed_for_margin(discordance, margin)
        assert cases_needed_for_margin(discordance, margin * factor) <= narrow


def share_of_verdicts(wanted: Verdict, n: int, discordance: float, effect: float) -> float:
    """How often the comparison says so, in 1,000 drawn samples (standard error 0.013)."""
    draw = random.Random(20250101)  # noqa: S311  # a simulation, no secret
    weights = [(discordance + effect) / 2, (discordance - effect) / 2, 1 - discordance]
    found = 0
    for _ in range(1000):
        outcomes = draw.choices("glt", weights, k=n)
        gained, lost, tied = (outcomes.count(kind) for kind in "glt")
        counts = PairedCounts(tied, gained, lost, 0)
        interval, interval90 = paired_interval(counts, 0.95), paired_interval(counts, 0.90)
        found += wanted == verdict(interval, interval90, margin=0.05)
    return found / 1000


class TestCompareBinary:
    def test_the_report_line_of_the_stub_workload(self) -> None:
        """Facts, section 8.3.11: 0.900 vs 0.761, 151 gained / 12 lost, +13.9 [11.5, 16.3].

        The p of 9e-32 there is the exact one; the mid-p is 4.9e-32.
        """
        counts = PairedCounts(both=749, gained=151, lost=12, neither=88)
        actual = compare_binary(*scores(counts))
        assert counts == actual.counts
        assert 0.139 == actual.difference
        assert pytest.approx((0.115, 0.163), abs=5e-4) == (
            actual.interval.low,
            actual.interval.high,
        )
        assert pytest.approx(9e-32, abs=5e-33, rel=0) == actual.p_exact
        assert pytest.approx(4.9e-32, abs=5e-34, rel=0) == actual.p_value
        assert Verdict.BETTER == actual.verdict
        assert "paired t interval, McNemar mid-p test" == actual.method

    def test_small_comparisons_use_the_score_interval(self) -> None:
        actual = compare_binary(*scores(PairedCounts(53, 16, 8, 9)))
        assert "Tango score interval, McNemar mid-p test" == actual.method
        assert Verdict.NON_INFERIOR == actual.verdict
        assert 0.90 == actual.interval90.level
        assert cases_needed_for_margin(24 / 86, 0.05) == actual.cases_needed
        assert smallest_detectable(86, 24 / 86) == actual.smallest_detectable

    def test_margin_and_level_reach_the_verdict(self) -> None:
        baseline, candidate = scores(PairedCounts(53, 16, 8, 9))
        assert Verdict.BETTER == compare_binary(baseline, candidate, level=0.80).verdict
        assert Verdict.INCONCLUSIVE == compare_binary(baseline, candidate, margin=0.01).verdict

    @settings(deadline=None)
    @given(COUNTS)
    def test_exchanging_the_contenders_turns_better_into_worse(self, counts: PairedCounts) -> None:
        baseline, candidate = scores(counts)
        there, back = compare_binary(baseline, candidate), compare_binary(candidate, baseline)
        assert (there.verdict == Verdict.BETTER) == (back.verdict == Verdict.WORSE)
        assert (there.verdict == Verdict.WORSE) == (back.verdict == Verdict.BETTER)
        assert -there.difference == back.difference
        assert there.p_value == back.p_value
        assert there.cases_needed == back.cases_needed

    def test_the_same_answers_are_equivalent_once_there_are_enough(self) -> None:
        assert Verdict.EQUIVALENT == compare_binary([1] * 300, [1] * 300).verdict
        assert Verdict.INCONCLUSIVE == compare_binary([1] * 10, [1] * 10).verdict
