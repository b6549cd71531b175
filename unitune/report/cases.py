"""The cases of a comparison as readers see them: grouped by outcome, answers marked word by word.

`grouped` sorts cases into gained, lost, both wrong and both right, and turns every text into a
`Passage`: pieces marked against the expected answer, with a beginning to show while it is folded.
Texts share one budget, so that a page of 1,000 long answers still opens at once: short texts are
never cut, long ones all to the same length, and a cut says how much is missing.

Not here: how a passage looks (``report.html.j2``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple

from markupsafe import escape

from unitune.data.example import Message
from unitune.evaluate.records import CaseResult
from unitune.evaluate.results import Comparison

FOLD_ABOVE = 420  # characters that a reader takes in at once, about five lines
BEGINNING = 240  # characters of a folded text that stay visible
# Bytes of all texts of a page with their marks; 1,000 rows around them still make under 1.5 MB.
TEXT_BUDGET = 1_100_000
SHORTEST_CUT = 60  # no text is cut to fewer characters, however many cases there are
FOLD_BYTES = 130  # what folding or cutting a text costs on the page
MARKED_BYTES = 1.5  # for each byte of text: more than half the words of a wrong answer differ
REASON_CHARACTERS = 160  # of a scorer's reason, which is a few words
OPEN_CASES = 10  # of a group; the others are folded
MAX_CASES = 1000  # shown of one group; `rows.jsonl` has them all
HALF = 0.5  # two answers with the same score are both right from here on
NO_NOTES: Mapping[str, str] = MappingProxyType({})
LEAST_SHARED = 0.35  # texts that share fewer of their words are different texts, not a changed one

# A Chinese, Japanese or Korean character is a word of its own: those scripts have no spaces.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|\s+|[^\w\s]")


class Outcome(StrEnum):
    """Contender that did better in a case."""

    GAINED = "gained"
    LOST = "lost"
    BOTH_WRONG = "both wrong"
    BOTH_RIGHT = "both right"


class Piece(NamedTuple):
    """A run of words: in both texts, only in the answer, or only in the expected answer."""

    kind: Literal["same", "extra", "missing"]
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to show, in marked pieces."""

    pieces: tuple[Piece, ...]
    beginning: str = ""  # what stays visible of a folded text; empty: it stands open
    characters: int = 0  # of the whole text
    cut: int = 0  # characters left out at its end
    error: str | None = None  # why there is no answer
    note: str = ""  # what the scorer that decides says of an answer that is not wholly right


@dataclass(frozen=True, slots=True)
class ShownCase:
    """One case, ready to show."""

    id: str
    question: Passage  # without the system prompt that all cases share
    expected: Passage
    baseline: Passage
    candidate: Passage
    also_right: tuple[str, ...] = ()  # other contenders that got it right
    required: bool = False  # the gate wants it right
    cut: bool = False  # an answer was cut off before it was right or wrong
    remark: str = ""  # what a person noted on it

    @property
    def marks(self) -> str:
        """Classes by which it can be filtered, besides its group's outcome."""
        failed = self.baseline.error is not None or self.candidate.error is not None
        return " ".join(["required"] * self.required + ["error"] * failed + ["cut"] * self.cut)


@dataclass(frozen=True, slots=True)
class Group:
    """Cases with the same outcome: how many, and the first `MAX_CASES` of them."""

    outcome: Outcome
    total: int
    cases: tuple[ShownCase, ...]

    @property
    def open(self) -> list[ShownCase]:
        """The first `OPEN_CASES`, and all that can be filtered for, even without JavaScript."""
        return [case for at, case in enumerate(self.cases) if at < OPEN_CASES or case.marks]

    @property
    def folded(self) -> list[ShownCase]:
        """The others."""
        return [case for case in self.cases[OPEN_CASES:] if not case.marks]


def grouped(
    comparison: Comparison, budget: int = TEXT_BUDGET, notes: Mapping[str, str] = NO_NOTES
) -> tuple[Group, ...]:
    """Return the cases by outcome: gained, lost, both wrong, both right; each in the cases' order.

    Args:
        comparison: With its cases.
        budget: Bytes for all texts with their marks, about.
        notes: What a person noted on cases, by their ids.
    """
    by_outcome: dict[Outcome, list[CaseResult]] = {outcome: [] for outcome in Outcome}
    for case in comparison.cases:
        by_outcome[outcome(comparison, case)].append(case)
    prompt = shared_system_prompt(comparison.cases)
    texts: list[str] = []
    for cases in by_outcome.values():
        for case in cases[:MAX_CASES]:
            answers = (case.answers[name] for name in (comparison.baseline, comparison.candidate))
            texts += (question(case, prompt), wanted(case))
            texts += (answer.error or answer.text for answer in answers)
    limit = _length_limit(texts, budget)
    groups: list[Group] = []
    for key, cases in by_outcome.items():
        shown = (_shown(comparison, case, prompt, limit, notes) for case in cases[:MAX_CASES])
        groups.append(Group(key, len(cases), tuple(shown)))
    return tuple(groups)


def outcome(comparison: Comparison, case: CaseResult) -> Outcome:
    """Return which of candidate and baseline did better, by the metric that decides."""
    candidate = _score(comparison, case, comparison.candidate)
    baseline = _score(comparison, case, comparison.baseline)
    if candidate != baseline:
        return Outcome.GAINED if candidate > baseline else Outcome.LOST
    return Outcome.BOTH_RIGHT if candidate >= HALF else Outcome.BOTH_WRONG


def titles(comparison: Comparison) -> dict[Outcome, str]:
    """Return headings of the groups of cases."""
    higher = "scores higher" if comparison.graded else "is right"
    return {
        Outcome.GAINED: f"Gained: only {comparison.candidate} {higher}",
        Outcome.LOST: f"Lost: only {comparison.baseline} {higher}",
        Outcome.BOTH_WRONG: "Both wrong",
        Outcome.BOTH_RIGHT: "Both right",
    }


def wanted(case: CaseResult) -> str:
    """Return what a right answer is: the expected one, and what is asserted of it."""
    return "\n".join(filter(None, [case.expected, case.asserted]))


def _score(comparison: Comparison, case: CaseResult, name: str) -> float:
    return case.answers[name].scores.get(comparison.metric, 0.0)


def shared_system_prompt(cases: Sequence[CaseResult]) -> str:
    """Return the system prompt that every case begins with; empty when they differ."""
    prompts = {
        case.messages[0].text
        if case.messages and case.messages[0].role in ("system", "developer")
        else ""
        for case in cases
    }
    return prompts.pop() if len(prompts) == 1 else ""


def question(case: CaseResult, prompt: str) -> str:
    """Write the messages of a case; with more than one turn, each begins with who speaks.

    Args:
        case: The case.
        prompt: System prompt that all cases share, which is left out here; may be empty.
    """
    turns = case.messages[1:] if prompt else case.messages
    if len(turns) == 1:
        return _content(turns[0])
    return "\n\n".join(f"{turn.role}: {_content(turn)}" for turn in turns)


def _content(message: Message) -> str:
    if message.tool_calls is None:
        return message.text
    return message.text + json.dumps(message.tool_calls, ensure_ascii=False)


def _length_limit(texts: Sequence[str], budget: int) -> int:
    """Return how many characters of a text may be shown, so that all fit a budget of bytes."""
    characters = sum(map(len, texts))
    if not characters:
        return SHORTEST_CUT
    written = MARKED_BYTES * sum(len(escape(text).encode("utf-8", "replace")) for text in texts)
    left = budget - FOLD_BYTES * len(texts)
    return fair_limit(map(len, texts), int(left * characters / written))


def fair_limit(lengths: Iterable[int], budget: int) -> int:
    """Return the length to which long texts are cut so that all together fit a budget.

    Texts shorter than their equal share leave the rest to the longer ones.

    Args:
        lengths: Of every text, in characters.
        budget: For all texts together, in characters.

    Returns:
        The greatest fitting length, at least `SHORTEST_CUT`.
    """
    ordered = sorted(lengths)
    for index, length in enumerate(ordered):
        share = budget // (len(ordered) - index)
        if length > share:
            return max(SHORTEST_CUT, share)
        budget -= length
    return max(SHORTEST_CUT, ordered[-1] if ordered else 0)


def _shown(
    comparison: Comparison, case: CaseResult, prompt: str, limit: int, notes: Mapping[str, str]
) -> ShownCase:
    others = case.answers.keys() - {comparison.candidate, comparison.baseline}
    return ShownCase(
        id=case.id,
        question=plain_passage(question(case, prompt), limit),
        expected=plain_passage(wanted(case), limit),
        baseline=answer_passage(comparison, case, comparison.baseline, limit),
        candidate=answer_passage(comparison, case, comparison.candidate, limit),
        also_right=tuple(
            name for name in case.answers if name in others and _score(comparison, case, name) >= 1
        ),
        required=case.required,
        cut=any(case.answers[name].open for name in (comparison.baseline, comparison.candidate)),
        remark=notes.get(case.id, ""),
    )


def answer_passage(comparison: Comparison, case: CaseResult, name: str, limit: int) -> Passage:
    """Return a contender's answer, marked where it is not right, its texts cut at a limit."""
    answer = case.answers[name]
    if answer.error is not None:
        return Passage((), error=answer.error[:limit])
    shown, score = plain_passage(answer.text, limit), _score(comparison, case, name)
    if score >= 1:
        return shown
    cut = "cut off at its longest" if answer.cut else ""
    graded = f"scored {score:.2f}" if score > 0 else ""
    # Another tool's own score gives no reason, and a scorer beside it may.
    reasons = answer.reasons.get(comparison.metric) or next(iter(answer.reasons.values()), "")
    reason = reasons[:REASON_CHARACTERS]
    if not case.asserted:  # whose words are none that an answer should hold
        shown = replace(shown, pieces=marked(case.expected[:limit], answer.text[:limit]))
    return replace(shown, note=": ".join(filter(None, [cut, graded, reason])))


def plain_passage(text: str, limit: int) -> Passage:
    """Return a text without marks, cut at a limit."""
    shown = text[:limit]
    return Passage(
        pieces=(Piece("same", shown),) if text else (),
        beginning=text[:BEGINNING] if len(shown) > FOLD_ABOVE else "",
        characters=len(text),
        cut=len(text) - len(shown),
    )


@lru_cache(maxsize=4096)  # labels recur: a classifier gives the same few answers again and again
def marked(expected: str, answer: str) -> tuple[Piece, ...]:
    """Mark an answer word by word against what was expected.

    Returns:
        Pieces in reading order; one `extra` piece when the texts have little in common.
    """
    wanted, given = _WORDS.findall(expected), _WORDS.findall(answer)
    matcher = SequenceMatcher(None, wanted, given)
    if matcher.ratio() < LEAST_SHARED:
        return (Piece("extra", answer),) if answer else ()
    pieces: list[Piece] = []
    missing = extra = ""
    for tag, start, stop, given_start, given_stop in matcher.get_opcodes():
        old, new = "".join(wanted[start:stop]), "".join(given[given_start:given_stop])
        # A space that two changes have in common is no agreement: it would tear both apart.
        if tag == "equal" and not (old.isspace() and (missing or extra)):
            pieces += (Piece("missing", missing), Piece("extra", extra), Piece("same", old))
            missing = extra = ""
        else:
            missing, extra = missing + old, extra + new
    pieces += (Piece("missing", missing), Piece("extra", extra))
    return tuple(piece for piece in pieces if piece.text)
