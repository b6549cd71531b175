"""Count earlier uses of a test (looks), and correct a claim for them.

Looks share a test if the cases are the same, and a candidate if model, prompt and settings are.
Holm's procedure counts candidates and new draws of sampled answers. A plan of `gate.looks` divides
the error rate among the comparisons of a growing test.
Confidence levels stay valid when one test is used more than once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from unitune.errors import UnituneError, UserError
from unitune.evaluate.documents.records import UseOfTest
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference.engine import CompareOptions
from unitune.evaluate.scoring.grading import Answered
from unitune.evaluate.statistics.intervals import HALVINGS, FloatArray
from unitune.evaluate.statistics.paired import LEVEL
from unitune.evaluate.task import Task
from unitune.ledger import Ledger
from unitune.ledger.looks import Look
from unitune.workspace.home import home

ALPHA = round(1 - LEVEL, 12)
# Bounds are cut off here: the error beyond is 3e-12, and the level stays below 1
HIGHEST_BOUND = 7.0
GRID = 1_001  # Points of Simpson's rule. With half of them, known bounds change by less than 1e-6.


def holm_divisor(p_value: float, others: Iterable[float], alpha: float = ALPHA) -> int:
    """Return the number by which Holm's procedure divides alpha for one of several candidates.

    It is the number of candidates without those that have no greater (two-sided) p-value and are
    rejected. An interval at 1 - alpha / divisor excludes zero if Holm's test rejects. It agrees
    with that test but does not cover all true differences simultaneously.

    Source:
        Holm 1979, Scand J Stat 6:65. Intervals: Guilbaud 2008, Biometrical J 50:678.
    """
    rivals = sorted(others)
    divisor = len(rivals) + 1
    for rival in rivals:
        if rival > p_value or rival * divisor > alpha:
            break
        divisor -= 1
    return divisor


def spent(fraction: float, alpha: float = ALPHA) -> float:
    """Return the two-sided error that may be spent up to a fraction of the planned looks.

    Source:
        Lan and DeMets 1983, Biometrika 70:659: the function similar to O'Brien and Fleming's
        bounds, 2 - 2 Phi(z / sqrt(fraction)), for each side with half of alpha.
    """
    from scipy.special import ndtr, ndtri  # noqa: PLC0415 - slow to import

    return float(4 * ndtr(ndtri(alpha / 4) / math.sqrt(min(1.0, fraction))))


def look_level(sizes: Sequence[int], planned: int, alpha: float = ALPHA) -> float:
    """Return the level of the interval at the latest look at a growing test.

    Looks may be at any sizes; each spends what the plan of equally spaced looks allows of alpha,
    the two-sided probability of a false claim over all planned looks. Bounds come from the joint
    normal distribution of the sums, whose increments are independent.

    Raises:
        ValueError: There were more looks than planned.

    Source:
        Lan and DeMets 1983, Biometrika 70:659; the recursion: Armitage, McPherson and Rowe 1969, J
        R Stat Soc A 132:235; Jennison and Turnbull 2000, chapters 7 and 19.
    """
    if len(sizes) > planned:
        raise ValueError(f"{len(sizes)} looks exceed the {planned} planned looks")
    used, bound, information = 0.0, 0.0, 0.0
    points, density = np.zeros(1), np.ones(1)  # (P,) of the previous look's sum, inside bounds
    for look, size in enumerate(sizes, start=1):
        grown = max(1.0, size - information)  # a test that did not grow counts as grown by one case
        information += grown
        scale, root = math.sqrt(grown), math.sqrt(information)
        budget = spent(look / planned, alpha) - used
        used += budget
        bound = _bound(points / scale, density, root / scale, budget)
        inside = np.linspace(-bound * root, bound * root, GRID)  # (GRID,)
        weights = np.full(GRID, 2.0)  # of Simpson's rule
        weights[1::2], weights[[0, -1]] = 4, 1
        steps = (inside[:, None] - points) / scale  # (GRID, P)
        arriving = (np.exp(-(steps**2) / 2) * density).sum(1) / (scale * math.sqrt(2 * math.pi))
        points, density = inside, arriving * weights * (inside[1] - inside[0]) / 3
    return 1 - 2 * NormalDist().cdf(-bound)


def _bound(points: FloatArray, density: FloatArray, root: float, budget: float) -> float:
    """Return the z that the next sum exceeds with the probability of the budget."""
    from scipy.special import ndtr  # noqa: PLC0415 - slow to import

    low, high = 0.0, HIGHEST_BOUND
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        beyond = ndtr(points - middle * root) + ndtr(-points - middle * root)
        low, high = (middle, high) if (density * beyond).sum() > budget else (low, middle)
    return high


def adjusted_p(looks: Sequence[Look], comparison: str) -> float | None:
    """Return a comparison's p-value, adjusted for all looks (oldest first) at its test so far.

    Without such a look, or for a verification, the result is None.
    """
    at = next((at for at, look in enumerate(looks) if look.comparison == comparison), None)
    if at is None or looks[at].kind == "verification":
        return None
    this, (drawn, _) = looks[at], _draws(looks)
    draw = this.candidate, _draws(looks[: at + 1])[1][this.candidate]
    others = [p for other, p in drawn.items() if other != draw]
    return min(1.0, this.p_value * holm_divisor(this.p_value, others))


def _draws(looks: Iterable[Look]) -> tuple[dict[tuple[str, int], float], dict[str, int]]:
    """Return the newest p-value per candidate and draw, and the number of draws per candidate."""
    drawn, numbers = dict[tuple[str, int], float](), dict[str, int]()
    for look in looks:
        if look.kind == "verification":
            continue
        if look.reason is not None or look.candidate not in numbers:
            numbers[look.candidate] = numbers.get(look.candidate, 0) + 1
        drawn[look.candidate, numbers[look.candidate]] = look.p_value
    return drawn, numbers


@dataclass(frozen=True, slots=True)
class TestHistory:
    """Earlier looks at a test, oldest first; None if no ledger could be read."""

    __test__ = False  # pytest would collect it

    task: Task
    job: str
    looks: tuple[Look, ...] | None = None
    reason: str | None = None
    verifies: bool = False

    @classmethod
    def of(cls, task: Task, job: str, options: CompareOptions) -> TestHistory:
        """Read it from the ledger. A replay continues without a readable ledger."""
        try:
            looks = tuple(Ledger(home()).looks(task.digest))
        except UnituneError:
            if not options.replay:
                raise
            looks = None
        return cls(task, job, looks, options.new_answers, options.verifies)

    def refuse_new_answers(self, name: str, candidate: str, contender: str) -> None:
        """Raise UserError if a candidate or its baselines are sampled again without a reason."""
        if self.reason is not None or self.verifies:
            return
        for look in self.looks or ():
            known = (look.candidate, *look.baselines)
            if look.sampled and look.candidate == candidate and contender in known:
                raise UserError(
                    f"{name} already answered these {look.cases:,} test cases in comparison "
                    f"{look.comparison}. Sampling again until the result is better would make the "
                    "verdict invalid. Reuse the recorded answers (the same --output, or "
                    "--use-cache), raise evaluate.repeats, or give --new-answers REASON, which is "
                    "recorded and counted."
                )

    def use(self, candidate: str, cases: int, p_value: float, planned: int) -> UseOfTest:
        """Return this comparison's use of the test, and the confidence level that follows."""
        drawn, numbers = _draws(self.looks or ())
        if self.reason is not None or self.verifies or candidate not in numbers:
            numbers[candidate] = numbers.get(candidate, 0) + 1
        this = candidate, numbers[candidate]
        drawn.setdefault(this, p_value)
        others = [p for draw, p in drawn.items() if draw != this]
        divisor = 1 if self.verifies else holm_divisor(p_value, others)
        sizes = (*self._earlier_sizes(candidate), cases)
        level = 1 - ALPHA / divisor if divisor > 1 else LEVEL
        if 1 < planned >= len(sizes):
            level = look_level(sizes, planned, ALPHA / divisor)
        return UseOfTest(
            known=self.looks is not None,
            comparison=list(drawn).index(this) + 1,
            comparisons=len(drawn),
            candidate=list(numbers).index(candidate) + 1,
            candidates=len(numbers),
            divisor=divisor,
            sizes=sizes,
            planned=planned,
            level=level,
            p_adjusted=min(1.0, p_value * ALPHA / (1 - level)) if level != LEVEL else p_value,
            new_answers=self.reason,
        )

    def _earlier_sizes(self, candidate: str) -> list[int]:
        if self.looks is None:
            return []
        looks = [look for look in Ledger(home()).looks_of(candidate) if look.job == self.job]
        sizes = {look.test: look.cases for look in looks if look.kind == "comparison"}
        return [cases for test, cases in sizes.items() if test != self.task.digest]

    def record(self, comparison: Comparison, answered: Sequence[Answered]) -> None:
        """Record a finished comparison as a look, if the ledger could be read."""
        if self.looks is None:
            return
        task, known = self.task, {each.name: each for each in answered}
        ids = {each.name: task.identity(each.fingerprint, each.choice.prompt) for each in answered}
        sides = [comparison.candidate, *(each.name for each in comparison.baselines)]
        Ledger(home()).add_look(
            Look(
                test=task.digest,
                candidate=ids[comparison.candidate],
                baselines=tuple(ids[name] for name in sides[1:]),
                comparison=comparison.id or "",
                job=self.job,
                cases=comparison.n,
                p_value=comparison.p_value,
                sampled=any(known[name].is_sampled(task) for name in sides),
                reason=self.reason,
                time=time.time(),
                kind="verification" if self.verifies else "comparison",
            )
        )
