"""Define the parts of a comparison as dataclasses, which take a third of pydantic's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict

from unitune.data.example import Message
from unitune.data.tools import ToolResult
from unitune.documents import Closed
from unitune.job.dialogue import REACHED
from unitune.job.evaluate import RETENTION_METRICS
from unitune.models import ToolCalls

if TYPE_CHECKING:
    from unitune.evaluate.statistics.paired import PairedResult


Number = TypeVar("Number", int, float)


def total(known: Sequence[Number | None]) -> Number | None:
    """Return the sum of numbers; None without any, or if one is unknown."""
    numbers = [each for each in known if each is not None]
    return sum(numbers[1:], numbers[0]) if numbers and len(numbers) == len(known) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncounted:
    """Maximum tokens that may be charged in addition to those counted for the answer."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def total(cls, *parts: Uncounted | None) -> Uncounted | None:
        """Return the sum of the parts that are not None, or None."""
        known = [part for part in parts if part is not None]
        if not known:
            return None
        return cls(
            prompt_tokens=sum(part.prompt_tokens for part in known),
            completion_tokens=sum(part.completion_tokens for part in known),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResults:
    """Results of the tools that an answer called."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    tools: str  # fingerprint of the tools
    results: tuple[ToolResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Turns of a dialogue after its question; those of the user are simulated."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    messages: tuple[Message, ...]
    tool_errors: int = 0  # results that are errors

    @property
    def turns(self) -> int:
        """Number of answers."""
        return sum(turn.role == "assistant" for turn in self.messages)

    @property
    def around_answer(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """Turns before the last answer, and the simulated user's last words after it."""
        at = max(
            (at for at, turn in enumerate(self.messages) if turn.role == "assistant"), default=0
        )
        return self.messages[:at], self.messages[at + 1 :]

    @property
    def end(self) -> str:
        """Reason for its end, if not an answer: the simulated user's last words, or `max_turns`."""
        if not self.messages:
            return ""
        last, simulated = self.messages[-1], any(turn.role == "user" for turn in self.messages)
        if last.role == "user":
            reached = REACHED in last.text
            return "the user reached its goal" if reached else "the user gave up"
        cut_off = last.tool_calls or (simulated and last.text.strip())
        return "ended at max_turns" if cut_off else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Answer of one contender to one case as received."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    contender: str
    case: str  # `Example.case_id`
    # Number of the repeat, from 0; those after the last repeat are changed questions
    repeat: int = 0
    model: str = ""  # fingerprint of the model that answered
    # Model named by the job: ``BACKEND:MODEL``, ``URL:MODEL``, ``training:FINGERPRINT`` for the
    # tuned one, ``run:ID:FINGERPRINT`` for one of a named run, or the hash of recorded answers
    origin: str = ""
    # Hash of everything that determines the answer: model fingerprint, messages, sampling settings
    request_hash: str
    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    # Part of them spent on reasoning, if the vendor reports it
    reasoning_tokens: int | None = None
    reasoning: str | None = None  # text before the answer, if the vendor shows it
    max_tokens: int | None = None  # maximum tokens of the answer
    # Settings that the model rejected and that were left out; `request_hash` is that of the full
    # request
    left_out: tuple[str, ...] | None = None
    seconds: float | None = None
    tool_calls: ToolCalls | None = None
    tool_results: ToolResults | None = None  # of the calls, if a dialogue continued
    trajectory: Trajectory | None = None  # of a whole dialogue, whose tokens are added up
    given: dict[str, float] | None = None  # `Reply.given`
    error: str | None = None
    # Maximum tokens charged to the budget, if the vendor's count was missing or impossible
    uncounted: Uncounted | None = None
    # True if the answer is from the same request in another comparison
    cached: Literal[True] | None = None

    @property
    def cut(self) -> bool:
        """True if the answer reached `max_tokens` before its end."""
        return self.error is None and self.finish_reason == "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Recorded answer with its scores."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    text: str
    scores: dict[str, float]  # by scorer; 0 for a case in error
    # Reasons for scores, by scorer, if the scorer gives one
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    # Scorers that failed on it; their score is 0, and the reason explains it
    failed: tuple[str, ...] = ()
    # By measure; unknown ones are left out
    measures: dict[str, float] = field(default_factory=dict[str, float])
    tool_calls: ToolCalls | None = None
    trajectory: Trajectory | None = None  # of a dialogue
    reasoning: str | None = None  # `Record.reasoning`; never scored
    error: str | None = None  # reason why there is no answer, or the primary scorer failed
    cut: bool = False  # reached `max_tokens` before its end
    # Cut off, and a complete answer might have another score by the primary scorer
    open: bool = False

    @property
    def known(self) -> bool:
        """True if the answer can be scored."""
        return self.error is None and not self.open


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseJudgement:
    """Judgement of a contender's answer, or of the candidate's answer next to another one."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    judge: str  # name of the scorer
    contender: str  # for a pair, the contender that the candidate was compared with
    repeat: int = 0  # number of the answer's repeat
    # Rubric: score of the answer. Pair: 1 if the candidate is better, -1 if the other one is, else
    # 0. None without a complete judgement
    value: float | None = None
    # Rubric: a step for each clause. Pair: who is better, in each order; empty for a tie
    verdicts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()  # reason of each verdict
    error: str | None = None  # why there is no value


class ClauseResult(Closed):
    """Agreement of a judge with people on one clause of its rubric."""

    clause: str
    labels: int
    """Answers of all contenders on which people decided the clause."""
    people: float
    """Share of them that pass according to people."""
    judge: float
    """Share of them that pass according to the judge."""
    agreement: float | None = None
    """Cohen's kappa; None if all verdicts are equal."""
    agreement_interval: tuple[float, float] | None = None


class SimulatedUserResult(Closed):
    """Figures of the simulated user of dialogues, over all its messages recorded in a folder."""

    model: str
    """Fingerprint of its model."""
    settings: str
    """Sampling of its messages, in words."""
    requests: int
    """Number of its messages, on dev and on the test."""
    failed: int
    """Requests without a message. Their dialogues are errors."""
    usd: Decimal | None
    """Cost of its messages, an upper bound where tokens were not counted; None if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """Case with the answer of every contender."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    id: str
    messages: tuple[Message, ...]  # the question without instructions or shots of a contender
    expected: str
    asserted: str = ""  # further requirements of scorers, one line each
    answers: dict[str, Answer]  # by contender name
    required: bool = False  # True if the gate requires the candidate to get it right
    slices: tuple[str, ...] = ()  # names of its slices
    # Cluster of the case; None if the cases are not clustered
    cluster: str | None = None
    judgements: tuple[CaseJudgement, ...] = ()  # by judges, if any
    # Clauses of the first judge's rubric of pass and fail; empty without one
    clauses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRun:
    """Run of a sweep with its score on dev rows."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name: str  # its values
    run: str | None = None  # its id; None if the ledger has no such run with a model
    # By the deciding metric over its dev rows; None if no model was scored
    score: float | None = None
    rows: int = 0
    errors: int = 0  # dev rows without an answer, which count as wrong
    chosen: bool = False  # True if its model is the one compared


class UseOfTest(Closed):
    """Earlier uses of the test, and the correction for them."""

    known: bool = True
    """True if a ledger could be read; otherwise earlier comparisons are unknown."""
    comparison: int
    """Number of this comparison on these cases, from 1."""
    comparisons: int
    """Number of comparisons so far. Reusing a candidate's recorded answers adds none."""
    candidate: int
    """Number of this candidate on these cases, from 1."""
    candidates: int
    divisor: int
    """Number by which Holm's procedure divides the error rate."""
    sizes: tuple[int, ...]
    """Cases at each comparison of this candidate by this job, as the test grew."""
    planned: int = 1
    """Number of planned comparisons (`gate.looks`)."""
    level: float
    """Confidence level of the difference's interval, corrected for all uses of the test."""
    p_adjusted: float
    """P-value, corrected for all uses of the test."""
    new_answers: str | None = None
    """Reason for new answers from a known candidate (`--new-answers`)."""

    @property
    def is_first(self) -> bool:
        """True if no other use is known or planned."""
        return self.known and self.comparisons == self.planned == len(self.sizes) == 1

    def __str__(self) -> str:
        """Return sentences on this use of the test and its correction."""
        if not self.known:
            return (
                "It is unknown how often these cases were used before, because no ledger could be "
                "read."
            )
        if self.comparisons == 1:
            text = "First comparison on these cases in this ledger."
        else:
            text = (
                f"Comparison {self.comparison} of {self.comparisons} on these cases, candidate "
                f"{self.candidate} of {self.candidates}."
            )
        if self.divisor > 1:
            text += f" Interval and p-value are adjusted for {self.divisor} of them (Holm)."
        if self.new_answers:
            text += f" New answers were requested because: {self.new_answers}"
        looks, before = len(self.sizes), ", ".join(f"{size:,}" for size in self.sizes[:-1])
        if self.planned > 1:
            level = f"{100 * self.level:.5g} %"
            text += (
                f" Look {looks} of {self.planned} planned, so the interval has the level {level}."
            )
        elif looks > 1:
            text += (
                f" This candidate was compared on {before} cases before. If you grow the test "
                "until a comparison is good enough, plan the looks: evaluate.gate.looks."
            )
        return text


# Fields of a paired result that have another meaning in documents
OWN_MEANING = {"baseline", "candidate", "verdict"}


class Difference(Closed):
    """Figures of a paired result that all documents share."""

    n: int
    """Number of cases."""
    difference: float
    """Candidate minus baseline, or now minus then."""
    interval: tuple[float, float]
    """Interval at the comparison's level."""
    p_value: float
    """Two-sided p-value, not corrected for multiple tests."""

    @classmethod
    def figures(cls, result: PairedResult) -> dict[str, Any]:
        """Return the figures of a result that this document has under the same names."""
        shared = {each.name for each in fields(result)} & cls.model_fields.keys() - OWN_MEANING
        known = {name: getattr(result, name) for name in shared}
        return known | {"interval": result.interval.ends}


class Contrast(Difference):
    """Candidate compared with a baseline by another metric, on some cases, or with a reference.

    Its interval is not adjusted for other contrasts.
    """

    name: str
    """Name of the metric, of the slice, such as ``language = de``, or of a reference."""
    baseline: float
    candidate: float
    p_adjusted: float
    """P-value adjusted within its kind: Benjamini-Hochberg for slices, Holm for the others."""

    @classmethod
    def of(cls, name: str, result: PairedResult, p_adjusted: float) -> Contrast:
        """Return a paired result as a contrast."""
        return cls(
            **cls.figures(result),
            name=name,
            baseline=result.baseline,
            candidate=result.candidate,
            p_adjusted=p_adjusted,
        )


class MeasureContrast(Contrast):
    """Candidate compared with a baseline by a measure, in its own unit."""

    type: str
    """Type of the measure; `stability` for those of `evaluate.robustness`."""


class Retention(Closed):
    """What tuning cost a model: general questions and a general text, compared with its base.

    The p-values are adjusted for the number of these comparisons (Holm).
    """

    contender: str
    base_model: str
    questions: Contrast | None = None
    """Share of general questions answered right, candidate minus untuned base; None if unknown."""
    gained: int = 0
    lost: int = 0
    """Questions that only the untuned base got right."""
    categories: dict[str, tuple[int, int, int]] = {}  # noqa: RUF012 - pydantic copies it
    """Number of questions, and of right answers of base and tuned model, by category."""
    text: Contrast | None = None
    """Loss on the general text in nats per token, over its passages; None if unknown."""
    problem: str = ""
    """Reason why not all questions were answered; else empty."""

    @property
    def contrasts(self) -> dict[str, Contrast]:
        """Known comparisons, by field."""
        both = {"questions": self.questions, "text": self.text}
        return {name: contrast for name, contrast in both.items() if contrast}

    @property
    def metrics(self) -> dict[str, float]:
        """Known values of `gate.constraints`."""
        both = zip(RETENTION_METRICS, (self.questions, self.text), strict=True)
        return {name: contrast.difference for name, contrast in both if contrast}
