"""Sample sizes against printed figures, other software, and the comparison itself."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom, multinomial, norm

from unitune.evaluate.scoring.scorers import build
from unitune.evaluate.statistics.intervals import Units, difference_interval
from unitune.evaluate.statistics.paired import Verdict, compare_paired
from unitune.evaluate.statistics.sample_size import (
    cases_needed,
    cases_needed_for_margin,
    foresight,
    power_to_equal,
    power_to_find,
    smallest_detectable,
)
from unitune.job.job import Evaluate
from unitune.scorers.interface import Kind, Setting

GRID = [
    (discordance, effect)
    for discordance in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    for effect in (0.02, 0.05, 0.1, 0.2, 0.4)
    if effect <= discordance
]
"""Discordances and differences; the cases go from 9 to some 2,000 (and 19,600 at 1 and 0.02)."""


class TestCasesNeeded:
    def test_connors_sample_size(self) -> None:
        """R's MESS 0.6.0, power_mcnemar_test(paid=0.05, psi=9, power=0.8): n = 22.

        Connor 1987, Biometrics 43:207, for 0.05 lost and 0.45 gained: 22.01. With the variance of
        the difference alone it would be 17, whose power is 0.71.
        """
        assert cases_needed(discordance=0.5, effect=0.4) == 22
        assert pytest.approx(0.71, abs=0.005) == power_to_find(17, 0.5, 0.4)

    @pytest.mark.parametrize(("discordance", "effect"), GRID)
    def test_so_many_cases_have_the_power_by_every_outcome(
        self, discordance: float, effect: float
    ) -> None:
        """Held against scipy's binomial: McNemar's rule over all numbers of discordant cases."""
        n = cases_needed(discordance, effect)
        assert mcnemar_power(n, discordance, effect) >= 0.8 - 1e-9
        assert n <= 1.01 * connor(discordance, effect) + 1

    def test_the_power_is_that_of_the_comparison_itself(self) -> None:
        n, discordance, effect = 24, 0.5, 0.3
        found = 0.0
        for gained in range(n + 1):
            for lost in range(n + 1 - gained):
                values = np.array([1.0] * gained + [-1.0] * lost + [0.0] * (n - gained - lost))
                if difference_interval(Units.of(values, None, 1.0)).low > 0:
                    found += multinomial.pmf([gained, lost, n - gained - lost], n, [0.4, 0.1, 0.5])
        assert pytest.approx(found, abs=1e-9) == power_to_find(n, discordance, effect)

    @given(st.integers(5, 10_000), st.floats(0.05, 1))
    @example(3170, 1.0)  # the chances summed to a little over 1
    def test_smallest_detectable_is_found_with_the_power(self, n: int, discordance: float) -> None:
        effect = smallest_detectable(n, discordance)
        assert effect == 1 or power_to_find(n, max(discordance, effect), effect) >= 0.8
        assert effect == 1 or cases_needed(discordance, effect) <= 1.03 * n + 2

    @given(st.floats(0, 1), st.floats(0.05, 0.5), st.floats(1.1, 1.9))
    def test_a_smaller_effect_needs_no_fewer_cases(
        self, discordance: float, effect: float, factor: float
    ) -> None:
        assert cases_needed(discordance, effect) >= cases_needed(discordance, effect * factor)

    @given(st.integers(4, 1000), st.floats(0, 1), st.floats(0, 1))
    def test_more_cases_or_less_discordance_see_smaller_differences(
        self, n: int, first: float, second: float
    ) -> None:
        low, high = sorted((first, second))
        for graded in (False, True):
            least = smallest_detectable(n, low, graded=graded)
            assert smallest_detectable(2 * n, low, graded=graded) < least
            assert least <= smallest_detectable(n, high, graded=graded) * 1.01

    @given(st.integers(1, 10_000))
    def test_without_discordance_some_difference_still_stays_unseen(self, n: int) -> None:
        assert 0 < smallest_detectable(n, 0, graded=True) <= 1

    def test_three_cases_find_nothing(self) -> None:
        """Three gains of three are no evidence at 95 %, and four are."""
        assert smallest_detectable(3, 0) == 1
        assert 1 > smallest_detectable(4, 0) > 0.9

    def test_200_cases_do_not_see_three_points(self) -> None:
        """Facts, section 3.3: at discordance 0.16 and 200 cases, 3 points are found in 17 %."""
        assert smallest_detectable(200, 0.16) > 0.03
        assert cases_needed(0.16, 0.03) > 200
        assert pytest.approx(0.17, abs=0.02) == power_to_find(200, 0.16, 0.03)

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


def connor(discordance: float, effect: float) -> float:
    """Connor 1987, Biometrics 43:207, at 80 % power."""
    z, beyond = norm.ppf(0.975), norm.ppf(0.8)
    ends = z * math.sqrt(discordance) + beyond * math.sqrt(discordance - effect**2)
    return float(ends / effect) ** 2


def mcnemar_power(n: int, discordance: float, effect: float) -> float:
    """Probability of (gained - lost) / root(gained + lost) > 1.96, by scipy."""
    discordant = np.arange(n + 1)
    least = np.floor((discordant + norm.ppf(0.975) * np.sqrt(discordant)) / 2) + 1
    share = (discordance + effect) / 2 / discordance
    chances = binom.sf(least - 1, discordant, share)
    return float((binom.pmf(discordant, n, discordance) * chances).sum())


class TestCasesNeededForMargin:
    @pytest.mark.parametrize(
        ("discordance", "before"), [(0.02, 69), (0.05, 172), (0.1, 343), (0.3, 1028)]
    )
    def test_few_discordant_cases_need_more_than_their_variance_says(
        self, discordance: float, before: int
    ) -> None:
        """With the variance at a difference of 0 the power was 0.37, 0.67, 0.77 and 0.80."""
        assert cases_needed_for_margin(discordance, 0.05) > before
        had = {0.02: 0.37, 0.05: 0.67, 0.1: 0.765, 0.3: 0.80}[discordance]
        assert pytest.approx(had, abs=0.006) == power_to_equal(before, discordance, 0.05)

    @pytest.mark.parametrize("discordance", [0.001, 0.02, 0.05, 0.1, 0.2, 0.3, 0.6, 1.0])
    @pytest.mark.parametrize(
        ("margin", "power"), [(0.02, 0.8), (0.05, 0.8), (0.05, 0.9), (0.1, 0.8)]
    )
    def test_so_many_cases_have_the_power_by_every_outcome(
        self, discordance: float, margin: float, power: float
    ) -> None:
        n = cases_needed_for_margin(discordance, margin, power=power)
        assert power <= power_to_equal(n, discordance, margin)

    def test_the_power_is_that_of_the_comparison_itself(self) -> None:
        n, discordance, margin = 30, 0.2, 0.3
        found = 0.0
        for gained in range(n + 1):
            for lost in range(n + 1 - gained):
                values = np.array([1.0] * gained + [-1.0] * lost + [0.0] * (n - gained - lost))
                interval = difference_interval(Units.of(values, None, 1.0), 0.90)
                if -margin < interval.low and interval.high < margin:
                    found += multinomial.pmf([gained, lost, n - gained - lost], n, [0.1, 0.1, 0.8])
        assert pytest.approx(found, abs=1e-9) == power_to_equal(n, discordance, margin)

    def test_chows_equivalence_example_is_the_variance_at_no_difference(self) -> None:
        """powerandsamplesize.com, 1-Sample Equivalence (Chow, Shao, Wang 2008, page 87): 52.

        Their variance 0.6 * 0.4 and margin 0.2, at 5 % and 80 % power. With as wide a margin the
        score interval, which goes by the variance at the margin, takes a few more.
        """
        assert 52 <= cases_needed_for_margin(0.6 * 0.4, margin=0.2, graded=True) <= 60

    @pytest.mark.parametrize("margin", [0.02, 0.05, 0.1])
    def test_without_discordance_it_is_the_least_n_that_can_be_equivalent(
        self, margin: float
    ) -> None:
        n = cases_needed_for_margin(0, margin)
        assert compare_paired([1] * n, [1] * n, margin=margin).verdict == Verdict.EQUIVALENT
        assert (
            compare_paired([1] * (n - 1), [1] * (n - 1), margin=margin).verdict
            != Verdict.EQUIVALENT
        )

    @given(st.floats(0, 1), st.floats(0.01, 0.5), st.floats(1.1, 1.9))
    def test_a_wider_margin_needs_no_more_cases(
        self, mean_square: float, margin: float, factor: float
    ) -> None:
        narrow = cases_needed_for_margin(mean_square, margin, graded=True)
        assert cases_needed_for_margin(mean_square, margin * factor, graded=True) <= narrow


PLAIN = ("exact", "contains", "numeric", "json_valid", "json_equal", "json_fields", "token_f1")


class TestForesight:
    def test_it_says_what_is_visible_and_what_the_margin_needs(self) -> None:
        said = foresight(200, 0.05)
        assert f"{100 * smallest_detectable(200, 0.1):.1f} to " in said
        assert f"{100 * smallest_detectable(200, 0.3):.1f} points" in said
        assert f"Detecting 5 points takes {cases_needed(0.1, 0.05)} to" in said

    @pytest.mark.parametrize("n", range(1, 40))
    def test_no_range_is_without_width(self, n: int) -> None:
        for graded in (False, True):
            said = foresight(n, 0.05, graded=graded)
            assert not re.search(r"([\d.,]+) to \1 ", said)

    def test_too_few_cases_are_promised_nothing(self) -> None:
        assert (
            foresight(3, 0.05)
        ) == "3 test cases are too few to detect any difference, however large."

    def test_jobs_know_which_scorers_are_graded(self) -> None:
        """Held against what the scorers themselves say, as far as they can be built here."""
        for spec in map(Evaluate.model_validate, ({"scorers": [name]} for name in PLAIN)):
            (scorer,) = (build(each, Setting()) for each in spec.scorers)
            assert (scorer.kind is not Kind.BINARY) == spec.graded, scorer.name
        assert Evaluate(repeats=3).graded
        assert not Evaluate().graded

    def test_graded_scores_disagree_by_points_and_not_in_shares_of_cases(self) -> None:
        said = foresight(200, 0.05, graded=True)
        assert "disagree" not in said
        assert "case scores that differ by 20 to 40 points" in said
