"""Scorers that count what two texts have in common: token F1, ROUGE, sentence chrF."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from unitune.data.example import Example
from unitune.evaluate.scorers.extras import needs
from unitune.evaluate.scorers.interface import Attempt, Kind, Scorer, Setting
from unitune.evaluate.scorers.text import refuse_empty
from unitune.findings import clip
from unitune.job.scorers import Rouge, SentenceChrf, TokenF1

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_TOKEN = re.compile("[a-z0-9]+")


def squad_tokens(text: str) -> list[str]:
    """Return a text's words as SQuAD compares them: no case, ASCII punctuation or articles.

    Source:
        Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1, and its official evaluation script.
    """
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def token_f1(answer: str, expected: str) -> float:
    """Return F1 of the words that the answer and the expected one have in common.

    Why: the measure of extractive question answering, comparable with published SQuAD figures,
    kinder than `exact` to a word more or less. Identical texts have 1, and the order of the two
    does not matter. It leaves out word order, negation, and languages that are written without
    spaces; SQuAD's best of several expected answers is not here, since a case has one.

    Source:
        As `squad_tokens`; where a side has no words they must both have none (SQuAD 2.0's script).
    """
    given, wanted = squad_tokens(answer), squad_tokens(expected)
    if not given or not wanted:
        return float(given == wanted)
    return _f1(_common(given, wanted), len(given), len(wanted))


def rouge_n(answer: str, expected: str, n: int) -> float:
    """Return ROUGE-N: F1 of the runs of n words in common.

    Why: the usual measure of summaries, comparable with figures of Google's rouge-score without
    its stemmer. The order of the two does not matter. It leaves out synonyms, word order beyond n,
    and everything but a-z and 0-9: a text in another script has no words.

    Source:
        Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", W04-1013; tokens as
        rouge-score 0.1.2.
    """
    given, wanted = (_runs(rouge_tokens(text), n) for text in (answer, expected))
    return _f1(_common(given, wanted), len(given), len(wanted))


def rouge_l(answer: str, expected: str) -> float:
    """Return ROUGE-L: F1 of the longest common subsequence of words.

    Why: as `rouge_n`, and words must come in the same order, with others between. It leaves out the
    same, and the union over sentences of ROUGE-Lsum.

    Source:
        As `rouge_n`; beta 1, as rouge-score has it.
    """
    from rapidfuzz.distance import LCSseq  # noqa: PLC0415 - an extra

    given, wanted = rouge_tokens(answer), rouge_tokens(expected)
    return _f1(LCSseq.similarity(given, wanted), len(given), len(wanted))


def rouge_tokens(text: str) -> list[str]:
    """Return a text's words as ROUGE compares them."""
    return _ROUGE_TOKEN.findall(text.lower())


def sentence_chrf(answer: str, expected: str) -> float:
    """Return chrF of one answer: F2 of the runs of 1 to 6 characters in common.

    Why: of the measures of overlap it follows human judgement of translations best, and it needs no
    words, so it serves every language. Identical texts have 1. The order of the two matters, since
    recall weighs twice. It leaves out meaning, as all overlap does, and spaces.

    Source:
        Popović 2015, W15-3049; sacrebleu's default signature, from 0 to 1 instead of 100.
    """
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - an extra

    return min(1.0, CHRF().sentence_score(answer, [expected]).score / 100)


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


def make_token_f1(spec: TokenF1, _: Setting) -> Scorer:
    """Return the scorer of `token_f1`."""
    return Scorer(spec, Kind.GRADED, lambda attempt: token_f1(attempt.text, attempt.expected))


def make_rouge(spec: Rouge, _: Setting) -> Scorer:
    """Return the scorer of `rouge_n` or `rouge_l`."""
    if spec.variant == "rougeL":
        needs("rapidfuzz", spec)

    def judge(attempt: Attempt) -> float:
        if spec.variant == "rougeL":
            return rouge_l(attempt.text, attempt.expected)
        return rouge_n(attempt.text, attempt.expected, int(spec.variant.removeprefix("rouge")))

    def refusal(case: Example) -> str | None:
        least = 2 if spec.variant == "rouge2" else 1
        if len(rouge_tokens(case.answer or "")) >= least:
            return None
        return (
            f"the expected answer {clip(case.answer)} has fewer than {least} words for ROUGE, "
            "which reads a-z and 0-9 alone"
        )

    return Scorer(spec, Kind.GRADED, judge, refusal)


def make_sentence_chrf(spec: SentenceChrf, _: Setting) -> Scorer:
    """Return the scorer of `sentence_chrf`."""
    needs("sacrebleu", spec)

    def judge(attempt: Attempt) -> float:
        return sentence_chrf(attempt.text, attempt.expected)

    return Scorer(spec, Kind.GRADED, judge, refuse_empty)


def _runs(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]


def _common(one: Sequence[object], other: Sequence[object]) -> int:
    return (Counter(one) & Counter(other)).total()


def _f1(common: int, given: int, wanted: int) -> float:
    """Return the harmonic mean of common / given and common / wanted."""
    return 2 * common / (given + wanted) if common else 0.0
