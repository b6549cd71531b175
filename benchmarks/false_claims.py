"""Measure how often comparisons make false claims, and the power that their caution costs.

    python benchmarks/false_claims.py [--trials 10000] [--seed 0]      (two minutes on one core)

`benchmarks/simulated_tests.py` draws well-behaved cells; the cells here made verdicts wrong.

    choice      several prompts, few dev rows, and a candidate as good as the best prompt: how often
                is it called better? `one`: than the prompt that dev chose; `each`: the verdict.
                `worse`: called worse by the verdict.
    graded      a true difference of 0 from small gains and rare losses. `seen`: the interval covers
                only observed differences; `scale`: the verdict.
    clusters    one cluster in seven loses everything; the gains of the others make up for it.
    own score   how often the interval of a contender's own score lies above the truth.

Each false claim may occur in at most 3 % of samples (2.5 % and two standard errors). The decisions
are the shipped `refuted`; for scores 0 and 1, the equivalent McNemar statistic is used
(tests/unit/evaluate/test_statistics_intervals.py). The exit code is 0 when all cells hold.

`power` shows ordinary cells with the earlier and the current decisions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from unitune.evaluate.statistics.intervals import refuted

FloatArray = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Draw = Callable[[np.random.Generator, int, int], FloatArray]

TRIALS = 10_000
MOST_WRONG = 0.03
Z = NormalDist().inv_cdf(0.975)
SHARED = 0.6
"""Correlation of two prompts' latent skill on a case: some cases are hard for all."""

AT_ONCE = 4_000_000

PROMPTS = {
    "equal, 3": (0.8,) * 3,
    "equal, 8": (0.8,) * 8,
    ".74 .78 .80": (0.74, 0.78, 0.80),
    ".70 .75 .80": (0.70, 0.75, 0.80),
    "eight, .70 to .80": tuple(np.linspace(0.70, 0.80, 8)),
    "five at .76, one .80": (*(0.76,) * 5, 0.80),
    ".50 .55 .57 .60 .60": (0.50, 0.55, 0.57, 0.60, 0.60),
}
SIZES = ((200, 60), (500, 30), (500, 60), (500, 200), (1000, 60))
"""Numbers of test cases and dev rows."""


def rare_loss(gain: float, often: float, rare: float) -> Draw:
    """Return a draw of gains in many cases and a total loss in a few."""

    def draw(random: np.random.Generator, trials: int, n: int) -> FloatArray:
        fate = random.random((trials, n))
        return np.where(fate < often, gain, np.where(fate > 1 - rare, -1.0, 0.0))

    return draw


def two_betas(random: np.random.Generator, trials: int, n: int) -> FloatArray:
    """Draw unrelated scores of two contenders."""
    return random.beta(2, 2, (trials, n)) - random.beta(2, 2, (trials, n))


def token_f1(random: np.random.Generator, trials: int, n: int) -> FloatArray:
    """Draw scores like a token F1: mostly near 0 or 1, half of the answers equal."""
    apart = random.beta(0.6, 0.4, (trials, n)) - random.beta(0.6, 0.4, (trials, n))
    return np.where(random.random((trials, n)) < 0.5, 0.0, apart)


def repeats(random: np.random.Generator, trials: int, n: int) -> FloatArray:
    """Draw right or wrong for three answers to each case."""
    easy = random.beta(0.5, 0.5, (trials, n))
    return (random.binomial(3, easy) - random.binomial(3, easy)) / 3


def gains_to_40(random: np.random.Generator, trials: int, n: int) -> FloatArray:
    """Draw gains up to .4 in half of the cases, and a total loss in a tenth."""
    fate = random.random((trials, n))
    return np.where(fate < 0.5, 0.4 * random.random((trials, n)), np.where(fate > 0.9, -1.0, 0.0))


GRADED: dict[str, Draw] = {
    "two beta(2, 2)": two_betas,
    "half ties, like token F1": token_f1,
    "three repeats": repeats,
    "up to .4 in half, lose all in 10 %": gains_to_40,
    ".0625 in 80 %, lose all in 5 %": rare_loss(0.0625, 0.8, 0.05),
    ".04 in 50 %, lose all in 2 %": rare_loss(0.04, 0.5, 0.02),
    ".02 in 50 %, lose all in 1 %": rare_loss(0.02, 0.5, 0.01),
    ".01 in 40 %, lose all in .4 %": rare_loss(0.01, 0.4, 0.004),
}


@dataclass
class Table:
    """Printer of rates that counts those that are too high."""

    random: np.random.Generator
    trials: int
    failed: int = 0

    def rate(self, decide: Callable[[int], Bools | tuple[Bools, ...]], n: int) -> list[float]:
        """Return the rates of decisions, with as many trials at once as fit into memory."""
        sums: FloatArray | None = None
        for size in _portions(self.trials, n):
            made = decide(size)
            found = np.array([m.sum() for m in (made if isinstance(made, tuple) else (made,))])
            sums = found if sums is None else sums + found
        assert sums is not None
        return (sums / self.trials).tolist()

    def line(self, name: str, size: str, rates: list[float], *, claim: float) -> None:
        """Print a line, and mark its last rate, a false claim's, if it is too high."""
        allowed = MOST_WRONG + 2 * (MOST_WRONG * (1 - MOST_WRONG) / self.trials) ** 0.5
        wrong = claim > allowed
        self.failed += wrong
        shown = "  ".join(f"{rate:6.4f}" for rate in rates)
        print(f"{name:<36}{size:>14}  {shown}{'  FAILS' if wrong else ''}", flush=True)


def main() -> int:
    """Print all tables, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    return 1 if run(options.trials, options.seed) else 0


def run(trials: int, seed: int) -> int:
    """Print all tables, and return the number of failed cells."""
    table = Table(np.random.default_rng(seed), trials)
    print(f"{trials:,} trials a cell, seed {seed}")
    for part in (choice, graded, clusters, own, power):
        part(table)
    print(f"\n{table.failed or 'no'} {'cell fails' if table.failed == 1 else 'cells fail'}")
    return table.failed


def choice(table: Table) -> None:
    """Compare a candidate as good as the best prompt with the chosen one and with each."""
    print(f"\n{'choice':<36}{'n, dev':>14}  {'one':>6}  {'each':>6}  {'worse':>6}")
    for name, prompts in PROMPTS.items():
        for n, dev in SIZES:
            skills = (*prompts, max(prompts))
            rates = table.rate(partial(verdicts, table.random, skills, n, dev), n * len(skills))
            table.line(name, f"{n}, {dev}", rates, claim=max(rates[1:]))


def verdicts(
    random: np.random.Generator, skills: tuple[float, ...], n: int, dev: int, trials: int
) -> tuple[Bools, Bools, Bools]:
    """Return better than the chosen, better than each, and worse; the candidate is last."""
    right = answers(random, trials, skills, n)
    chosen = answers(random, trials, skills[:-1], dev).mean(-1).argmax(-1)
    z = mcnemar(right[:, -1:], right[:, :-1])  # (T, P)
    against_chosen = np.take_along_axis(z, chosen[:, None], 1)[:, 0]
    return against_chosen > Z, (z > Z).all(-1), (against_chosen < -Z) & (z.min(-1) < -Z)


def answers(
    random: np.random.Generator, trials: int, skills: tuple[float, ...], n: int
) -> npt.NDArray[np.bool_]:  # (T, P, N)
    """Draw right answers of prompts with these skills to the same cases."""
    line = np.array([NormalDist().inv_cdf(skill) for skill in skills], dtype=np.float32)
    hard = random.standard_normal((trials, 1, n), dtype=np.float32)
    own_luck = random.standard_normal((trials, len(skills), n), dtype=np.float32)
    return np.sqrt(SHARED) * hard + np.sqrt(1 - SHARED) * own_luck < line[:, None]


def mcnemar(candidate: Bools, baseline: Bools) -> FloatArray:
    """Return (gained - lost) / root(gained + lost)."""
    gained, lost = (candidate & ~baseline).sum(-1), (baseline & ~candidate).sum(-1)
    return (gained - lost) / np.sqrt(np.maximum(1, gained + lost))


def graded(table: Table) -> None:
    """Test differences whose true mean is 0."""
    print(f"\n{'graded':<36}{'n':>14}  {'seen':>6}  {'scale':>6}")
    for name, draw in GRADED.items():
        for n in (20, 50, 100, 200, 500):
            rates = table.rate(partial(both, draw, table.random, n, 0.0), n)
            table.line(name, str(n), rates, claim=rates[1])


def both(
    draw: Draw, random: np.random.Generator, n: int, effect: float, trials: int
) -> tuple[Bools, Bools]:
    """Return better by the observed differences, and by their scale."""
    values = np.clip(draw(random, trials, n) + effect, -1, 1)
    return above(values, seen(values)), above(values, 1.0)


def above(sums: FloatArray, farthest: FloatArray | float, sizes: FloatArray | None = None) -> Bools:
    """Return whether the interval of each trial lies above 0."""
    sizes = np.ones_like(sums) if sizes is None else sizes
    return refuted(-sums, sizes, farthest, np.zeros(len(sums)), Z)


def seen(values: FloatArray) -> FloatArray:
    """Return the largest difference of each trial, or 1 without one."""
    farthest = np.abs(values).max(-1)
    return np.where(farthest > 0, farthest, 1.0)


def clusters(table: Table) -> None:
    """Test clusters of five cases on average, whose true mean is 0."""
    print(f"\n{'clusters':<36}{'clusters':>14}  {'scale':>6}")
    for name, lose in (("all of a cluster is lost", 1.0), ("all that was right is lost", 0.6)):
        for uneven in (False, True):
            for count in (6, 8, 10, 15, 20, 50, 100):
                decide = partial(collapsed, table.random, count, lose, uneven)
                rates = table.rate(decide, count)
                kind = "uneven" if uneven else "even"
                table.line(name, f"{count} {kind}", rates, claim=rates[0])


def collapsed(
    random: np.random.Generator,
    count: int,
    lose: float,
    uneven: bool,  # noqa: FBT001 - one caller
    trials: int,
) -> Bools:
    """Return better, with clusters that collapse."""
    sizes = cluster_sizes(random, trials, count, uneven=uneven)
    return above(collapsing(random, sizes, lose), 1.0, sizes)


def cluster_sizes(
    random: np.random.Generator, trials: int, count: int, *, uneven: bool
) -> FloatArray:
    """Draw sizes of clusters, five on average; uneven ones have exponential shares."""
    if not uneven:
        return np.full((trials, count), 5.0)
    shares = random.exponential(1, (trials, count))
    shares /= shares.sum(1, keepdims=True)
    return 1.0 + random.multinomial(4 * count, shares)


def collapsing(random: np.random.Generator, sizes: FloatArray, lose: float) -> FloatArray:
    """Draw sums of differences: one cluster in seven loses, and the others gain a sixth of that."""
    lost = np.where(lose < 1, random.binomial(sizes.astype(int), lose), sizes)
    gained = random.normal(sizes * lose / 6, 0.1 * np.sqrt(sizes))
    return np.where(random.random(sizes.shape) < 1 / 7, -lost, gained)


def own(table: Table) -> None:
    """Test scores of .9 with a few of 0: is the whole interval above their true mean?"""
    print(f"\n{'own score':<36}{'n':>14}  {'above':>6}")
    for rare in (0.02, 0.05, 0.1):
        for n in (20, 50, 200):
            rates = table.rate(partial(own_above, table.random, rare, n), n)
            table.line(f".9, and 0 in {rare:.0%}", str(n), rates, claim=rates[0])


def own_above(random: np.random.Generator, rare: float, n: int, trials: int) -> Bools:
    """Return whether the interval lies above the true mean."""
    scores = np.where(random.random((trials, n)) < rare, 0.0, 0.9)
    truth = np.full(trials, -0.9 * (1 - rare))
    return refuted(-scores, np.ones_like(scores), 0.0, truth, Z)


def power(table: Table) -> None:
    """Print how often true differences of 5 and 10 points are found in ordinary cells."""
    print(f"\n{'power':<36}{'n, points':>14}  {'before':>6}  {'now':>6}")
    cells: dict[str, Callable[[int, float], Callable[[int], tuple[Bools, ...]]]] = {
        f"right or wrong, {name}": partial(_found, table.random, skills)
        for name, skills in (("one, .75", (0.75,)), ("three, .65 .70 .75", (0.65, 0.7, 0.75)))
    }
    cells |= {
        name: partial(partial, both, draw, table.random)
        for name, draw in (("half ties, like token F1", token_f1), ("three repeats", repeats))
    }
    for name, cell in cells.items():
        for n in (50, 200, 500):
            for effect in (0.05, 0.1):
                rates = table.rate(cell(n, effect), 4 * n)
                table.line(name, f"{n}, +{100 * effect:g}", rates[:2], claim=0)


def _found(
    random: np.random.Generator, skills: tuple[float, ...], n: int, effect: float
) -> Callable[[int], tuple[Bools, ...]]:
    return partial(verdicts, random, (*skills, max(skills) + effect), n, 60)


def _portions(trials: int, numbers: int) -> Iterator[int]:
    most = max(1, AT_ONCE // numbers)
    for start in range(0, trials, most):
        yield min(most, trials - start)


if __name__ == "__main__":
    sys.exit(main())
