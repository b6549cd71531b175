"""Score the overlap of two texts from 0 to 1: token F1, ROUGE, chrF and BLEU."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from unitune.scorers.interface import Attempt, Case, Kind, Scorer, Setting
from unitune.text import clip

if TYPE_CHECKING:
    from unitune.scorers.formulas import Sums

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_TOKEN = re.compile("[a-z0-9]+")


def squad_tokens(text: str) -> list[str]:
    """Return a text's words as SQuAD does: without case, ASCII punctuation and articles.

    Source:
        Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1, and its official evaluation script.
    """
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def rouge_tokens(text: str) -> list[str]:
    """Return a text's words as ROUGE does."""
    return _ROUGE_TOKEN.findall(text.lower())


def rouge_n(answer: str, expected: str, n: int) -> float:
    """Return ROUGE-N: F1 of the shared runs of n words."""
    given, wanted = (_runs(rouge_tokens(text), n) for text in (answer, expected))
    return _f1(_common(given, wanted), len(given), len(wanted))


def rouge_l(answer: str, expected: str) -> float:
    """Return ROUGE-L: F1 of the longest common subsequence of words."""
    from rapidfuzz.distance import LCSseq  # noqa: PLC0415 - an extra

    given, wanted = rouge_tokens(answer), rouge_tokens(expected)
    return _f1(LCSseq.similarity(given, wanted), len(given), len(wanted))


def gleu(answer: str, expected: str) -> float:
    """Return Google's GLEU: the smaller of precision and recall over runs of 1 to 4 words.

    Why: OpenAI's graders use it; it is BLEU for single sentences. Words are separated by spaces.

    Source:
        Wu et al. 2016, arXiv 1609.08144, section 5.2.
    """
    given, wanted = (
        [run for n in range(1, 5) for run in _runs(text.split(), n)] for text in (answer, expected)
    )
    return _common(given, wanted) / max(len(given), len(wanted), 1)


def _runs(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]


def _common(first: Sequence[object], second: Sequence[object]) -> int:
    return (Counter(first) & Counter(second)).total()


def _f1(common: int, given: int, wanted: int) -> float:
    return 2 * common / (given + wanted) if common else 0.0


class TokenF1(Scorer):
    """Share of words in common with the expected answer, as in SQuAD.

    Why: the measure of extractive question answering, comparable with published SQuAD figures. It
    leaves out word order, negation, languages without spaces, and SQuAD's best of several expected
    answers.

    Source:
        As `squad_tokens`; if one side has no words, the other must have none (SQuAD 2.0's script).
    """

    compares_wording = True
    kind = Kind.GRADED
    type: Literal["token_f1"] = "token_f1"
    name: str = "token_f1"

    def judge(self, attempt: Attempt) -> float:
        given, wanted = squad_tokens(attempt.text), squad_tokens(attempt.expected)
        if not given or not wanted:
            return float(given == wanted)
        return _f1(_common(given, wanted), len(given), len(wanted))


class Rouge(Scorer):
    """Overlap in words, word pairs or the longest common subsequence (ROUGE).

    Why: the usual measure of summaries, comparable with Google's rouge-score without a stemmer. It
    leaves out synonyms, word order beyond n, everything but a-z and 0-9, and ROUGE-Lsum's union
    over sentences.

    Source:
        Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", W04-1013; tokens and
        beta 1 as in rouge-score 0.1.2.
    """

    compares_wording = True
    kind = Kind.GRADED
    type: Literal["rouge"] = "rouge"
    name: str = "rouge"
    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """Single words, word pairs, or the longest common subsequence."""

    def prepare(self, setting: Setting) -> None:
        if self.variant == "rougeL":
            self.require("rapidfuzz")

    def judge(self, attempt: Attempt) -> float:
        if self.variant == "rougeL":
            return rouge_l(attempt.text, attempt.expected)
        return rouge_n(attempt.text, attempt.expected, int(self.variant.removeprefix("rouge")))

    def refusal(self, case: Case) -> str | None:
        least = 2 if self.variant == "rouge2" else 1
        if len(rouge_tokens(case.answer or "")) >= least:
            return None
        return (
            f"the expected answer {clip(case.answer)} has fewer than {least} words for ROUGE, "
            "which reads only a-z and 0-9"
        )


class Sacrebleu(Scorer):
    """Base of sacrebleu's scores; subclasses set the scorers of one case and of all."""

    compares_wording = True
    expects_text = True
    packages = ("sacrebleu",)
    _of_case: Any = PrivateAttr(None)
    _of_all: Any = PrivateAttr(None)

    def judge(self, attempt: Attempt) -> float:
        return min(1.0, self._of_case.sentence_score(attempt.text, [attempt.expected]).score / 100)

    def sums(self, attempts: Sequence[Attempt], scores: Sequence[float]) -> Sums:
        if self.kind is not Kind.CORPUS:
            return super().sums(attempts, scores)
        import numpy as np  # noqa: PLC0415 - slow to import

        from unitune.scorers.formulas import Sums, bleu_of, chrf_of  # noqa: PLC0415 - numpy

        answers = [attempt.text for attempt in attempts]
        expected = [attempt.expected for attempt in attempts]
        # sacrebleu's significance tests use its counts, one row per case, in the same way.
        counts = self._of_all._extract_corpus_statistics(answers, [expected])  # noqa: SLF001
        formula = bleu_of if isinstance(self, Bleu) else chrf_of
        return Sums(np.array(counts, dtype=np.float64), formula)


class SentenceChrf(Sacrebleu):
    """Overlap in character n-grams, case by case (chrF).

    F2 of the shared runs of 1 to 6 characters; recall weighs twice. Why: among overlap measures it
    agrees best with human judgement of translations, and it needs no words, so it suits every
    language. It leaves out meaning and spaces.

    Source:
        Popović 2015, W15-3049; sacrebleu's default signature.
    """

    kind = Kind.GRADED
    type: Literal["sentence_chrf"] = "sentence_chrf"
    name: str = "sentence_chrf"

    def prepare(self, setting: Setting) -> None:
        from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - an extra

        self._of_case = CHRF()


class Chrf(Sacrebleu):
    """chrF over all cases, by sacrebleu.

    Why and what it leaves out: as `sentence_chrf`, which is also the score of a single case.
    N-grams are added over all cases, so long cases weigh more.

    Source:
        Popović 2015, W15-3049; chrF++: Popović 2017, W17-4770; n-grams by sacrebleu.
    """

    kind = Kind.CORPUS
    type: Literal["chrf"] = "chrf"
    name: str = "chrf"
    word_order: Literal[0, 2] = 0
    """0: chrF, characters only. 2: chrF++, also words and word pairs."""

    def prepare(self, setting: Setting) -> None:
        from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - an extra

        self._of_case = self._of_all = CHRF(word_order=self.word_order)


class Bleu(Sacrebleu):
    """BLEU over all cases, by sacrebleu.

    Why: the usual figure in publications on translation. It leaves out synonyms and word order
    beyond four words, means little below some hundred sentences, and is 0 if all cases are shorter
    than four words; use chrF there. Compare only BLEU of the same tokenizer. The score of a single
    case is sentence BLEU without the orders that are too long for it.

    Source:
        Papineni et al. 2002, P02-1040; n-grams by sacrebleu (Post 2018, W18-6319).
    """

    kind = Kind.CORPUS
    type: Literal["bleu"] = "bleu"
    name: str = "bleu"
    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """sacrebleu's tokenizer; 13a is its default."""
    ignore_case: bool = False
    """Ignore case."""

    def prepare(self, setting: Setting) -> None:
        from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - an extra

        # `force` suppresses sacrebleu's warning about tokenized texts.
        self._of_all, self._of_case = (
            BLEU(tokenize=self.tokenize, lowercase=self.ignore_case, force=True, effective_order=of)
            for of in (False, True)
        )
