"""Scores that are made of all cases together: BLEU and chrF, by sacrebleu's counts.

sacrebleu counts the n-grams of every case; the formulas over the added counts stand once more in
`unitune.scorers.formulas`, over arrays, so that thousands of resamples cost as many additions.
Tests hold them against sacrebleu's own scores. Scores go from 0 to 1 where sacrebleu prints 0 to
100.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from unitune.scorers.interface import Attempt, Case, Kind, Scorer, Setting
from unitune.scorers.text import refuse_empty

if TYPE_CHECKING:
    from unitune.scorers.formulas import Formula, Sums


class NgramScore(Scorer):
    """A score of sacrebleu's."""

    kind = Kind.CORPUS
    packages = ("sacrebleu",)
    _corpus_scorer: Any = PrivateAttr(None)
    _sentence_scorer: Any = PrivateAttr(None)

    def judge(self, attempt: Attempt) -> float:
        score = self._sentence_scorer.sentence_score(attempt.text, [attempt.expected]).score
        return min(1.0, score / 100)

    def refusal(self, case: Case) -> str | None:
        return refuse_empty(case)

    def sums(self, attempts: Sequence[Attempt], scores: Sequence[float]) -> Sums:
        import numpy as np  # noqa: PLC0415 - slow to import

        from unitune.scorers.formulas import Sums  # noqa: PLC0415 - numpy

        answers = [attempt.text for attempt in attempts]
        expected = [attempt.expected for attempt in attempts]
        # sacrebleu's own significance tests take its counts, one row a case, likewise.
        counts = self._corpus_scorer._extract_corpus_statistics(answers, [expected])  # noqa: SLF001
        return Sums(np.array(counts, dtype=np.float64), self._formula())

    def _formula(self) -> Formula:
        raise NotImplementedError


class Bleu(NgramScore):
    """BLEU over all cases, by sacrebleu.

    Why: the figure that translation is published in. It leaves out synonyms and word order beyond
    four words, it means little below some hundred sentences, and it is 0 for cases that are all
    shorter than four words; chrF serves those. Compare it only with BLEU of the same tokenizer. The
    score of a single case, for reading, is sentence BLEU without the orders that it is too short
    for.

    Source:
        Papineni et al. 2002, P02-1040; n-grams by sacrebleu (Post 2018, W18-6319).
    """

    type: Literal["bleu"] = "bleu"
    name: str = "bleu"
    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """sacrebleu's tokenizer; 13a is its default."""
    ignore_case: bool = False
    """Compare without regard to case."""

    def prepare(self, setting: Setting) -> None:
        from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - an extra

        # `force` keeps sacrebleu from warning of texts that look tokenized already.
        self._corpus_scorer, self._sentence_scorer = (
            BLEU(
                tokenize=self.tokenize,
                lowercase=self.ignore_case,
                force=True,
                effective_order=effective_order,
            )
            for effective_order in (False, True)
        )

    def _formula(self) -> Formula:
        from unitune.scorers.formulas import bleu_of  # noqa: PLC0415 - numpy

        return bleu_of


class Chrf(NgramScore):
    """chrF over all cases, by sacrebleu.

    Why and what it leaves out: as `sentence_chrf`, which is the score of a single case here too;
    the score of all cases adds their n-grams up, so long cases weigh more.

    Source:
        Popović 2015, W15-3049; chrF++: Popović 2017, W17-4770; n-grams by sacrebleu.
    """

    type: Literal["chrf"] = "chrf"
    name: str = "chrf"
    word_order: Literal[0, 2] = 0
    """0: chrF, characters alone. 2: chrF++, words and pairs of words as well."""

    def prepare(self, setting: Setting) -> None:
        from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - an extra

        self._corpus_scorer = self._sentence_scorer = CHRF(word_order=self.word_order)

    def _formula(self) -> Formula:
        from unitune.scorers.formulas import chrf_of  # noqa: PLC0415 - numpy

        return chrf_of
