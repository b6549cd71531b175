"""Group the cases of a comparison by outcome, and mark their answers word by word.

`grouped` sorts cases into gained, lost, both wrong and both right. It turns each text into a
`Passage`: pieces marked against the expected answer, with a visible beginning if it is folded.
All texts share one budget, so that a page of 1,000 long answers opens fast. Short texts are not
cut, and long ones are cut to equal lengths, with the number of missing characters.
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
from unitune.data.images import DATA_URI, BadImage, ImageUrl
from unitune.evaluate.documents.records import Answer, CaseResult
from unitune.evaluate.documents.results import Comparison

FOLD_ABOVE = 420  # characters that readers take in at once, about five lines
BEGINNING = 240  # visible characters of a folded text
# Bytes of all texts of a page with their marks; with 1,000 rows the page stays below 1.5 MB.
TEXT_BUDGET = 1_100_000
SHORTEST_CUT = 60  # minimum characters of a cut text, for any number of cases
IMAGE_BUDGET = 8_000_000  # bytes of the images of a page; text stands for further ones
FOLD_BYTES = 130  # bytes that folding or cutting a text adds to the page
MARKED_BYTES = 1.5  # bytes per byte of text: more than half the words of a wrong answer differ
REASON_CHARACTERS = 160  # limit for a scorer's reason, which is usually a few words
OPEN_CASES = 10  # open cases of a group; the others are folded
MAX_CASES = 1000  # maximum cases of a group; `rows.jsonl` has all
HALF = 0.5  # lowest score at which two equal answers are both right
NO_NOTES: Mapping[str, str] = MappingProxyType({})
LEAST_SHARED = 0.35  # below this share of common words, texts are treated as unrelated

# Chinese, Japanese and Korean characters count as words, because these scripts have no spaces.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|\s+|[^\w\s]")


class Outcome(StrEnum):
    """Contender with the better answer to a case."""

    GAINED = "gained"
    LOST = "lost"
    BOTH_WRONG = "both wrong"
    BOTH_RIGHT = "both right"


class Piece(NamedTuple):
    """Run of words: in both texts, only in the answer, or only in the expected answer."""

    kind: Literal["same", "extra", "missing"]
    text: str


class Thumbnail(NamedTuple):
    """Image to show: its `data:` URI, and the text in its place."""

    url: str
    text: str


class Thumbnails:
    """Images of a page, as many as fit its budget of bytes."""

    def __init__(self, budget: int = IMAGE_BUDGET) -> None:
        self._left = budget

    def of(self, messages: Iterable[Message]) -> tuple[Thumbnail, ...]:
        """Return the embedded images of messages that still fit."""
        return tuple(
            Thumbnail(image.url, str(image))
            for message in messages
            for image in message.images
            if self._fits(image)
        )

    def _fits(self, image: ImageUrl) -> bool:
        try:
            header = DATA_URI.fullmatch(image.url) and image.image
        except BadImage:  # in a file from elsewhere
            return False
        fits = header is not None and len(image.url) <= self._left
        self._left -= len(image.url) if fits else 0
        return fits


@dataclass(frozen=True, slots=True)
class Passage:
    """Text to show, in marked pieces."""

    pieces: tuple[Piece, ...]
    beginning: str = ""  # visible part of a folded text; empty if it is open
    characters: int = 0  # length of the full text
    cut: int = 0  # omitted characters at its end
    error: str | None = None  # why there is no answer
    reasoning: str = ""  # what the model wrote before the answer
    trajectory: str = ""  # calls and results of a dialogue, one line each
    turns: str = ""  # heading of the trajectory: its numbers of turns and errors
    note: str = ""  # reason of the deciding scorer for an answer that is not fully right
    images: tuple[Thumbnail, ...] = ()


@dataclass(frozen=True, slots=True)
class ShownCase:
    """Case, ready to show."""

    id: str
    question: Passage  # without the system prompt that all cases share
    expected: Passage
    baseline: Passage
    candidate: Passage
    also_right: tuple[str, ...] = ()  # other contenders that got it right
    required: bool = False  # whether the gate requires a right answer
    cut: bool = False  # whether an answer was truncated before it was right or wrong
    remark: str = ""  # a person's note on the case

    @property
    def marks(self) -> str:
        """CSS classes for filters, other than its group's outcome."""
        failed = self.baseline.error is not None or self.candidate.error is not None
        return " ".join(["required"] * self.required + ["error"] * failed + ["cut"] * self.cut)


@dataclass(frozen=True, slots=True)
class Group:
    """Cases with the same outcome: their number, and the first `MAX_CASES` of them."""

    outcome: Outcome
    total: int
    cases: tuple[ShownCase, ...]

    @property
    def open(self) -> list[ShownCase]:
        """First `OPEN_CASES` cases, and all with filters, even without JavaScript."""
        return [case for at, case in enumerate(self.cases) if at < OPEN_CASES or case.marks]

    @property
    def folded(self) -> list[ShownCase]:
        """Remaining cases."""
        return [case for case in self.cases[OPEN_CASES:] if not case.marks]


def grouped(
    comparison: Comparison, budget: int = TEXT_BUDGET, notes: Mapping[str, str] = NO_NOTES
) -> tuple[Group, ...]:
    """Return the cases by outcome (gained, lost, both wrong, both right), each in their order.

    `budget` approximately limits the bytes of all texts with their marks. `notes` are by case id.
    """
    by_outcome: dict[Outcome, list[CaseResult]] = {outcome: [] for outcome in Outcome}
    for case in comparison.cases:
        by_outcome[outcome(comparison, case)].append(case)
    prompt = shared_system_prompt(comparison.cases)
    texts: list[str] = []
    for cases in by_outcome.values():
        for case in cases[:MAX_CASES]:
            answers = [case.answers[name] for name in (comparison.baseline, comparison.candidate)]
            texts += (question(case, prompt), wanted(case))
            texts += (answer.error or answer.text for answer in answers)
            texts += (answer.reasoning for answer in answers if answer.reasoning)
            texts += (steps(answer.trajectory.messages) for answer in answers if answer.trajectory)
    limit, thumbnails = _length_limit(texts, budget), Thumbnails()
    groups: list[Group] = []
    for key, cases in by_outcome.items():
        shown = (
            replace(made, question=replace(made.question, images=thumbnails.of(case.messages)))
            for case in cases[:MAX_CASES]
            for made in [_shown(comparison, case, prompt, limit, notes)]
        )
        groups.append(Group(key, len(cases), tuple(shown)))
    return tuple(groups)


def outcome(comparison: Comparison, case: CaseResult) -> Outcome:
    """Return whether candidate or baseline did better in a case, by the deciding metric."""
    candidate = _score(comparison, case, comparison.candidate)
    baseline = _score(comparison, case, comparison.baseline)
    if candidate != baseline:
        return Outcome.GAINED if candidate > baseline else Outcome.LOST
    return Outcome.BOTH_RIGHT if candidate >= HALF else Outcome.BOTH_WRONG


def titles(comparison: Comparison) -> dict[Outcome, str]:
    """Return the headings of the groups of cases."""
    higher = "scores higher" if comparison.graded else "is right"
    return {
        Outcome.GAINED: f"Gained: only {comparison.candidate} {higher}",
        Outcome.LOST: f"Lost: only {comparison.baseline} {higher}",
        Outcome.BOTH_WRONG: "Both wrong",
        Outcome.BOTH_RIGHT: "Both right",
    }


def wanted(case: CaseResult) -> str:
    """Return the right answer to a case: the expected one and its assertions."""
    return "\n".join(filter(None, [case.expected, case.asserted]))


def _score(comparison: Comparison, case: CaseResult, name: str) -> float:
    return case.answers[name].scores.get(comparison.metric, 0.0)


def shared_system_prompt(cases: Sequence[CaseResult]) -> str:
    """Return the system prompt that all cases begin with; empty if they differ."""
    prompts = {
        case.messages[0].text
        if case.messages and case.messages[0].role in ("system", "developer")
        else ""
        for case in cases
    }
    return prompts.pop() if len(prompts) == 1 else ""


def question(case: CaseResult, prompt: str) -> str:
    """Return a case's messages without a shared `prompt`; each of several begins with its role."""
    turns = case.messages[1:] if prompt else case.messages
    if len(turns) == 1:
        return _content(turns[0])
    return "\n\n".join(f"{turn.role}: {_content(turn)}" for turn in turns)


def _content(message: Message) -> str:
    if message.tool_calls is None:
        return message.shown
    return message.shown + json.dumps(message.tool_calls, ensure_ascii=False)


def _length_limit(texts: Sequence[str], budget: int) -> int:
    """Return the characters per text at which all texts fit a budget of bytes."""
    characters = sum(map(len, texts))
    if not characters:
        return SHORTEST_CUT
    written = MARKED_BYTES * sum(len(escape(text).encode("utf-8", "replace")) for text in texts)
    left = budget - FOLD_BYTES * len(texts)
    return fair_limit(map(len, texts), int(left * characters / written))


def fair_limit(lengths: Iterable[int], budget: int) -> int:
    """Return the length to cut long texts to, so that all texts fit a budget.

    Texts shorter than their equal share leave the rest to longer ones.

    Args:
        lengths: Characters of each text.
        budget: Characters of all texts together.

    Returns:
        The greatest length that fits, at least `SHORTEST_CUT`.
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
    """Return a contender's answer, marked unless it is right, with texts cut at a limit."""
    answer = case.answers[name]
    if answer.error is not None:
        return _with_path(Passage((), error=answer.error[:limit]), answer, limit)
    shown, score = plain_passage(answer.text, limit), _score(comparison, case, name)
    shown = replace(shown, reasoning=(answer.reasoning or "")[:limit])
    shown = _with_path(shown, answer, limit)
    if score >= 1:
        return shown
    cut = "cut off at its longest" if answer.cut else ""
    graded = f"scored {score:.2f}" if score > 0 else ""
    # Another tool's score has no reason, but a scorer next to it may have one.
    reasons = answer.reasons.get(comparison.metric) or next(iter(answer.reasons.values()), "")
    reason = reasons[:REASON_CHARACTERS]
    if not case.asserted:  # an answer need not contain the words of assertions
        shown = replace(shown, pieces=marked(case.expected[:limit], answer.text[:limit]))
    return replace(shown, note=": ".join(filter(None, [cut, graded, reason])))


def steps(turns: Iterable[Message]) -> str:
    """Return turns of a dialogue, with calls and results quoted as JSON."""
    lines: list[str] = []
    for turn in turns:
        if turn.role == "tool":
            lines.append(f"result: {json.dumps(turn.text, ensure_ascii=False)}")
            continue
        role = "simulated user" if turn.role == "user" else turn.role
        lines += [f"{role}: {json.dumps(turn.text, ensure_ascii=False)}"] if turn.text else []
        calls = (call.get("function") for call in turn.tool_calls or ())
        lines += [f"call: {json.dumps(call, ensure_ascii=False)}" for call in calls]
    return "\n".join(lines)


def _with_path(shown: Passage, answer: Answer, limit: int) -> Passage:
    if (trajectory := answer.trajectory) is None:
        return shown
    heading = f"turns: {trajectory.turns}, tool errors: {trajectory.tool_errors}"
    if trajectory.end and not (answer.cut or answer.error):
        heading += f", {trajectory.end}"
    return replace(shown, trajectory=steps(trajectory.messages)[:limit], turns=heading)


def plain_passage(text: str, limit: int) -> Passage:
    """Return a text without marks, cut at a limit."""
    shown = text[:limit]
    return Passage(
        pieces=(Piece("same", shown),) if text else (),
        beginning=text[:BEGINNING] if len(shown) > FOLD_ABOVE else "",
        characters=len(text),
        cut=len(text) - len(shown),
    )


@lru_cache(maxsize=4096)  # labels recur: a classifier repeats a few answers
def marked(expected: str, answer: str) -> tuple[Piece, ...]:
    """Mark an answer word by word against the expected answer.

    Returns:
        Pieces in reading order; one `extra` piece if the texts have little in common.
    """
    wanted, given = _WORDS.findall(expected), _WORDS.findall(answer)
    matcher = SequenceMatcher(None, wanted, given)
    if matcher.ratio() < LEAST_SHARED:
        return (Piece("extra", answer),) if answer else ()
    pieces: list[Piece] = []
    missing = extra = ""
    for tag, start, stop, given_start, given_stop in matcher.get_opcodes():
        old, new = "".join(wanted[start:stop]), "".join(given[given_start:given_stop])
        # A space between two changes is not a match, and would split them.
        if tag == "equal" and not (old.isspace() and (missing or extra)):
            pieces += (Piece("missing", missing), Piece("extra", extra), Piece("same", old))
            missing = extra = ""
        else:
            missing, extra = missing + old, extra + new
    pieces += (Piece("missing", missing), Piece("extra", extra))
    return tuple(piece for piece in pieces if piece.text)
