"""A candidate against the best of several baselines, whichever of them that truly is.

Dev names a best baseline, and may name the wrong one: its rows are few. So nothing is claimed for
the candidate that does not hold against each baseline, and the verdict is that of one interval of
candidate minus the truly best baseline, at 95 % and at 90 %:

    lower end    the lowest of the lower ends against the baselines. It lies above the truth only if
                 the interval against the truly best one does: each test has its own level, and no
                 correction for their number is needed (an intersection-union test).
    upper end    that against the baseline that dev chose, or against the hardest one where that is
                 higher. The best baseline is at least as good as any single one that was named
                 without looking at the test. Of ends that are picked by the test, the lowest would
                 lie below the truth more often, the more baselines there are.

better, equivalent and non-inferior then hold against each baseline, as far as they say that the
candidate is not worse; worse holds against the baseline that dev chose. With one baseline all of
this is the interval against it.

Sources:
    Berger 1982, Technometrics 24:295; Berger and Hsu 1996, Stat Sci 11:283.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitune.evaluate.statistics.intervals import Interval
from unitune.evaluate.statistics.paired import PairedResult, Verdict, verdict


@dataclass(frozen=True, slots=True)
class AgainstBest:
    """What a candidate is against the best baseline.

    Args:
        hardest: Name of the baseline with the lowest lower end.
        interval: Of candidate minus the best baseline; holds that of the hardest.
        verdict: The first of the verdicts that holds.
    """

    hardest: str
    interval: Interval
    verdict: Verdict


def against_best(pairs: Mapping[str, PairedResult], chosen: str) -> AgainstBest:
    """Say what the comparisons with all baselines show together.

    Args:
        pairs: The candidate against each baseline, on the same cases and with the same margin.
        chosen: Name of the one that was chosen without the test cases; it wins ties.
    """
    hardest = min(pairs, key=lambda name: (pairs[name].interval.low, name != chosen))
    named = (pairs[hardest], pairs[chosen])
    interval = _spanned([pair.interval for pair in pairs.values()], [p.interval for p in named])
    interval90 = _spanned(
        [pair.interval90 for pair in pairs.values()], [p.interval90 for p in named]
    )
    return AgainstBest(hardest, interval, verdict(interval, interval90, pairs[chosen].margin))


def _spanned(lows: Sequence[Interval], highs: Sequence[Interval]) -> Interval:
    return Interval(min(i.low for i in lows), max(i.high for i in highs), highs[0].level)
