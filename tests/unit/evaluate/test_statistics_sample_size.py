"""Sample sizes against printed figures, other software, and the comparison itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import normal_power

from unitune.evaluate.statistics.intervals import difference_interval
from unitune.evaluate.statistics.paired import Verdict, compare_paired, verdict
from unitune.evaluate.statistics.sample_size import (
    Design,
    cases_for,
    cases_needed,
    cases_needed_for_margin,
    foresight,
    smallest_detectable,
)
from unitune.evaluate.statistics.units import Units


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
        assert 52 == cases_needed_for_margin(0.6 * 0.4, margin=0.2)

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
        assert Verdict.EQUIVALENT == compare_paired([1] * n, [1] * n, margin=margin).verdict
        assert (
            Verdict.EQUIVALENT
            != compare_paired([1] * (n - 1), [1] * (n - 1), margin=margin).verdict
        )

    @given(st.floats(0, 1), st.floats(0.01, 0.5), st.floats(1.01, 1.9))
    def test_a_wider_margin_needs_no_more_cases(
        self, discordance: float, margin: float, factor: float
    ) -> None:
        narrow = cases_needed_for_margin(discordance, margin)
        assert cases_needed_for_margin(discordance, margin * factor) <= narrow


def share_of_verdicts(wanted: Verdict, n: int, discordance: float, effect: float) -> float:
    """How often the comparison says so, in 1,000 drawn samples (standard error 0.013)."""
    random = np.random.default_rng(20250101)
    weights = [(discordance + effect) / 2, (discordance - effect) / 2, 1 - discordance]
    drawn = random.choice([1.0, -1.0, 0.0], (1000, n), p=weights)
    found = 0
    for differences in drawn:
        units = Units.of(differences, None)
        intervals = (difference_interval(units, level) for level in (0.95, 0.90))
        found += wanted == verdict(*intervals, margin=0.05)
    return found / 1000


class TestDesign:
    def test_millers_worked_example_with_resampling_noise(self) -> None:
        """Miller 2024, arXiv 2411.00640: 1/9 between cases, 1/6 within them, difference 0.03.

        Asked once 3,876 cases, without noise 969 (facts, section 9.7).
        """
        assert 3876 == cases_for(Design().variance(1 / 9, 1 / 6, 1 / 6), 0.03)
        assert 969 == cases_for(Design().variance(1 / 9), 0.03)

    def test_repeats_divide_the_noise_of_their_own_side_alone(self) -> None:
        design = Design(baseline_repeats=2, candidate_repeats=4)
        assert pytest.approx(0.1 + 0.2 / 2 + 0.4 / 4) == design.variance(0.1, 0.2, 0.4)

    def test_clusters_multiply_by_kishs_design_effect(self) -> None:
        assert pytest.approx(1 + 19 * 0.05) == Design(cluster_size=20, icc=0.05).effect
        assert pytest.approx(1.95 * 0.1) == Design(cluster_size=20, icc=0.05).variance(0.1)

    @given(st.floats(0.01, 1), st.floats(0.01, 0.5), st.floats(0.7, 0.95))
    def test_it_is_the_least_n_that_has_the_power_by_statsmodels(
        self, variance: float, effect: float, power: float
    ) -> None:
        n, sd = cases_for(variance, effect, power), math.sqrt(variance)
        assert float(normal_power(effect, n, alpha=0.05, sigma=sd)) > power - 1e-5
        assert n == 1 or float(normal_power(effect, n - 1, alpha=0.05, sigma=sd)) < power + 1e-5

    @pytest.mark.parametrize(("variance", "effect"), [(-0.1, 0.1), (0.1, 0), (math.nan, 0.1)])
    def test_arguments_outside_their_range_are_refused(
        self, variance: float, effect: float
    ) -> None:
        with pytest.raises(ValueError, match="effect must be above 0"):
            cases_for(variance, effect)


class TestForesight:
    def test_it_says_what_is_visible_and_what_the_margin_needs(self) -> None:
        said = foresight(200, 0.05)
        assert f"{100 * smallest_detectable(200, 0.1):.1f} to " in said
        assert f"{100 * smallest_detectable(200, 0.3):.1f} points" in said
        assert f"finding one of 5 points so often takes {cases_needed(0.1, 0.05)} to" in said
