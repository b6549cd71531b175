"""Adjusted p-values against printed figures and statsmodels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from unitune.evaluate.statistics.significance import benjamini_hochberg, holm

ADJUSTMENTS = {"holm": holm, "fdr_bh": benjamini_hochberg}

# Benjamini and Hochberg 1995, J R Stat Soc B 57:289, section 4.1: thrombolysis, 15 hypotheses.
THROMBOLYSIS = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
    0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
]  # fmt: skip


def test_benjamini_and_hochbergs_own_example_finds_four() -> None:
    """They print that their procedure rejects four, with P(4) = 0.0095 <= 4/15 * 0.05 = 0.013."""
    adjusted = benjamini_hochberg(THROMBOLYSIS)
    assert [p <= 0.05 for p in adjusted] == [True] * 4 + [False] * 11
    assert pytest.approx(0.0095 * 15 / 4) == adjusted[3]


def test_in_the_same_example_the_error_rate_of_the_family_allows_three() -> None:
    """They print three for Bonferroni's and Hochberg's procedures; Holm's lies between them."""
    assert [p <= 0.05 for p in holm(THROMBOLYSIS)] == [True] * 3 + [False] * 12


@pytest.mark.parametrize("method", ADJUSTMENTS)
@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=settings.default.max_examples // 4)  # statsmodels takes 0.1 s for each
def test_they_are_those_of_statsmodels(method: str, p_values: list[float]) -> None:
    expected = multipletests(p_values, method=method)[1].tolist()
    assert pytest.approx(expected) == ADJUSTMENTS[method](p_values)


@pytest.mark.parametrize("adjust", ADJUSTMENTS.values())
def test_one_comparison_or_none_needs_no_adjustment(
    adjust: Callable[[list[float]], list[float]],
) -> None:
    assert adjust([]) == []
    assert adjust([0.03]) == [0.03]


@pytest.mark.parametrize("adjust", ADJUSTMENTS.values())
def test_a_p_value_outside_0_to_1_is_refused(
    adjust: Callable[[list[float]], list[float]],
) -> None:
    with pytest.raises(ValueError, match=r"0 (to|and) 1"):
        adjust([0.5, 1.5])


def test_a_comparison_without_slices_does_not_load_scipy_stats() -> None:
    """It takes 40 MiB, a quarter of a comparison's memory."""
    code = (
        "import sys; from unitune.evaluate.statistics.significance import *; "
        "mcnemar_mid_p(9, 2), holm([0.1]), benjamini_hochberg([]); "
        "assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
