"""p-values against printed figures, other software, and what must hold for any answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test
from statsmodels.stats.contingency_tables import mcnemar

from unitune.evaluate.statistics.significance import (
    DRAWS,
    how_permuted,
    mcnemar_exact,
    mcnemar_mid_p,
    randomisation_p,
    sign_flip_p,
)

SUMS = st.lists(st.floats(-1, 1), min_size=1, max_size=40).map(np.array)


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


class TestSignFlip:
    def test_darwins_maize(self) -> None:
        """Fisher 1935, The Design of Experiments, section 21: 863 of the 32,768 sums in one tail.

        Fifteen pairs, crossed minus self-fertilised, in eighths of an inch; 1,726 in both tails.
        """
        darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
        assert sign_flip_p(np.array(darwin, dtype=float)) == 2 * 863 / 2**15

    @given(st.lists(st.integers(-4, 4), min_size=2, max_size=9))
    def test_in_full_it_is_that_of_scipy(self, quarters: list[int]) -> None:
        """Quarters, so that ties are exact; scipy goes through every exchange, too."""
        differences = np.array(quarters) / 4
        other = np.zeros_like(differences)
        expected = permutation_test(
            (differences, other),
            lambda x, y, axis: np.abs((x - y).sum(axis)),
            permutation_type="samples",
            alternative="greater",
            n_resamples=np.inf,
            vectorized=True,
        ).pvalue
        assert pytest.approx(float(expected)) == sign_flip_p(differences)

    def test_drawn_it_comes_near_mcnemars_exact_p(self) -> None:
        """For differences of -1 and 1 the test in full is the exact McNemar test."""
        differences = np.array([1.0] * 30 + [-1.0] * 15 + [0.0] * 400)
        error = (0.0357 / DRAWS) ** 0.5
        assert pytest.approx(mcnemar_exact(30, 15), abs=4 * error) == sign_flip_p(differences)

    def test_a_drawn_p_is_never_zero(self) -> None:
        assert sign_flip_p(np.ones(200)) == 1 / (1 + DRAWS)

    @given(SUMS)
    def test_it_is_the_same_with_contenders_exchanged(self, sums: np.ndarray) -> None:
        assert sign_flip_p(sums) == sign_flip_p(-sums)

    @given(SUMS)
    def test_equal_answers_count_for_nothing(self, sums: np.ndarray) -> None:
        assert sign_flip_p(sums) == sign_flip_p(np.concatenate([sums, np.zeros(30)]))

    @pytest.mark.parametrize("sums", [[0.0], [0.5, -0.5], [0.1, 0.2, -0.3] * 10])
    def test_no_difference_at_all_is_no_evidence(self, sums: list[float]) -> None:
        assert sign_flip_p(np.array(sums)) == 1

    def test_how_it_was_done_is_said(self) -> None:
        assert how_permuted(np.array([1.0] * 15 + [0.0] * 50)) == "in full"
        assert how_permuted(np.ones(16)) == "10,000 draws, seed 0"


SCORE = st.floats(0, 1, width=16)


class TestRandomisation:
    # Scores of 16 bits: a difference of the smallest doubles would vanish in their mean.
    @given(st.lists(st.tuples(SCORE, SCORE), min_size=2, max_size=30))
    def test_for_a_mean_it_is_the_sign_flip_test(self, pairs: list[tuple[float, float]]) -> None:
        old, new = np.array(pairs).T[..., None]  # (N, 1)
        moves = np.all(old != new)
        p = randomisation_p(old, new, lambda totals: totals[..., 0] / len(pairs))
        # Equal answers are drawn for here, and left out there.
        assert not moves or pytest.approx(sign_flip_p((new - old)[:, 0])) == p

    def test_it_is_the_same_with_contenders_exchanged(self) -> None:
        random = np.random.default_rng(1)
        old, new = random.integers(0, 9, (2, 60, 2)).astype(float)

        def score(totals: np.ndarray) -> np.ndarray:
            return totals[..., 0] / (1 + totals[..., 1]) ** 2

        assert randomisation_p(old, new, score) == randomisation_p(new, old, score)
