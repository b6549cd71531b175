"""Parts of a comparison: `Record` as an answer came, `Answer` with its scores, `CaseResult` of all.

A `Record` is a line of ``rows.jsonl``; every total of a comparison is computed from records. They
are dataclasses: there are as many as questions, and a pydantic model takes three times the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import ConfigDict

from unitune.data.example import Message
from unitune.models import ToolCalls
from unitune.security.spec import Closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncounted:
    """The most tokens that may have to be paid for beside those counted for the answer."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def total(cls, *parts: Uncounted | None) -> Uncounted | None:
        """Return the sum of those that are not None; None when there is none."""
        known = [part for part in parts if part is not None]
        if not known:
            return None
        return cls(
            prompt_tokens=sum(part.prompt_tokens for part in known),
            completion_tokens=sum(part.completion_tokens for part in known),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One answer of one contender to one case, as it came."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    contender: str
    case: str  # `Example.case_id`
    repeat: int = 0  # which repeat of the request, from 0
    model: str = ""  # fingerprint of the model that answered
    # Which model the job named: ``BACKEND:MODEL``, ``URL:MODEL``, ``training:FINGERPRINT`` of the
    # tuned one, ``run:ID:FINGERPRINT`` of one whose run it names, or the hash of recorded answers
    origin: str = ""
    # Hash of model fingerprint, messages and sampling settings: what determines the answer
    request_hash: str
    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    # Those of them that were spent on thoughts, where the vendor says so
    reasoning_tokens: int | None = None
    max_tokens: int | None = None  # the longest answer that was allowed
    # Settings that the model refused, and that were left out; `request_hash` is that of the request
    # as it was meant, which says which settings may be left out
    left_out: tuple[str, ...] | None = None
    seconds: float | None = None
    tool_calls: ToolCalls | None = None
    given: dict[str, float] | None = None  # `Reply.given`
    error: str | None = None
    # What the budget was charged where the vendor gave no possible count
    uncounted: Uncounted | None = None
    # The answer was given to the same request in another comparison
    cached: Literal[True] | None = None

    @property
    def cut(self) -> bool:
        """Whether the answer reached `max_tokens` before its end."""
        return self.error is None and self.finish_reason == "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A recorded answer with its scores."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    text: str
    scores: dict[str, float]  # by scorer; 0 for a case in error
    # Why a score is what it is, by scorer, where the scorer says so
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    # Scorers that could not score it; their score is 0, and the reason says why
    failed: tuple[str, ...] = ()
    # By measure; those that are not known are left out
    measures: dict[str, float] = field(default_factory=dict[str, float])
    tool_calls: ToolCalls | None = None
    error: str | None = None  # why there is no answer, or why the primary scorer cannot score it
    cut: bool = False  # it reached `max_tokens` before its end
    # It was cut, and with its end it might have had another score by the primary scorer
    open: bool = False

    @property
    def known(self) -> bool:
        """Whether it is known how good the answer is."""
        return self.error is None and not self.open


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case with the answer of every contender."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    id: str
    messages: tuple[Message, ...]  # the question, before any contender's instructions or shots
    expected: str
    asserted: str = ""  # what a scorer wants of its answer beside that, one line each
    answers: dict[str, Answer]  # by contender name
    required: bool = False  # the gate requires that the candidate gets it right
    slices: tuple[str, ...] = ()  # names of the slices that it belongs to
    # Cases of equal clusters belong together; None where each stands alone
    cluster: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRun:
    """One run of a sweep, as dev scored it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name: str  # its values
    run: str | None = None  # its id; None where the ledger has none with a model
    # By the metric that decides, over its dev rows; None: no model was scored
    score: float | None = None
    rows: int = 0
    errors: int = 0  # dev rows without an answer; they count as wrong
    chosen: bool = False  # whether its model is the one that is judged


class UseOfTest(Closed):
    """How often the test was used, and how the claim is corrected for it."""

    known: bool = True
    """Whether a ledger could be read; where not, nothing is known of earlier comparisons."""
    comparison: int
    """Which comparison on these cases it is, counted from 1."""
    comparisons: int
    """How many there are so far. Recorded answers of a known candidate make no new one."""
    candidate: int
    """Which candidate on these cases it is, counted from 1."""
    candidates: int
    divisor: int
    """The number by which Holm's procedure divides the error rate."""
    sizes: tuple[int, ...]
    """Cases at each comparison of this candidate by this job, while the test grew."""
    planned: int = 1
    """How many of them were planned (`gate.looks`)."""
    level: float
    """Level of the difference's interval. Over all uses it amounts to that of the comparison."""
    p_adjusted: float
    """The p-value, corrected likewise."""
    new_answers: str | None = None
    """Why a known candidate was given new answers (`--new-answers`)."""

    @property
    def is_first(self) -> bool:
        """Whether no other use is known, and none is planned."""
        return self.known and self.comparisons == self.planned == len(self.sizes) == 1

    def __str__(self) -> str:
        """Return which use of the test it is, and what follows, in sentences."""
        if not self.known:
            return "Not known how often these cases were used before: no ledger could be read."
        if self.comparisons == 1:
            text = "First comparison on these cases that this ledger knows of."
        else:
            text = (
                f"Comparison {self.comparison} of {self.comparisons} on these cases, candidate "
                f"{self.candidate} of {self.candidates}."
            )
        if self.divisor > 1:
            text += f" Interval and p-value are adjusted for {self.divisor} of them (Holm)."
        if self.new_answers:
            text += f" Answered anew because: {self.new_answers}"
        looks, before = len(self.sizes), ", ".join(f"{size:,}" for size in self.sizes[:-1])
        if self.planned > 1:
            level = f"{100 * self.level:.5g} %"
            text += f" Look {looks} of {self.planned} planned, so the interval is one of {level}."
        elif looks > 1:
            text += (
                f" This candidate was compared on {before} cases before. If the test grows until "
                "one comparison is good enough, plan the looks: evaluate.gate.looks."
            )
        return text
