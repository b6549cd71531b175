"""Measure how often a test that is used repeatedly claims a gain that does not exist.

    python benchmarks/repeated_looks.py [--trials 10000] [--seed 0]      (some minutes on one core)

No contender is truly better in any cell. Each line gives the share of trials with a false claim,
for right or wrong answers: `alone` tests each comparison as if it were the only one; the others are
methods of `unitune compare`.

    candidates  Several tunings against one baseline, one after the other. `as they come`: Holm over
                those so far; `at the end`: over all of them, as in `unitune models promote`. The
                luck of the tunings is correlated.
    reruns      Baseline and candidate sampled again and again. `first`: what is allowed;
                `with reasons`: each repeated for a reason (--new-answers), Holm as they come.
    growing     A test that grows until the candidate is better, or not worse by more than 5 points.
                `planned`: with gate.looks.
    finalists   Six prompts within 3 points of one another, and a candidate as good as the best.
                `chosen`: better than the one that dev chose; `three`: than each of the best three
                on dev; `all`: than each of the six.
    small       The highest false rate over all discordances, exact. `interval`: only the interval;
                `both`: the interval and the test.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri
from scipy.stats import multinomial

from unitune.cost.evaluation import FINALISTS
from unitune.evaluate.statistics.paired import LEVEL, compare_paired
from unitune.evaluate.verdict.looks import ALPHA, holm_divisor, look_level

FloatArray = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Random = np.random.Generator
MARGIN = 0.05
RIGHT = 0.75
"""Share of right answers of every contender."""


def p_values(gained: IntArray, lost: IntArray) -> FloatArray:
    """Return McNemar's mid-p, two-sided."""
    fewer, discordant = np.minimum(gained, lost), gained + lost
    below = np.where(fewer > 0, bdtr(np.maximum(fewer - 1, 0), discordant, 0.5), 0.0)
    return np.minimum(1.0, bdtr(fewer, discordant, 0.5) + below)


def better(gained: IntArray, lost: IntArray, level: FloatArray | float = LEVEL) -> Bools:
    """Return the verdict better: McNemar's statistic, which is Tango's interval, and the mid-p."""
    bound = ndtri((1 + np.asarray(level)) / 2)
    statistic = (gained - lost) / np.sqrt(np.maximum(1, gained + lost))
    return (statistic > bound) & (p_values(gained, lost) <= 1 - np.asarray(level))


def not_worse(gained: IntArray, lost: IntArray, n: int, level: float) -> Bools:
    """Return whether Tango's interval lies above minus the margin (Tango 1998, equation 2)."""
    bound, difference = NormalDist().inv_cdf((1 + level) / 2), -MARGIN
    a, b = 2 * n, -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q21 = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    spread = np.sqrt(n * (2 * q21 + difference * (1 - difference)))
    return (gained - lost - n * difference) / spread > bound


def normal(random: Random, trials: int, contenders: int, n: int, alike: float) -> FloatArray:
    """Draw the luck of tunings on the cases, correlated by `alike`; the baseline is first."""
    hard = random.standard_normal((trials, 1, n), dtype=np.float32)
    shared = random.standard_normal((trials, 1, n), dtype=np.float32)
    own = random.standard_normal((trials, contenders + 1, n), dtype=np.float32)
    own[:, 1:] = np.sqrt(alike) * shared + np.sqrt(1 - alike) * own[:, 1:]
    return np.sqrt(0.6) * hard + np.sqrt(0.4) * own


def counts(right: Bools) -> tuple[IntArray, IntArray]:
    """Return gained and lost of all contenders against the first: (T, K) of (T, 1 + K, N)."""
    old, new = right[:, :1], right[:, 1:]
    return (new & ~old).sum(-1), (old & ~new).sum(-1)


def as_they_come(gained: IntArray, lost: IntArray) -> Bools:  # (T, K)
    """Return better by Holm over the comparisons so far."""
    p = p_values(gained, lost)
    levels = [
        [1 - ALPHA / holm_divisor(x, row[:at]) for at, x in enumerate(row)] for row in p.tolist()
    ]
    return better(gained, lost, np.array(levels))


def at_the_end(gained: IntArray, lost: IntArray) -> Bools:  # (T, K)
    """Return better by Holm over all comparisons."""
    levels = [
        [1 - ALPHA / holm_divisor(x, row[:at] + row[at + 1 :]) for at, x in enumerate(row)]
        for row in p_values(gained, lost).tolist()
    ]
    return better(gained, lost, np.array(levels))


def show(name: str, **rates: npt.ArrayLike) -> None:
    """Print a line of rates in percent."""
    shares = {key: 100 * float(np.mean(np.asarray(rate))) for key, rate in rates.items()}
    cells = "   ".join(f"{key} {share:5.2f} %" for key, share in shares.items())
    print(f"{name:<44} {cells}", flush=True)


def portions(trials: int, work: Callable[[int], tuple[IntArray, IntArray]], size: int) -> IntArray:
    """Return gained and lost, with as many trials at once as fit into memory."""
    most = max(1, 6_000_000 // size)
    parts = [work(min(most, trials - start)) for start in range(0, trials, most)]
    return np.stack([np.concatenate(each) for each in zip(*parts, strict=True)])


def candidates(random: Random, trials: int) -> None:
    """Print the lines of several candidates."""
    line = NormalDist().inv_cdf(RIGHT)
    for k in (5, 20):
        for n in (100, 200, 500, 1000):
            for alike in (0.0, 0.5, 0.8):
                gained, lost = portions(
                    trials,
                    lambda size, k=k, n=n, alike=alike: counts(
                        normal(random, size, k, n, alike) < line
                    ),
                    k * n,
                )
                show(
                    f"{k} candidates, n {n}, correlation {alike}",
                    alone=better(gained, lost).any(1),
                    as_they_come=as_they_come(gained, lost).any(1),
                    at_the_end=at_the_end(gained, lost).any(1),
                )


def reruns(random: Random, trials: int, n: int = 120) -> None:
    """Print the lines of one candidate and one baseline, sampled again and again."""
    for k in (2, 5, 10, 20):

        def draw(size: int, k: int = k) -> tuple[IntArray, IntArray]:
            chance = random.beta(1.5, 0.5, (size, 1, n))  # probability of a right answer, for both
            old, new = (random.random((size, k, n)) < chance for _ in range(2))
            return (new & ~old).sum(-1), (old & ~new).sum(-1)

        gained, lost = portions(trials, draw, 2 * k * n)
        show(
            f"{k} times sampled, n {n}",
            alone=better(gained, lost).any(1),
            first=better(gained, lost)[:, 0],
            with_reasons=as_they_come(gained, lost).any(1),
        )


def growing(random: Random, trials: int) -> None:
    """Print the lines of a test that grows; a fifth of the cases are discordant."""
    plans = (
        ("50, 100, 200, 400", (50, 100, 200, 400)),
        ("every 50 to 500", tuple(range(50, 501, 50))),
        ("every 20 to 1,000", tuple(range(20, 1001, 20))),
    )
    for name, sizes in plans:
        levels = [look_level(sizes[: at + 1], len(sizes)) for at in range(len(sizes))]
        for truth in (0.0, -MARGIN):
            fate = random.random((trials, sizes[-1]), dtype=np.float32)
            gains = (fate < 0.1 + truth / 2).cumsum(1)
            losses = (fate > 0.9 + truth / 2).cumsum(1)
            found: list[Bools] = []
            for each in ([LEVEL] * len(sizes), levels):
                claims = [
                    better(gains[:, n - 1], losses[:, n - 1], level)
                    if truth == 0
                    else not_worse(gains[:, n - 1], losses[:, n - 1], n, level)
                    for n, level in zip(sizes, each, strict=True)
                ]
                found.append(np.any(claims, axis=0))
            what = "better" if truth == 0 else "not worse, 5 points worse"
            show(f"grows {name}: {what}", alone=found[0], planned=found[1])


def finalists(random: Random, trials: int) -> None:
    """Print the lines of a choice among six prompts."""
    for n, dev in ((100, 30), (200, 60), (500, 60), (500, 200), (1000, 60)):
        chosen = np.zeros(3)
        for _ in range(trials):
            skills = RIGHT + random.uniform(-0.03, 0.03, 6)
            lines = [NormalDist().inv_cdf(each) for each in (*skills, skills.max())]
            luck = np.sqrt(0.6) * random.standard_normal(n + dev)
            luck = luck + np.sqrt(0.4) * random.standard_normal((7, n + dev))
            right = luck < np.array(lines)[:, None]
            test, order = right[:, dev:], np.argsort(-right[:6, :dev].mean(1), kind="stable")
            won = better((test[6] & ~test[:6]).sum(1), (test[:6] & ~test[6]).sum(1))
            chosen += [won[order[0]], won[order[:FINALISTS]].all(), won.all()]
        chosen /= trials
        show(f"six prompts, n {n}, dev {dev}", chosen=chosen[0], three=chosen[1], all=chosen[2])


def small() -> None:
    """Print the worst exact rates of small tests."""
    for n in (4, 5, 6, 8, 10, 20, 50):
        pairs = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
        interval, both = list[bool](), list[bool]()
        for b, c in pairs:
            found = compare_paired([0] * b + [1] * (n - b), [1] * b + [0] * c + [1] * (n - b - c))
            interval.append(found.interval.low > 0)
            both.append(found.verdict == "better")
        worst = [0.0, 0.0]
        for discordance in np.linspace(0.02, 1, 50):
            shares = [discordance / 2, discordance / 2, 1 - discordance]
            mass = multinomial.pmf([(b, c, n - b - c) for b, c in pairs], n, shares)
            for at, claims in enumerate((interval, both)):
                worst[at] = max(worst[at], float(mass[np.array(claims)].sum()))
        show(f"small, n {n}", interval=worst[0], both=worst[1])


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    print(f"{options.trials:,} trials a cell, seed {options.seed}")
    small()
    growing(random, options.trials)
    reruns(random, options.trials)
    finalists(random, options.trials)
    candidates(random, options.trials)


if __name__ == "__main__":
    main()
