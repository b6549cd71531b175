"""Levels for several candidates on one test, and for a test that grows."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from unitune.evaluate.statistics.significance import holm
from unitune.evaluate.verdict.looks import holm_divisor, look_level, spent


def bound(sizes: list[int], planned: int) -> float:
    """The z-value that the interval at the latest look reaches to."""
    return -NormalDist().inv_cdf((1 - look_level(sizes, planned)) / 2)


@pytest.mark.parametrize(
    "published",
    [
        (2.9626, 1.9686),
        (3.7103, 2.5114, 1.9930),
        (4.3326, 2.9631, 2.3590, 2.0141),
        (4.8769, 3.3569, 2.6803, 2.2898, 2.0310),
    ],
)
def test_bounds_are_those_of_the_published_programs(published: tuple[float, ...]) -> None:
    """Two-sided 0.05, equally spaced looks: ldbounds (Reboussin, DeMets, Kim and Lan 2000, Control
    Clin Trials 21:190) and gsDesign's sfLDOF.
    """
    planned = len(published)
    sizes = [100 * look for look in range(1, planned + 1)]
    for look, expected in enumerate(published, start=1):
        assert pytest.approx(expected, abs=2e-4) == bound(sizes[:look], planned)


def test_unequal_steps_spend_what_is_planned() -> None:
    """Two looks at 50 and 400 cases, held against scipy's bivariate normal distribution."""
    first, second = bound([50], 2), bound([50, 400], 2)
    between = multivariate_normal(cov=[[1, np.sqrt(1 / 8)], [np.sqrt(1 / 8), 1]])
    inside = between.cdf(np.array([first, second]), lower_limit=np.array([-first, -second]))
    assert pytest.approx(0.05, abs=1e-6) == 1 - inside


def test_one_planned_look_is_an_ordinary_comparison() -> None:
    assert pytest.approx(0.95) == look_level([120], 1)
    assert pytest.approx(0.05) == spent(1)


def test_more_looks_than_planned_are_refused() -> None:
    with pytest.raises(ValueError, match="3 looks exceed the 2 planned looks"):
        look_level([10, 20, 30], 2)


@pytest.mark.parametrize(
    ("p", "others", "divisor"),
    [
        (0.03, [], 1),
        (0.03, [0.6, 0.4], 3),
        (0.03, [0.001, 0.4], 2),  # the first is rejected at a third, so a half is left
        (0.03, [0.02, 0.001], 1),  # so is 0.02 at a half, and nothing is left to divide by
        (0.03, [0.024, 0.02], 3),
    ],
)
def test_alpha_is_divided_as_in_holms_procedure(
    p: float, others: list[float], divisor: int
) -> None:
    assert divisor == holm_divisor(p, others)
    assert (holm([p, *others])[0] <= 0.05) == (p * divisor <= 0.05)
