"""Scorers that count what two texts have in common: token F1, ROUGE, sentence chrF."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from unitune.findings import clip
from unitune.scorers.interface import Attempt, Case, Kind, Scorer, Setting
from unitune.scorers.text import refuse_empty

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_TOKEN = re.compile("[a-z0-9]+")


def squad_tokens(text: str) -> list[str]:
    """Return a text's words as SQuAD compares them: no case, ASCII punctuation or articles.

    Source:
        Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1, and its official evaluation script.
    """
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def rouge_n(answer: str, expected: str, n: int) -> float:
    """Return ROUGE-N: F1 of the runs of n words in common."""
    given, wanted = (_runs(rouge_tokens(text), n) for text in (answer, expected))
    return _f1(_common(given, wanted), len(given), len(wanted))


def rouge_l(answer: str, expected: str) -> float:
    """Return ROUGE-L: F1 of the longest common subsequence of words."""
    from rapidfuzz.distance import LCSseq  # noqa: PLC0415 - an extra

    given, wanted = rouge_tokens(answer), rouge_tokens(expected)
    return _f1(LCSseq.similarity(given, wanted), len(given), len(wanted))


def rouge_tokens(text: str) -> list[str]:
    """Return a text's words as ROUGE compares them."""
    return _ROUGE_TOKEN.findall(text.lower())


def gleu(answer: str, expected: str) -> float:
    """Return Google's GLEU: the smaller of precision and recall over runs of 1 to 4 words.

    Why: OpenAI's graders name it; it is BLEU made for single sentences. Words are what spaces part.
    It leaves out what BLEU leaves out.

    Source:
        Wu et al. 2016, arXiv 1609.08144, section 5.2.
    """
    given, wanted = (
        [run for n in range(1, 5) for run in _runs(text.split(), n)] for text in (answer, expected)
    )
    return _common(given, wanted) / max(len(given), len(wanted), 1)


class TokenF1(Scorer):
    """Share of words in common with the expected answer, as SQuAD counts it.

    Why: the measure of extractive question answering, comparable with published SQuAD figures,
    kinder than `exact` to a word more or less. Identical texts have 1, and the order of the two
    does not matter. It leaves out word order, negation, and languages that are written without
    spaces; SQuAD's best of several expected answers is not here, since a case has one.

    Source:
        As `squad_tokens`; where a side has no words they must both have none (SQuAD 2.0's script).
    """

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

    Why: the usual measure of summaries, comparable with figures of Google's rouge-score without
    its stemmer. The order of the two does not matter. It leaves out synonyms, word order beyond n,
    everything but a-z and 0-9 (a text in another script has no words), and the union over sentences
    of ROUGE-Lsum.

    Source:
        Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", W04-1013; tokens and
        beta 1 as rouge-score 0.1.2.
    """

    kind = Kind.GRADED
    type: Literal["rouge"] = "rouge"
    name: str = "rouge"
    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """Single words, pairs of words, or words in order."""

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
            "which reads a-z and 0-9 alone"
        )


class SentenceChrf(Scorer):
    """Overlap in runs of characters, case by case (chrF).

    F2 of the runs of 1 to 6 characters in common. Why: of the measures of overlap it follows human
    judgement of translations best, and it needs no words, so it serves every language. Identical
    texts have 1. The order of the two matters, since recall weighs twice. It leaves out meaning, as
    all overlap does, and spaces.

    Source:
        Popović 2015, W15-3049; sacrebleu's default signature, from 0 to 1 instead of 100.
    """

    kind = Kind.GRADED
    packages = ("sacrebleu",)
    type: Literal["sentence_chrf"] = "sentence_chrf"
    name: str = "sentence_chrf"

    def judge(self, attempt: Attempt) -> float:
        from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - an extra

        return min(1.0, CHRF().sentence_score(attempt.text, [attempt.expected]).score / 100)

    def refusal(self, case: Case) -> str | None:
        return refuse_empty(case)


def _runs(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]


def _common(first: Sequence[object], second: Sequence[object]) -> int:
    return (Counter(first) & Counter(second)).total()


def _f1(common: int, given: int, wanted: int) -> float:
    """Return the harmonic mean of common / given and common / wanted."""
    return 2 * common / (given + wanted) if common else 0.0
