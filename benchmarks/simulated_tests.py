"""Test the statistics of comparisons on simulated data: error rates, coverage and power.

    python benchmarks/simulated_tests.py [--trials 50000] [--cell WORDS] [--seed 0]

Each cell draws that many pairs of contenders on n cases, once equally good and once five points
apart, and checks whether the 95 % interval of `compare_paired` leaves out zero and holds the truth.

    error       finds a difference that does not exist      at most 0.055
    coverage    holds the five points                       at least 0.94; 0.93 at 50 cases
    power       finds the five points
    unpaired    error and power of the z test for independent samples, the test of most harnesses;
                its power means nothing if its error is above 5 %

The decisions are the shipped `refuted`, evaluated for all trials at once at the one relevant mean,
where `compare_paired` bisects to the ends of the interval. To verify this, `CHECKED` trials of each
cell go through `compare_paired` (`compare_corpus` for the ratio of sums) and must agree. The exit
code is 0 when all cells hold, here and in `benchmarks/false_claims.py`, which runs at the end.

Methods that were tried for a cell and failed, in 10,000 to 20,000 trials without a difference
(bootstraps: 1,500 to 3,000 trials of 1,000 resamples):

    graded, n = 50         BCa paired bootstrap                            0.065
    ratio of sums, n = 50  percentile | BCa paired bootstrap               0.073 | 0.088
    graded, skewed         t interval, at n = 50 | 100 | 200               0.074 | 0.061 | 0.057
    clusters, uneven       cluster-robust t with G - 1 degrees of freedom
                           (Miller 2024), 20 clusters, n = 200 | 1000      0.073 | 0.087
                           CR2 with Bell and McCaffrey's degrees           0.055 | 0.064
    three of 20 clusters collapse, all others gain a little, one-sided
                           the same t, sizes even | uneven                 0.08 | 0.21
                           the score statistic on the robust variance      0.08 | 0.16
                           sign flips, 6 | 8 clusters of any size          0.40 | 0.30
                           likelihood with an unseen cluster of mean
                           size, 30 | 50 uneven clusters                   0.07 | 0.05
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import false_claims
import numpy as np
import numpy.typing as npt

from unitune.evaluate.statistics.intervals import refuted
from unitune.evaluate.statistics.paired import compare_corpus, compare_paired, jackknife

FloatArray = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

TRIALS = 50_000
"""Number that gives a rate of 0.05 a standard error of 0.001."""

CASES = (50, 100, 200, 500, 1000)
CLUSTERS = 20
EFFECT = 0.05
MOST_ERROR = 0.055
LEAST_COVERAGE = {50: 0.93}
CHECKED = 10
Z = NormalDist().inv_cdf(0.975)
NUMBERS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Drawn:
    """Trials of contenders on the same cases; T trials, N cases, K repeats, G clusters.

    Args:
        baseline: Scores (T, N) or (T, N, K).
        candidate: Scores of the same shape.
        clusters: Cluster of each case (T, N); None without clusters.
        statistics: Statistics behind jackknife scores of a corpus, baseline and candidate, each (T,
            N, S).
    """

    baseline: FloatArray
    candidate: FloatArray
    clusters: npt.NDArray[np.intp] | None = None
    statistics: tuple[FloatArray, FloatArray] | None = None


World = Callable[[np.random.Generator, int, int, float], Drawn]
"""Draws trials of n cases with a true difference: (random, trials, n, effect)."""


def binary(random: np.random.Generator, trials: int, n: int, effect: float) -> Drawn:
    """Draw right or wrong; contenders disagree on 16 % of the cases, as in the stub workload."""
    fate = random.random((trials, n))
    gained, lost = fate < (0.16 + effect) / 2, fate > 1 - (0.16 - effect) / 2
    both = random.random((trials, n)) < 0.75
    return Drawn(np.where(lost, 1.0, both & ~gained), np.where(gained, 1.0, both & ~lost))


def graded(random: np.random.Generator, trials: int, n: int, effect: float) -> Drawn:
    """Draw scores like a token F1: mostly near 0 or 1, half of the answers equal."""
    old, fresh = random.beta(0.6, 0.4, (trials, n)), random.beta(0.6, 0.4, (trials, n))
    new = np.where(random.random((trials, n)) < 0.5, old, fresh)
    perfect = random.random((trials, n)) < effect / 0.4
    return Drawn(old, np.where(perfect, 1.0, new))


def repeats(random: np.random.Generator, trials: int, n: int, effect: float) -> Drawn:
    """Draw right or wrong for five answers to each case; most cases are easy or hard."""
    easy = random.beta(0.5, 0.5, (trials, n))
    tosses = random.random((2, trials, n, 5))
    better = easy + 2 * effect * (1 - easy)
    return Drawn(
        (tosses[0] < easy[..., None]).astype(float), (tosses[1] < better[..., None]).astype(float)
    )


def skewed(random: np.random.Generator, trials: int, n: int, effect: float) -> Drawn:
    """Draw small gains on half of the cases and a collapse of every tenth answer."""
    fate = random.random((trials, n))
    gained, lost = fate < 0.5, fate > 0.9
    old = random.random((trials, n)) * 0.4
    gain = 0.4 + 4 * effect
    new = old + np.where(gained, random.random((trials, n)) * gain, 0)
    return Drawn(np.where(lost, 1.0, old), np.where(lost, 0.0, new))


def ratio(random: np.random.Generator, trials: int, n: int, effect: float) -> Drawn:
    """Draw a ratio of sums, like the precisions of BLEU: matches of texts of uneven length."""
    length = 3 + random.gamma(1.5, 10, (trials, n)).astype(int)
    quality = 0.9 * random.beta(3, 2, (trials, n))
    old, new = (
        np.stack([random.binomial(length, share), length], axis=-1).astype(float)
        for share in (quality, quality + effect)
    )
    alone = np.ones(n)
    return Drawn(
        jackknife(old, alone, _matched),
        jackknife(new, alone, _matched),
        statistics=(old, new),
    )


def _matched(totals: FloatArray) -> FloatArray:
    return totals[..., 0] / totals[..., 1]


def clustered_binary(uneven: bool) -> World:  # noqa: FBT001 - two callers, both named
    """Return a draw of right or wrong in which each cluster has a favourite."""

    def draw(random: np.random.Generator, trials: int, n: int, effect: float) -> Drawn:
        clusters = _clusters(random, trials, n, uneven=uneven)
        towards = 4 * (0.5 + effect / 0.4)
        taste = random.beta(towards, 4 - towards, (trials, CLUSTERS))
        differ = random.random((trials, n)) < 0.2
        for_new = random.random((trials, n)) < np.take_along_axis(taste, clusters, 1)
        both = random.random((trials, n)) < 0.7
        return Drawn(
            np.where(differ, ~for_new, both).astype(float),
            np.where(differ, for_new, both).astype(float),
            clusters,
        )

    return draw


def clustered_graded(uneven: bool) -> World:  # noqa: FBT001 - two callers, both named
    """Return a draw in which differences of a cluster share a seventh of their variance."""

    def draw(random: np.random.Generator, trials: int, n: int, effect: float) -> Drawn:
        clusters = _clusters(random, trials, n, uneven=uneven)
        shared = random.uniform(-0.1, 0.1, (trials, CLUSTERS)) + effect
        old = random.uniform(0.35, 0.6, (trials, n))
        own = random.uniform(-0.25, 0.25, (trials, n))
        return Drawn(old, old + np.take_along_axis(shared, clusters, 1) + own, clusters)

    return draw


def _clusters(
    random: np.random.Generator, trials: int, n: int, *, uneven: bool
) -> npt.NDArray[np.intp]:
    """Draw each case's cluster (T, N), none of them empty; uneven ones have exponential shares."""
    even = np.arange(n) * CLUSTERS // n
    if not uneven:
        return np.broadcast_to(even, (trials, n))
    ends = np.cumsum(random.exponential(1, (trials, CLUSTERS)), 1)
    ends /= ends[:, -1:]
    places = random.random((trials, n - CLUSTERS))
    drawn = (places[..., None] > ends[:, None, :]).sum(-1)
    return np.concatenate([np.broadcast_to(np.arange(CLUSTERS), (trials, CLUSTERS)), drawn], 1)


WORLDS: dict[str, World] = {
    "binary": binary,
    "graded": graded,
    "graded, 5 repeats": repeats,
    "graded, skewed": skewed,
    "ratio of sums": ratio,
    "binary, 20 even clusters": clustered_binary(uneven=False),
    "binary, 20 uneven clusters": clustered_binary(uneven=True),
    "graded, 20 even clusters": clustered_graded(uneven=False),
    "graded, 20 uneven clusters": clustered_graded(uneven=True),
}


@dataclass(frozen=True)
class Cell:
    """Rates of one cell."""

    error: float
    coverage: float
    power: float
    unpaired_error: float
    unpaired_power: float
    disagreements: int
    """Number of trials in which the whole comparison disagreed."""

    def holds(self, n: int) -> bool:
        """Return whether the cell is within the limits."""
        covers = self.coverage >= LEAST_COVERAGE.get(n, 0.94)
        return self.error <= MOST_ERROR and covers and not self.disagreements

    def line(self, n: int) -> str:
        """Return the rates as a table line, with failures."""
        rates = (
            f"{self.error:6.4f}  {self.coverage:8.4f}  {self.power:6.4f}  "
            f"{self.unpaired_error:6.4f}  {self.unpaired_power:6.4f}"
        )
        failed = "" if self.holds(n) else "  FAILS"
        return f"{rates}{failed}{f' {self.disagreements} disagree' if self.disagreements else ''}"


def main() -> int:
    """Run the cells, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--cell", default="", help="only cells whose name has these words")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.trials:,} trials a cell, seed {options.seed}\n")
    print(f"{'scores':<28}{'n':>5}  {'error':>6}  {'coverage':>8}  {'power':>6}   unpaired")
    started, failed = time.monotonic(), 0
    for name, world in WORLDS.items():
        if options.cell not in name:
            continue
        for n in CASES:
            cell = _run(world, n, options.trials, np.random.default_rng([options.seed, n]))
            failed += not cell.holds(n)
            print(f"{name:<28}{n:>5}  {cell.line(n)}", flush=True)
    failed += false_claims.run(false_claims.TRIALS, options.seed)
    seconds = time.monotonic() - started
    print(f"\n{failed or 'no'} {'cell fails' if failed == 1 else 'cells fail'}; {seconds:.0f} s")
    return 1 if failed else 0


def _run(world: World, n: int, trials: int, random: np.random.Generator) -> Cell:
    error = coverage = power = unpaired_error = unpaired_power = disagreements = 0
    for at, size in enumerate(_portions(trials, n)):
        alike, apart = world(random, size, n, 0.0), world(random, size, n, EFFECT)
        false, found = ~_holds(alike, 0.0), ~_holds(apart, 0.0)
        right = _holds(apart, EFFECT)
        error += int(false.sum())
        power += int(found.sum())
        coverage += int(right.sum())
        unpaired_error += int(_unpaired_z(alike).sum())
        unpaired_power += int(_unpaired_z(apart).sum())
        if at == 0:
            disagreements += _disagreements(alike, 0.0, ~false)
            disagreements += _disagreements(apart, EFFECT, right)
    return Cell(
        error=error / trials,
        coverage=coverage / trials,
        power=power / trials,
        unpaired_error=unpaired_error / trials,
        unpaired_power=unpaired_power / trials,
        disagreements=disagreements,
    )


def _portions(trials: int, n: int) -> Iterator[int]:
    """Yield the numbers of trials to draw at once, so that they fit into memory."""
    most = NUMBERS_AT_ONCE // n
    for start in range(0, trials, most):
        yield min(most, trials - start)


def _holds(drawn: Drawn, mean: float) -> Bools:  # (T,)
    """Return whether each trial's 95 % interval holds this mean, by the shipped decisions."""
    values = _case_means(drawn.candidate) - _case_means(drawn.baseline)  # (T, N)
    outside = _outside(values, np.ones_like(values), mean)
    if drawn.clusters is not None:
        sizes = _by_cluster(np.ones_like(values), drawn.clusters)
        outside &= _outside(_by_cluster(values, drawn.clusters), sizes, mean)
    return ~outside


def _outside(sums: FloatArray, sizes: FloatArray, mean: float) -> Bools:  # (T,)
    farthest = np.maximum(1.0, np.abs(sums / sizes).max(-1))
    observed, means = sums.sum(-1) / sizes.sum(-1), np.full(len(sums), mean)
    too_high = (observed < mean) & refuted(sums, sizes, farthest, means, Z)
    too_low = (observed > mean) & refuted(-sums, sizes, farthest, -means, Z)
    return too_high | too_low


def _case_means(scores: FloatArray) -> FloatArray:  # (T, N)
    return scores if scores.ndim == 2 else scores.mean(-1)


def _by_cluster(values: FloatArray, clusters: npt.NDArray[np.intp]) -> FloatArray:  # (T, G)
    trials = len(values)
    places = clusters + CLUSTERS * np.arange(trials)[:, None]
    sums = np.bincount(places.ravel(), values.ravel(), trials * CLUSTERS).astype(np.float64)
    return sums.reshape(trials, CLUSTERS)


def _unpaired_z(drawn: Drawn) -> Bools:  # (T,)
    """Return whether the z test of two independent samples finds a difference."""
    old, new = _case_means(drawn.baseline), _case_means(drawn.candidate)
    error = np.sqrt((old.var(-1, ddof=1) + new.var(-1, ddof=1)) / old.shape[1])
    return np.abs(new.mean(-1) - old.mean(-1)) > Z * error


def _disagreements(drawn: Drawn, mean: float, held: Bools) -> int:
    """Count trials in which the interval of the whole comparison disagrees."""
    wrong = 0
    for trial in range(min(CHECKED, len(held))):
        clusters = None if drawn.clusters is None else drawn.clusters[trial].tolist()
        if drawn.statistics is None:
            found = compare_paired(drawn.baseline[trial], drawn.candidate[trial], clusters=clusters)
        else:
            old, new = drawn.statistics
            found = compare_corpus(old[trial], new[trial], _matched)
        wrong += bool(held[trial]) != (found.interval.low <= mean <= found.interval.high)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
