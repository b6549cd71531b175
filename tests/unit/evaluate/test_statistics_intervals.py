"""Intervals against printed figures, other software, enumeration, and what must hold for any."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binom
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint

from unitune.evaluate.statistics.intervals import (
    Interval,
    Units,
    difference_interval,
    own_interval,
    refuted,
    two_sided_z,
)

Z95 = two_sided_z(0.95)
SHARES = st.floats(0.01, 0.99)
VALUES = st.lists(st.floats(-1, 1), min_size=1, max_size=60).map(np.array)


def tango(tied: int, gained: int, lost: int, level: float = 0.95) -> Interval:
    values = np.array([0.0] * tied + [1.0] * gained + [-1.0] * lost)
    return difference_interval(Units.of(values, None), level)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    values = np.array([1.0] * successes + [0.0] * (n - successes))
    return own_interval(Units.of(values, None), level)


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

    @given(st.integers(1, 3000), st.floats(0, 1), SHARES)
    def test_it_is_that_of_statsmodels(self, n: int, share: float, level: float) -> None:
        successes = round(share * n)
        actual = wilson(successes, n, level)
        low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
        assert pytest.approx((float(low), float(high)), abs=1e-9) == (actual.low, actual.high)

    def test_nothing_right_has_a_lower_end_of_zero_and_all_right_an_upper_end_of_one(self) -> None:
        assert wilson(0, 20).low == 0
        assert wilson(20, 20).high == 1


class TestTango:
    @pytest.mark.parametrize(
        ("tied", "gained", "lost", "level", "low", "high"),
        [
            pytest.param(20, 9, 3, 0.95, -0.027, 0.390, id="Tango 1998"),
            pytest.param(43, 0, 1, 0.90, -0.096, 0.037, id="Tango 1998, 90 %"),
            pytest.param(62, 16, 8, 0.95, -0.020, 0.207, id="Agresti, Min 2005"),
            pytest.param(13, 1, 7, 0.95, -0.517, -0.026, id="Fagerland 2014"),
        ],
    )
    def test_published_score_intervals(  # noqa: PLR0917 - one row of a table
        self, tied: int, gained: int, lost: int, level: float, low: float, high: float
    ) -> None:
        """Worked examples, named in the ids, as PeteLaud/ratesci holds them to three decimals.

        tests/testthat/test3.R there, "legacy & new methods match published examples".
        """
        actual = tango(tied, gained, lost, level)
        assert pytest.approx((low, high), abs=5e-4) == (actual.low, actual.high)

    def test_fagerland_complete_response(self) -> None:
        """Cavo et al. 2012 (59, 6, 16, 80): Tango -0.1240 to -0.0054.

        Printed by Fagerland, Lydersen and Laake's R package contingencytables,
        tests/testthat/test-ch8.R.
        """
        actual = tango(139, 6, 16)
        assert pytest.approx((-0.1240, -0.0054), abs=5e-5) == (actual.low, actual.high)

    @given(st.tuples(*[st.integers(0, 100)] * 3).filter(any))
    def test_it_leaves_out_zero_when_mcnemars_chi_square_rejects(
        self, counts: tuple[int, int, int]
    ) -> None:
        """Tango 1998: the score test at no difference is McNemar's, z = (b - c) / sqrt(b + c)."""
        tied, gained, lost = counts
        z = abs(gained - lost) / math.sqrt(max(1, gained + lost))
        actual = tango(tied, gained, lost)
        assert (z > Z95) == (actual.low > 0 or actual.high < 0)

    @given(st.tuples(*[st.integers(0, 60)] * 3).filter(any), SHARES)
    @example((0, 0, 33), 0.01171875)
    def test_its_ends_are_where_tangos_statistic_is_z(
        self, counts: tuple[int, int, int], level: float
    ) -> None:
        """Tango 1998, equations of section 2, by his closed form of the restricted estimate.

        In 50 digits: where all is lost the terms under its root cancel to the last 5 of a float's.
        """
        tied, gained, lost = counts
        n, upper = tied + gained + lost, Decimal(tango(tied, gained, lost, level).high)
        if upper == 1:
            return
        with localcontext(prec=50):
            b = (2 * n - gained + lost) * upper - gained - lost
            c = -lost * upper * (1 - upper)
            lost_share = ((b**2 - 8 * n * c).sqrt() - b) / (4 * n)
            variance = n * (2 * lost_share + upper * (1 - upper))
            z = float((n * upper - gained + lost) / variance.sqrt())
        assert pytest.approx(two_sided_z(level), rel=1e-9) == z

    @pytest.mark.parametrize("n", [10, 300, 5000])
    def test_without_a_difference_it_reaches_as_far_as_wilsons(self, n: int) -> None:
        assert pytest.approx(wilson(0, n).high, rel=1e-9) == tango(n, 0, 0).high

    @pytest.mark.parametrize("n", [10, 300, 5000])
    def test_all_cases_gained_still_leave_doubt(self, n: int) -> None:
        assert tango(0, n, 0).high == 1
        assert pytest.approx(1 - 2 * wilson(0, n).high, rel=1e-9) == tango(0, n, 0).low

    @pytest.mark.parametrize("n", [50, 100, 200, 500])
    @pytest.mark.parametrize("discordance", [0.05, 0.16, 0.3])
    def test_without_a_difference_at_most_5_5_percent_of_samples_find_one(
        self, n: int, discordance: float
    ) -> None:
        """Facts, section 9, behavioural checks; every outcome is gone through."""
        discordant = np.arange(n + 1)
        chance = binom.pmf(discordant, n, discordance)
        found = 0.0
        for k, of_k in zip(discordant[1:], chance[1:], strict=True):
            gained = np.arange(k + 1)
            # Any k of the n values may be the discordant ones; ties of 0 add nothing to x at 0.
            values = np.where(np.arange(k) < gained[:, None], 1.0, -1.0)  # (k + 1, k)
            above = refuted(values, np.ones_like(values), 1.0, np.zeros(k + 1), Z95)
            below = refuted(-values, np.ones_like(values), 1.0, np.zeros(k + 1), Z95)
            found += of_k * float(binom.pmf(gained, k, 0.5)[above | below].sum())
        assert 0.02 < found < 0.055


class TestGraded:
    @pytest.mark.parametrize("bound", [0.0, 1.0])
    @pytest.mark.parametrize("clustered", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_its_ends_are_where_the_score_statistic_is_z_by_direct_maximisation(
        self, seed: int, *, clustered: bool, bound: float
    ) -> None:
        """The likelihood over the units seen and one unseen, maximised by scipy's SLSQP."""
        values = np.random.default_rng(seed).uniform(-0.6, 0.9, 12).round(2)
        clusters = [0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7] if clustered else None
        units = replace(Units.of(values, clusters, bound), alone=None)
        upper = difference_interval(units, 0.95).high
        usual = (units.sizes**2).sum() / 12
        farthest = bound or np.abs(units.sums / units.sizes).max()
        x = np.append(units.sums - upper * units.sizes, (farthest - upper) * usual)

        found = minimize(
            lambda w: -np.log(w[:-1]).sum(),
            np.full(len(x), 1 / len(x)),
            method="SLSQP",
            bounds=[(1e-9, 1)] * units.count + [(0, 1)],
            constraints=[
                {"type": "eq", "fun": lambda w: w.sum() - 1},
                {"type": "eq", "fun": lambda w: w @ x},
            ],
            options={"maxiter": 500, "ftol": 1e-14},
        )
        z = -x[:-1].mean() / math.sqrt(found.x @ x**2 / units.count)
        assert pytest.approx(Z95, rel=1e-3) == z

    @pytest.mark.parametrize("n", [20, 50, 200, 500])
    def test_a_loss_of_everything_that_a_sample_may_lack_is_allowed_for(self, n: int) -> None:
        """A share of cases that one sample in 20 lacks loses all; the others gain as much.

        True difference 0: at most 2.5 % of samples may say better (2,000 drawn: + 3 SE).
        """
        rare = 1 - 0.05 ** (1 / n)
        random = np.random.default_rng(n)
        values = np.where(random.random((2000, n)) < rare, -1.0, rare / (1 - rare))
        better = refuted(-values, np.ones_like(values), 1.0, np.zeros(2000), Z95)
        assert better.mean() <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 2000)
        allowed = difference_interval(Units.of(np.full(n, 0.01), None, 1.0)).low
        assert allowed <= 0.01 - 0.9 * Z95**2 / (n + Z95**2)

    @given(VALUES, SHARES)
    @example(np.full(3, 0.1), 0.5)
    def test_it_contains_the_mean_has_width_and_mirrors_bit_for_bit(
        self, values: np.ndarray, level: float
    ) -> None:
        there, back = (difference_interval(Units.of(v, None), level) for v in (values, -values))
        assert there.low <= values.mean() <= there.high
        assert there.low < there.high
        assert (-there.high, -there.low) == (back.low, back.high)

    @given(VALUES)
    def test_a_higher_level_gives_a_wider_interval(self, values: np.ndarray) -> None:
        narrow, wide = (difference_interval(Units.of(values, None), x) for x in (0.90, 0.95))
        assert wide.low <= narrow.low
        assert narrow.high <= wide.high

    def test_for_many_cases_it_is_the_normal_interval(self) -> None:
        values = np.random.default_rng(2).normal(0.01, 0.2, 20_000).clip(-1, 1)
        actual = difference_interval(Units.of(values, None))
        half = Z95 * values.std(ddof=1) / math.sqrt(20_000)
        expected = (values.mean() - half, values.mean() + half)
        assert pytest.approx(expected, abs=0.005 * half) == (actual.low, actual.high)


class TestClusters:
    def test_the_scatter_is_statsmodels_cluster_robust_variance(self) -> None:
        random = np.random.default_rng(9)
        clusters = random.integers(0, 25, 300)
        values = random.normal(0.1, 0.3, 300) + random.normal(0, 0.2, 25)[clusters]
        fit = OLS(values, np.ones(300)).fit(
            cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}
        )
        actual = math.sqrt(Units.of(values, clusters.tolist()).scatter / 300)
        assert pytest.approx(float(fit.bse[0])) == actual

    @pytest.mark.parametrize("even", [True, False])
    @pytest.mark.parametrize("count", [6, 10, 20, 50])
    def test_clusters_that_collapse_make_no_claim_too_often(
        self, count: int, *, even: bool
    ) -> None:
        """One cluster in seven loses all, the others gain as much: 2.5 % (2,000 drawn: + 3 SE)."""
        random = np.random.default_rng(count)
        shares = random.exponential(1, (2000, count)) if not even else np.ones((2000, count))
        sizes = 1 + np.floor(4 * count * shares / shares.sum(1, keepdims=True))
        means = np.where(random.random((2000, count)) < 1 / 7, -1.0, 1 / 6)
        better = refuted(-means * sizes, sizes, 1.0, np.zeros(2000), Z95)
        assert better.mean() <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 2000)

    def test_many_even_clusters_have_the_interval_of_the_robust_variance(self) -> None:
        """statsmodels' cluster-robust standard error, 2,000 clusters of 5 cases."""
        random = np.random.default_rng(8)
        clusters = np.repeat(np.arange(2000), 5)
        values = random.normal(0.1, 0.2, 10_000).clip(-0.5, 0.5)
        values += random.normal(0, 0.1, 2000).clip(-0.4, 0.4)[clusters]
        fit = OLS(values, np.ones(10_000)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
        actual = difference_interval(Units.of(values, clusters.tolist(), 1.0))
        half = Z95 * float(fit.bse[0])
        expected = (values.mean() - half, values.mean() + half)
        assert pytest.approx(expected, abs=0.02 * half) == (actual.low, actual.high)
