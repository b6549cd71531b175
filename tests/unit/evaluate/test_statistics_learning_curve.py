"""The power law of a learning curve: known answers, bounds, and what it dares to say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from unitune.curve.fit import EXPONENTS, Doubt, FittedCurve, Form, Laws, fit
from unitune.scorers.formulas import Sums, mean_of, micro_f1

pytestmark = pytest.mark.heavy

SIZES = (64, 128, 256, 512)
ERRORS = np.array([0.15, 0.12071067811865475, 0.10, 0.08535533905932738])
"""0.05 + 0.8 / sqrt(n), by hand."""
EVEN = np.ones(4)
EXPONENTIAL = Laws(Form.EXPONENTIAL, np.array(0.1), np.array(0.5), np.array(1 / 200))
LOGARITHMIC = Laws(Form.LOGARITHMIC, np.array(0.7), np.array(0.08), np.array(1.0))


def law(floor: float, scale: float, exponent: float) -> Laws:
    return Laws(Form.POWER, np.array(floor), np.array(scale), np.array(exponent))


def simulated(
    truth: Laws, draw: np.random.Generator, cases: int = 200, seeds: int = 3
) -> FittedCurve:
    """Return a measured curve: hard cases are wrong more often, and trainings differ."""
    hardness = draw.normal(size=cases)
    trainings: list[list[Sums]] = []
    for size in SIZES:
        right = float(truth.score(size))
        size_runs: list[Sums] = []
        for _ in range(seeds):
            luck = hardness + draw.normal(scale=0.7, size=cases) + draw.normal(scale=0.05)
            cut = np.quantile(draw.normal(scale=math.hypot(1, 0.7), size=20_000), right)
            size_runs.append(mean_of((luck < cut).astype(float).tolist()))
        trainings.append(size_runs)
    return FittedCurve.of(SIZES, trainings)


def of_scores(scores: Sequence[Sequence[int]], cases: int = 100) -> FittedCurve:
    """Return a curve of trainings that get so many cases right, the same ones first."""
    trainings = [
        [mean_of([1.0] * right + [0.0] * (cases - right)) for right in size] for size in scores
    ]
    return FittedCurve.of(SIZES, trainings)


class TestFit:
    def test_it_finds_the_law_that_made_the_errors(self) -> None:
        found = fit(SIZES, ERRORS, EVEN)
        assert pytest.approx((float(found.floor), float(found.scale), float(found.shape))) == (
            0.05,
            0.8,
            0.5,
        )

    def test_it_says_the_scores_and_rows_of_that_law(self) -> None:
        found = fit(SIZES, ERRORS, EVEN)
        assert pytest.approx(float(found.score(1024))) == 1 - 0.05 - 0.8 / 32
        assert pytest.approx(float(found.rows(0.9))) == 256
        assert pytest.approx(float(found.rows(0.94))) == 6400
        assert math.inf == found.rows(0.951) == found.rows(0.99)

    def test_several_curves_are_fitted_as_each_alone(self) -> None:
        curves = np.stack([ERRORS, 2 * ERRORS, np.full(4, 0.3), ERRORS[::-1]])
        together = fit(SIZES, curves, EVEN)
        for at, errors in enumerate(curves):
            alone = fit(SIZES, errors, EVEN)
            assert float(alone.score(1000)) == pytest.approx(float(together.score(1000)[at]))

    @pytest.mark.parametrize("errors", [np.full(4, 0.3), np.array([0.1, 0.2, 0.3, 0.4])])
    def test_errors_that_do_not_fall_have_no_exponent(self, errors: np.ndarray) -> None:
        found = fit(SIZES, errors, EVEN)
        assert (found.scale, found.shape) == (0, 0)
        assert float(errors.mean()) == pytest.approx(float(found.floor))
        assert math.inf == found.rows(0.9)
        assert found.rows(0.5) == 0

    def test_a_size_of_little_weight_decides_little(self) -> None:
        spoilt = ERRORS + np.array([0.1, 0, 0, 0])
        light = fit(SIZES, spoilt, np.array([1e-6, 1, 1, 1]))
        heavy = fit(SIZES, spoilt, EVEN)
        truth = 0.05 + 0.8 / 32
        assert truth == pytest.approx(1 - float(light.score(1024)), abs=1e-3)
        assert abs(1 - float(heavy.score(1024)) - truth) > 0.005

    @given(
        floor=st.floats(0, 0.5),
        scale=st.floats(0.5, 5),
        exponent=st.integers(5, 200).map(lambda hundredths: hundredths / 100),
    )
    def test_it_goes_through_every_curve_of_its_form(
        self, floor: float, scale: float, exponent: float
    ) -> None:
        truth = law(floor, scale, exponent)
        errors = np.array([1 - float(truth.score(size)) for size in SIZES])
        found = fit(SIZES, errors, EVEN)
        for size in (*SIZES, 1024):
            assert float(truth.score(size)) == pytest.approx(float(found.score(size)), abs=1e-6)

    @settings(max_examples=25)
    @example([0.512, 0.064, 0.008, 0.001])  # falls faster than any: the floor would be below 0
    @example([0.1, 0.2, 0.3, 0.4])
    @given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
    def test_no_law_within_the_bounds_fits_better(self, errors: list[float]) -> None:
        """Held against scipy's non-negative least squares, exponent by exponent."""
        sizes = np.array(SIZES, np.float64)
        columns = (np.stack([np.ones(4), sizes**-each], axis=1) for each in EXPONENTS)
        best = min(float(nnls(column, np.array(errors))[1]) for column in columns)
        found = fit(SIZES, np.array(errors), EVEN)
        residuals = [1 - float(found.score(n)) - e for n, e in zip(SIZES, errors, strict=True)]
        assert best == pytest.approx(math.hypot(*residuals), abs=1e-7)

    @given(st.lists(st.floats(0, 1), min_size=3, max_size=6))
    def test_more_rows_never_score_less_and_never_above_all(self, errors: list[float]) -> None:
        sizes = [40 * 2**at for at in range(len(errors))]
        found = fit(sizes, np.array(errors), np.ones(len(errors)))
        scores = [float(found.score(n)) for n in (sizes[0], sizes[-1], 2 * sizes[-1], 10**9)]
        assert sorted(scores) == pytest.approx(scores)
        assert max(scores) <= 1 + 1e-12
        assert found.floor >= 0
        assert found.scale >= 0


class TestForms:
    @pytest.mark.parametrize("truth", [EXPONENTIAL, LOGARITHMIC])
    def test_each_form_is_found_with_its_scores_and_rows(self, truth: Laws) -> None:
        errors = np.array([1 - float(truth.score(size)) for size in SIZES])
        found = fit(SIZES, errors, EVEN, truth.form)
        assert float(truth.score(1024)) == pytest.approx(float(found.score(1024)), abs=2e-3)
        assert pytest.approx(float(found.rows(float(found.score(1024))))) == 1024

    @pytest.mark.parametrize("form", Form)
    def test_a_score_is_never_above_1_and_a_law_that_does_not_fall_reaches_none(
        self, form: Form
    ) -> None:
        assert float(fit(SIZES, np.array([0.4, 0.3, 0.2, 0.1]), EVEN, form).score(10**9)) <= 1
        flat = fit(SIZES, np.full(4, 0.3), EVEN, form)
        assert (math.inf, 0) == (float(flat.rows(0.9)), float(flat.rows(0.5)))

    @pytest.mark.parametrize("truth", [EXPONENTIAL, LOGARITHMIC])
    def test_ranges_hold_the_truth_of_curves_that_are_no_power_law(
        self, truth: Laws, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the power law alone 25 and 15 % of them held it at twice and four times."""
        monkeypatch.setattr("unitune.curve.fit.RESAMPLES", 200)
        draw = np.random.default_rng(4)
        told = [c for _ in range(30) if not (c := simulated(truth, draw, cases=400)).doubts]
        assert len(told) >= 15
        for rows in (1024, 2048):
            held = [c.score(rows).low <= truth.score(rows) <= c.score(rows).high for c in told]
            assert np.mean(held) >= 0.75


class TestCurve:
    def test_a_clear_curve_is_carried_on(self) -> None:
        curve = of_scores([(40, 42, 41), (58, 60, 59), (71, 73, 72), (80, 82, 81)])
        assert curve.doubts == ()
        assert pytest.approx(curve.scores.tolist()) == [0.41, 0.59, 0.72, 0.81]
        ahead = curve.score(1024)
        # The power law alone: 0.80 to 0.95. The exponential approach levels off below, and the
        # logarithm goes on as before.
        assert 0.7 < ahead.low < 0.8 < ahead.value < 0.89
        assert 0.95 < ahead.high <= 1
        assert curve.score(2048).value > ahead.value
        gain = curve.gain(1024)
        assert 0 < gain.low < gain.value < gain.high
        needed = curve.rows(0.9)
        assert 512 < needed.low < needed.value <= needed.high

    def test_the_same_scores_give_the_same_ranges(self) -> None:
        scores = [(40, 42, 41), (58, 60, 59), (71, 73, 72), (80, 82, 81)]
        assert of_scores(scores).score(1024) == of_scores(scores).score(1024)

    def test_without_a_gain_nothing_is_said(self) -> None:
        curve = of_scores([(40, 42, 41), (58, 60, 59), (72, 73, 72), (72, 74, 71)])
        assert Doubt.NO_GAIN in curve.doubts
        assert curve.last_gain.low <= 0 <= curve.last_gain.high

    def test_a_flat_curve_has_no_exponent(self) -> None:
        assert {Doubt.NO_GAIN, Doubt.FLAT} <= {*of_scores([(50, 54, 52)] * 4).doubts}

    def test_scores_that_rise_late_are_no_such_curve(self) -> None:
        curve = of_scores([(10, 11, 9), (11, 10, 12), (30, 32, 31), (80, 82, 81)])
        assert curve.doubts == (Doubt.MISFIT,)

    def test_the_largest_size_is_predicted_without_it(self) -> None:
        rising = [(40, 42, 41), (58, 60, 59), (71, 73, 72)]
        first, second = (of_scores([*rising, last]) for last in ((80, 82, 81), (99, 99, 99)))
        assert first.before_last.sizes == SIZES[:-1]
        assert first.before_last.score(512).value == second.before_last.score(512).value

    def test_cases_of_a_cluster_are_one_piece_of_evidence(self) -> None:
        trainings = [
            [mean_of([1.0] * right + [0.0] * (100 - right)) for right in size]
            for size in [(40, 42, 41), (58, 60, 59), (71, 73, 72), (80, 82, 81)]
        ]
        alone = FittedCurve.of(SIZES, trainings).measured(0)
        pairs = FittedCurve.of(SIZES, trainings, [at // 10 for at in range(100)]).measured(0)
        assert pairs.value == alone.value
        assert pairs.high - pairs.low > 1.5 * (alone.high - alone.low)

    def test_scores_of_a_corpus_are_computed_anew_for_each_resample(self) -> None:
        def of(right: int) -> Sums:
            hits, one = (np.arange(100) < right).astype(np.float64), np.ones(100)
            return Sums(np.stack([hits, one, one], axis=1), micro_f1)

        trainings = [[of(right), of(right + 2)] for right in (40, 58, 71, 80)]
        curve = FittedCurve.of(SIZES, trainings)
        assert pytest.approx(curve.scores.tolist()) == [0.41, 0.59, 0.72, 0.81]
        assert curve.measured(0).low < 0.41 < curve.measured(0).high

    def test_many_cases_are_drawn_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = "unitune.curve.fit"
        monkeypatch.setattr(f"{module}.AT_ONCE", 1_000)
        curve = of_scores([(40, 42), (58, 60), (71, 73), (80, 82)])
        assert curve.resampled.shape == (2_000, 4)
        assert 0.33 < curve.measured(0).low < 0.41 < curve.measured(0).high < 0.49


class TestSimulated:
    """The claims of `benchmarks/learning_curves.py`, on few curves."""

    @pytest.fixture(autouse=True)
    def _few_resamples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("unitune.curve.fit.RESAMPLES", 200)

    def test_a_curve_that_is_flat_is_seldom_taken_for_one_that_rises(self) -> None:
        draw = np.random.default_rng(3)
        told = sum(not simulated(law(0.4, 0, 0), draw).doubts for _ in range(40))
        assert told <= 4

    def test_most_ranges_hold_what_twice_the_rows_truly_bring(self) -> None:
        draw, truth = np.random.default_rng(4), law(0.05, 5.0, 0.6)
        told = [curve for _ in range(40) if not (curve := simulated(truth, draw)).doubts]
        held = [
            curve.score(1024).low <= float(truth.score(1024)) <= curve.score(1024).high
            for curve in told
        ]
        assert len(told) >= 20
        assert np.mean(held) >= 0.65
