"""Estimates from labels and a judge against published figures, other software and simulations."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import t as student

from unitune.evaluate.statistics.labels import (
    MIN_LABELS,
    PredictionPowered,
    labels_needed,
    prediction_powered,
    rogan_gladen,
)

Shares = tuple[float, float, float]
EVEN: Shares = (0.3, 0.3, 0.4)  # losses, ties, wins


def simulated(
    random: np.random.Generator, cases: int, right: float = 0.75, shares: Shares = EVEN
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return people's verdicts, and those of a judge that favours the candidate."""
    people = random.choice([-1.0, 0.0, 1.0], cases, p=shares)
    guesses = random.integers(-1, 2, cases)
    judge = np.where(random.random(cases) < right, people, guesses)
    return people, np.where(random.random(cases) < 0.15, np.minimum(1, judge + 1), judge)


def estimated(
    people: npt.NDArray[np.float64],
    judge: npt.NDArray[np.float64],
    labels: int,
    bound: float = 1.0,
) -> PredictionPowered:
    return prediction_powered(
        people[:labels].tolist(), judge[:labels].tolist(), judge[labels:].tolist(), bound=bound
    )


class TestPredictionPowered:
    def test_glides_unit_tests(self) -> None:
        """glide 0.10.0, tests of ppi_core: lambda 0.34; at lambda 0.5 mean 6.75, error 0.41."""
        result = prediction_powered([5, 6, 7], [4.5, 5.5, 6.5], [6, 7, 8], bound=0)
        assert result.lambda_ == pytest.approx(0.34, abs=0.005)
        weight = result.lambda_
        assert result.estimate == pytest.approx(6 - 5.5 * weight + 7 * weight)
        expected = math.sqrt((1 - weight) ** 2 / 3 + weight**2 / 3)
        assert result.standard_error == pytest.approx(expected)
        half = student.ppf(0.975, 2) * expected
        assert (result.low, result.high) == pytest.approx(
            (result.estimate - half, result.estimate + half)
        )

    @pytest.mark.parametrize(
        ("rates", "correlation", "labels", "half", "effective"),
        [((0.77, 0.76), 0.6, 4_000, 0.01087, 5_752), ((0.82, 0.70), 0.3, 2_000, 0.01627, 2_196)],
    )
    def test_glides_landing_fixtures(
        self,
        rates: tuple[float, float],
        correlation: float,
        labels: int,
        half: float,
        effective: int,
    ) -> None:
        """glide d6021e6, docs/landing/tests: 20,000 cases drawn as there, with its seed 0.

        It prints 0.01087 and 0.01626 by the normal quantile; t of 1,999 degrees adds 0.00001.
        """
        truth, proxy = rates
        both = truth * proxy + correlation * math.sqrt(truth * (1 - truth) * proxy * (1 - proxy))
        random = np.random.default_rng(0)
        people = random.binomial(1, truth, 20_000).astype(float)
        judge = random.binomial(
            1, np.where(people == 1, both / truth, (proxy - both) / (1 - truth))
        ).astype(float)
        result = estimated(people, judge, labels, bound=0)
        assert (result.high - result.low) / 2 == pytest.approx(half, abs=5e-6)
        assert result.effective_labels == pytest.approx(effective, abs=0.5)

    def test_ppi_pys_lambda_and_estimate(self) -> None:
        """ppi_py 0.2.3's form has population variances and z; lambda differs by n/(n - 1)."""
        people, judge = [1, 0, 1, 1, 0, 1, 0, 1, 1, 0], [1, 0, 1, 0, 0, 1, 1, 1, 1, 0]
        result = prediction_powered(people, judge, [1] * 60 + [0] * 40, bound=0)
        assert result.lambda_ == pytest.approx(0.5254821 * 10 / 9, abs=1e-6)
        assert result.estimate == pytest.approx(0.6)

    def test_without_other_cases_it_is_the_t_interval_of_the_labels(self) -> None:
        people = [1.0, -1.0, 0.0, 1.0, 1.0]
        result = prediction_powered(people, people, [], bound=0)
        error = np.std(people, ddof=1) / math.sqrt(5)
        assert (result.lambda_, result.effective_labels) == (0.0, pytest.approx(5))
        assert result.low == pytest.approx(0.4 - student.ppf(0.975, 4) * error)

    @pytest.mark.parametrize("judge", [0.0, 1.0, -1.0])
    def test_a_judge_that_always_says_the_same_changes_nothing(self, judge: float) -> None:
        people = [1.0, -1.0, 0.0, 1.0] * 10
        with_judge = prediction_powered(people, [judge] * 40, [judge] * 200)
        assert with_judge == prediction_powered(people, [0.0] * 40, [])

    def test_exchanging_the_contenders_flips_the_interval_exactly(self) -> None:
        people, judge = simulated(np.random.default_rng(3), 120)
        one, other = estimated(people, judge, 40), estimated(-people, -judge, 40)
        assert (one.low, one.high) == (-other.high, -other.low)

    @pytest.mark.parametrize("verdict", [-1.0, 0.0, 1.0])
    def test_equal_labels_leave_room_for_cases_that_few_labels_miss(self, verdict: float) -> None:
        result = prediction_powered([verdict] * 30, [verdict] * 30, [verdict] * 170)
        assert result.low < verdict - 0.1 or verdict == -1
        assert result.high > verdict + 0.1 or verdict == 1

    def test_a_case_that_is_copied_in_its_cluster_adds_no_evidence(self) -> None:
        people, judge = simulated(np.random.default_rng(4), 100)
        once = estimated(people, judge, 40, bound=0)
        copied = prediction_powered(
            people[:40].repeat(3).tolist(),
            judge[:40].repeat(3).tolist(),
            judge[40:].repeat(3).tolist(),
            clusters=(
                np.arange(40).repeat(3).tolist(),
                np.arange(40, 100).repeat(3).tolist(),
            ),
            bound=0,
        )
        # lambda differs a little, because its variances count copies as cases
        assert copied.standard_error == pytest.approx(once.standard_error, rel=0.02)
        assert copied.effective_labels / 3 == pytest.approx(once.effective_labels, rel=0.05)

    @pytest.mark.parametrize(
        ("labelled", "predicted", "message"),
        [
            ([1.0], [1.0], "at least 2 labelled cases, not 1"),
            ([1.0, 0.0], [1.0], "2 labels but 1 values of the judge"),
        ],
    )
    def test_too_little_is_refused(
        self, labelled: list[float], predicted: list[float], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            prediction_powered(labelled, predicted, [1.0])

    def test_labels_of_one_cluster_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 2 clusters"):
            prediction_powered([1, 0], [1, 0], [1, 1], clusters=(["a", "a"], ["b", "c"]))


def coverage(labels: int, cases: int, right: float, shares: Shares, draws: int) -> float:
    """Return how often the interval contains the true mean."""
    random, truth = np.random.default_rng(labels + cases), shares[2] - shares[0]
    hits = 0
    for _ in range(draws):
        people, judge = simulated(random, cases, right, shares)
        result = estimated(people, judge, labels)
        hits += result.low <= truth <= result.high
    return hits / draws


class TestCoverage:
    """Of the nominal 95 % interval with a judge that favours the candidate."""

    def test_it_holds_where_the_judge_alone_fails(self) -> None:
        random, hits, draws = np.random.default_rng(5), [0, 0], 400
        for _ in range(draws):
            people, judge = simulated(random, 200)
            result = estimated(people, judge, 40)
            hits[0] += result.low <= 0.1 <= result.high
            half = 1.96 * judge.std(ddof=1) / math.sqrt(200)
            hits[1] += abs(judge.mean() - 0.1) <= half
        assert hits[0] / draws >= 0.94
        assert hits[1] / draws < 0.88

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("labels", "cases", "right", "shares"),
        [
            (30, 200, 0.75, EVEN),
            (50, 200, 0.75, EVEN),
            (100, 300, 0.75, EVEN),
            (30, 200, 0.2, EVEN),
            (30, 200, 0.75, (0.05, 0.05, 0.9)),
            (30, 200, 0.75, (0.03, 0.95, 0.02)),
            (50, 200, 0.75, (0.1, 0.1, 0.8)),
        ],
    )
    def test_at_least_94_percent_from_30_labels_on(
        self, labels: int, cases: int, right: float, shares: Shares
    ) -> None:
        assert coverage(labels, cases, right, shares, draws=4_000) >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize(("labelled", "size"), [(8, 5), (12, 5), (20, 5), (10, 10)])
def test_with_clusters_it_covers_where_a_bootstrap_by_cluster_does_not(
    labelled: int, size: int
) -> None:
    """Of 40 clusters some have labels; half of the verdicts are those of their cluster."""
    random, hits, draws, clusters = np.random.default_rng(labelled), [0, 0], 1_000, 40
    names = np.arange(clusters).repeat(size).reshape(clusters, size)
    for _ in range(draws):
        own, own_judge = simulated(random, clusters * size)
        shared, shared_judge = simulated(random, clusters)
        together = random.random((clusters, size)) < 0.5
        people = np.where(together, shared[:, None], own.reshape(clusters, size))
        judge = np.where(together, shared_judge[:, None], own_judge.reshape(clusters, size))
        result = prediction_powered(
            people[:labelled].ravel().tolist(),
            judge[:labelled].ravel().tolist(),
            judge[labelled:].ravel().tolist(),
            clusters=(names[:labelled].ravel().tolist(), names[labelled:].ravel().tolist()),
        )
        hits[0] += result.low <= 0.1 <= result.high
        parts = (people - result.lambda_ * judge)[:labelled].mean(1)
        rest = judge[labelled:].mean(1)
        drawn = parts[random.integers(0, labelled, (500, labelled))].mean(1)
        others = rest[random.integers(0, len(rest), (500, len(rest)))].mean(1)
        low, high = np.quantile(drawn + result.lambda_ * others, (0.025, 0.975))
        hits[1] += low <= 0.1 <= high
    assert hits[0] / draws >= 0.94
    assert hits[1] / draws < 0.94


class TestLabelsNeeded:
    def test_that_number_has_the_margin_as_half_width(self) -> None:
        people, judge = simulated(np.random.default_rng(6), 4_000)
        needed = labels_needed(
            people[:2_000].tolist(), judge[:2_000].tolist(), judge[2_000:].tolist(), 0.08
        )
        assert needed is not None
        result = estimated(people, judge, needed, bound=0)
        assert (result.high - result.low) / 2 == pytest.approx(0.08, abs=0.004)

    def test_a_good_judge_saves_labels(self) -> None:
        people, judge = simulated(np.random.default_rng(7), 600, right=0.95)
        pilot = people[:30].tolist()
        with_judge = labels_needed(pilot, judge[:30].tolist(), judge[30:].tolist(), 0.1)
        without = labels_needed(pilot, [0.0] * 30, [0.0] * 570, 0.1)
        assert with_judge is not None
        assert without is not None
        assert MIN_LABELS <= with_judge < without

    def test_none_if_all_cases_are_too_few(self) -> None:
        assert labels_needed([1.0, -1.0] * 15, [0.0] * 30, [0.0] * 10, 0.1) is None

    def test_it_is_never_below_the_least_that_a_verdict_needs(self) -> None:
        assert labels_needed([1.0] * 10, [1.0] * 10, [1.0] * 90, 0.2) == MIN_LABELS

    def test_a_margin_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="margin must be above 0, not 0"):
            labels_needed([1.0, 0.0], [1.0, 0.0], [1.0], 0)


class TestRoganGladen:
    @pytest.mark.parametrize(
        ("rate", "judged", "errors", "labels", "expected"),
        [
            (0.4, 1_000, (0.7, 0.9), 200, (0.1667, 0.0564, 0.2627)),
            (0.75, 500, (0.8, 0.9), 100, (0.7857, 0.7014, 0.8850)),
        ],
    )
    def test_lees_known_answers(
        self,
        rate: float,
        judged: int,
        errors: tuple[float, float],
        labels: int,
        expected: tuple[float, float, float],
    ) -> None:
        """Lee et al. 2025, arXiv 2511.21140: specificity, sensitivity, `labels` of each kind."""
        right, passed = (round(each * labels) for each in errors)
        seen = [0] * right + [1] * (labels - right) + [1] * passed + [0] * (labels - passed)
        passes = round(rate * judged)
        actual = rogan_gladen(
            [0] * labels + [1] * labels, seen, [1] * passes + [0] * (judged - passes)
        )
        assert actual == pytest.approx(expected, abs=5e-5)

    @pytest.mark.parametrize(
        ("labelled", "predicted"), [([1, 1], [1, 0]), ([0, 0], [1, 0]), ([1, 0], [0, 1])]
    )
    def test_nothing_is_corrected_by_a_judge_that_cannot_be_told_from_chance(
        self, labelled: list[float], predicted: list[float]
    ) -> None:
        assert rogan_gladen(labelled, predicted, [1, 0]) is None

    def test_other_values_than_0_and_1_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"must be 1 \(pass\) or 0 \(fail\)"):
            rogan_gladen([1, -1], [1, 0], [1])
