"""What is told of answers beside their quality: length, latency, cost, consistency.

A measure looks at all records of one contender for one case, one for each repeat, and gives a
figure of that case, or None where it is not known. Figures have units and no best direction that
holds for every task, so no verdict rests on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from unitune.evaluate.inference.budget import usd
from unitune.evaluate.results import Record
from unitune.job.job import TokenPrice
from unitune.job.scorers import Consistency, Cost, Latency, Length, MeasureSpec


def measure(
    spec: MeasureSpec, records: Sequence[Record], price: TokenPrice | None = None
) -> float | None:
    """Return a measure of one case.

    Args:
        spec: Which measure.
        records: Of one contender for one case, one a repeat; those in error count for nothing.
        price: Of the contender's tokens, where it is known.
    """
    answered = [record for record in records if record.error is None]
    match spec:
        case Length():
            return _mean([length(record, spec.unit) for record in answered])
        case Latency():
            return _mean([record.seconds for record in answered])
        case Cost():
            return _mean([cost(record, price) for record in answered])
        case Consistency():
            return consistency([record.text for record in answered])


def length(record: Record, unit: str) -> float | None:
    """Return how long an answer is: characters, words between spaces, or the backend's tokens.

    Why: a tuned model that is as good and shorter is cheaper and quicker to read. It leaves out
    whether the length is right.
    """
    if unit == "tokens":
        return record.completion_tokens
    return float(len(record.text) if unit == "characters" else len(record.text.split()))


def cost(record: Record, price: TokenPrice | None) -> float | None:
    """Return what an answer cost in US dollars, from its tokens and the prices of the job.

    Why: quality has its price, and few-shot prompts pay for their shots in every request. It leaves
    out training, hosting, discounts for cached tokens and for batches, and taxes.
    """
    found = price and usd(price, record.prompt_tokens, record.completion_tokens)
    return None if found is None else float(found)


def consistency(answers: Sequence[str]) -> float | None:
    """Return the share of pairs of repeats that give the same answer; None with fewer than two.

    Why: a model that is right four times of five may be so by chance on every case, or always on
    four of five; users meet only the first as unreliable. Pairs, and not the share of the most
    frequent answer, because that share is the greater the fewer repeats there are. It leaves out
    whether the answer is right, and answers that say the same in other words: texts are compared
    as they stand, outer whitespace aside.
    """
    n = len(answers)
    if n < 2:
        return None
    same = sum(count * (count - 1) for count in Counter(map(str.strip, answers)).values())
    return same / (n * (n - 1))


def _mean(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return fmean(known) if known and len(known) == len(figures) else None
