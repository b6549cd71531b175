"""What a comparison found: frozen data that the terminal, the report, JSON and the gate read.

`Record` is one recorded answer, a line of ``rows.jsonl``; every total here is computed from
records. `Comparison` is what `unitune.compare` returns; ``verdict.json`` is `Comparison` without
its cases. Nothing here computes.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from unitune.data.example import Message
from unitune.job import Role
from unitune.models import ToolCalls


class Frozen(BaseModel):
    """Frozen data."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(Frozen):
    """One answer of one contender to one case, as it was given."""

    contender: str
    case: str
    """`Example.case_id`."""
    request_hash: str
    """Hash of model fingerprint, messages and sampling settings: what determines the answer."""
    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    tool_calls: ToolCalls | None = None
    given: dict[str, float] | None = None
    """`Reply.given`."""
    error: str | None = None


class Answer(Frozen):
    """A recorded answer with its scores."""

    text: str
    scores: dict[str, float]
    """By scorer; 0 for a case in error."""
    reasons: dict[str, str] = {}
    """Why a score is what it is, by scorer, where the scorer says so."""
    failed: tuple[str, ...] = ()
    """Scorers that could not say; their score is 0, and the reason says why."""
    measures: dict[str, float] = {}
    """By measure; those that are not known are left out."""
    tool_calls: ToolCalls | None = None
    error: str | None = None
    """Why there is no answer, or why the primary scorer cannot score it."""


class CaseResult(Frozen):
    """One case with the answer of every contender."""

    id: str
    messages: tuple[Message, ...]
    """What was asked, before any contender's instructions or shots."""
    expected: str
    answers: dict[str, Answer]
    """By contender name."""


class Confusion(Frozen):
    """Which label was answered how often where which was expected."""

    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    """By expected label, then by answered one, which is "" for none; what is 0 is left out."""


class ContenderResult(Frozen):
    """How one contender did over all cases."""

    name: str
    type: str
    role: Role
    score: float
    """Mean of the primary metric, from 0 to 1."""
    interval: tuple[float, float]
    """Of the score, at the comparison's level."""
    n: int
    errors: int
    scores: dict[str, float]
    """Of every metric, over all cases: their mean, or what the metric makes of them together."""
    measures: dict[str, float] = {}
    """Mean of every measure over the cases where it is known."""
    confusion: dict[str, Confusion] = {}
    """By metric, for those that look for labels."""
    prompt_tokens: int | None
    """All cases together."""
    completion_tokens: int | None
    usd: Decimal | None
    """None: no charge known; local models have none."""
    seconds: float | None
    """Wall time of all cases together."""
    effort: str
    """What was tried on dev to make it good, in words; the training's settings for tuned."""


class GateResult(Frozen):
    """What the gate says."""

    mode: Literal["improve", "no-regress", "absolute"]
    passed: bool
    exit_code: Literal[0, 1, 3, 4]
    reason: str


class LeakResult(Frozen):
    """Test cases that stand in the training rows."""

    action: Literal["refuse", "drop", "allow"]
    cases: tuple[str, ...] = ()
    """Ids of the cases found in train."""


class Curve(Frozen):
    """Loss over a training."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    validation_steps: tuple[int, ...] = ()
    validation_losses: tuple[float, ...] = ()


class Comparison(Frozen):
    """Contenders side by side, with the verdict."""

    schema_version: Literal[1] = 1
    job: str
    """Name of the job."""
    run: str | None
    """Id of the run that made the tuned model."""
    base_model: str
    backend: str
    created: str
    """ISO date and time, UTC."""
    verdict: Literal["better", "worse", "equivalent", "non-inferior", "inconclusive"]
    metric: str
    candidate: str
    baseline: str
    """The best baseline, chosen on dev."""
    difference: float
    """Candidate minus baseline."""
    interval: tuple[float, float]
    level: float = 0.95
    p_value: float
    method: str
    """Interval and test, in words with their sources' names."""
    n: int
    gained: int
    """Cases that the candidate alone got right."""
    lost: int
    margin: float
    cases_needed: int
    """Cases that the margin needs at the seen discordance and 80 % power."""
    smallest_detectable: float
    """Smallest true difference that this n finds with 80 % power."""
    contenders: tuple[ContenderResult, ...]
    gate: GateResult | None = None
    leaks: LeakResult
    dev_rows: int
    notes: tuple[str, ...] = ()
    """What a reader must know: dropped cases, a baseline with no effort, dequantised weights …"""
    curve: Curve | None = None
    provenance: dict[str, str] = {}
    """What else determined the result, by name, for people: fingerprints, versions, seeds …"""
    cases: tuple[CaseResult, ...] = Field(default=(), repr=False)

    @property
    def exit_code(self) -> int:
        """The gate's exit code; 0 without a gate."""
        return self.gate.exit_code if self.gate else 0

    def verdict_json(self) -> str:
        """Return the content of ``verdict.json``: everything but the cases."""
        return self.model_dump_json(exclude={"cases"}, indent=2) + "\n"
