"""Scores that are made of all cases together: BLEU and chrF, by sacrebleu's counts.

sacrebleu counts the n-grams of every case; the formulas over the added counts stand here once
more, over arrays, so that thousands of resamples cost as many additions (`Sums`). Tests hold them
against sacrebleu's own scores. Scores go from 0 to 1 where sacrebleu prints 0 to 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unitune.evaluate.scorers.extras import needs
from unitune.evaluate.scorers.interface import Attempt, Kind, Scorer, Setting
from unitune.evaluate.scorers.sums import Floats, Sums, ratio
from unitune.evaluate.scorers.text import refuse_empty
from unitune.job.scorers import Bleu, Chrf

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

ORDERS = 4
"""BLEU's longest n-gram. Source: Papineni et al. 2002, P02-1040."""
BETA = 2
"""chrF weighs recall twice. Source: Popović 2016, W16-2341."""


def bleu_of(sums: Floats) -> Floats:
    """Return corpus BLEU, smoothed as sacrebleu's `exp`.

    Args:
        sums: Length of the answers, length of the references, matching n-grams and n-grams of the
            answers for n from 1 to 4, (…, 10).

    Source:
        Papineni et al. 2002, P02-1040; smoothing: NIST's mteval-v13a, method 3 of Chen and Cherry
        2014, W14-3346, as sacrebleu 2 has it.
    """
    length, reference = sums[..., 0], sums[..., 1]
    correct, total = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    missing = (correct == 0) & (total > 0)
    halved = 0.5 ** np.cumsum(missing, axis=-1)
    precision = ratio(np.where(missing, halved, correct), total)
    with np.errstate(divide="ignore"):  # an order without n-grams makes the whole score 0
        mean = np.exp(np.log(precision).mean(axis=-1))
        brevity = np.exp(np.minimum(0.0, 1 - np.where(length > 0, reference, 0) / _one_or(length)))
    matched = (correct > 0).any(axis=-1) & (length > 0)
    return np.where(matched, mean * brevity, 0.0)


def chrf_of(sums: Floats) -> Floats:
    """Return corpus chrF: F2 of precision and recall, each the mean over n-gram orders.

    Args:
        sums: For every order the answers' n-grams, the references' and those in common, (…, 3 k).

    Source:
        Popović 2015, W15-3049; orders that either side lacks are left out, as sacrebleu 2 does.
    """
    given, wanted, common = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    there = (given > 0) & (wanted > 0)
    orders = there.sum(axis=-1)
    precision = ratio((ratio(common, given) * there).sum(axis=-1), orders)
    recall = ratio((ratio(common, wanted) * there).sum(axis=-1), orders)
    return ratio((1 + BETA**2) * precision * recall, BETA**2 * precision + recall)


def make_bleu(spec: Bleu, _: Setting) -> Scorer:
    """Return the scorer of corpus BLEU.

    Why: the figure that translation is published in. It leaves out synonyms and word order beyond
    four words, it means little below some hundred sentences, and it is 0 for cases that are all
    shorter than four words; chrF serves those. Compare it only with BLEU of the same tokenizer. The
    score of a single case, for reading, is sentence BLEU without the orders that it is too short
    for.

    Source:
        `bleu_of`; n-grams by sacrebleu (Post 2018, W18-6319).
    """
    needs("sacrebleu", spec)
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - an extra

    # `force` keeps sacrebleu from warning of texts that look tokenized already.
    together = BLEU(tokenize=spec.tokenize, lowercase=spec.ignore_case, force=True)
    alone = BLEU(
        tokenize=spec.tokenize, lowercase=spec.ignore_case, force=True, effective_order=True
    )

    def judge(attempt: Attempt) -> float:
        return min(1.0, alone.sentence_score(attempt.text, [attempt.expected]).score / 100)

    def over_all(attempts: Sequence[Attempt]) -> Sums:
        return Sums(_counts(together, attempts), bleu_of)

    return Scorer(spec, Kind.CORPUS, judge, refuse_empty, over_all=over_all)


def make_chrf(spec: Chrf, _: Setting) -> Scorer:
    """Return the scorer of corpus chrF, or chrF++.

    Why and what it leaves out: as `unitune.evaluate.scorers.overlap.sentence_chrf`, which is the
    score of a single case here too; the score of all cases adds their n-grams up, so long cases
    weigh more.

    Source:
        `chrf_of`; chrF++: Popović 2017, W17-4770; n-grams by sacrebleu.
    """
    needs("sacrebleu", spec)
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - an extra

    metric = CHRF(word_order=spec.word_order)

    def judge(attempt: Attempt) -> float:
        return min(1.0, metric.sentence_score(attempt.text, [attempt.expected]).score / 100)

    def over_all(attempts: Sequence[Attempt]) -> Sums:
        return Sums(_counts(metric, attempts), chrf_of)

    return Scorer(spec, Kind.CORPUS, judge, refuse_empty, over_all=over_all)


def _counts(metric: BLEU | CHRF, attempts: Sequence[Attempt]) -> Floats:
    """Return sacrebleu's counts, one row a case; its own significance tests take them likewise."""
    answers = [attempt.text for attempt in attempts]
    expected = [attempt.expected for attempt in attempts]
    extract = metric._extract_corpus_statistics  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return np.array(extract(answers, [expected]), dtype=np.float64)


def _one_or(value: Floats) -> Floats:
    return np.where(value > 0, value, 1)
