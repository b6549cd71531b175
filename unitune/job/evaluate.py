"""How contenders are judged on the test cases, and the gate that passes or fails CI."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from unitune.job.contenders import (
    ContenderSpec,
    FewShot,
    Instructed,
    Model,
    Recorded,
    Server,
    Tuned,
    ZeroShot,
)
from unitune.job.tuning import Auto, Budget
from unitune.scorers import ScorerSpec
from unitune.scorers.functions import RecordedScore
from unitune.scorers.interface import Kind, Scorer
from unitune.scorers.text import Exact
from unitune.security.spec import Spec


class Constraint(Spec):
    """A line that the candidate's score by a scorer, or a measure of it, must keep to."""

    metric: str
    """Name of a scorer or measure."""
    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The lowest that passes."""
    at_most: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The highest that passes."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give either at_least or at_most")
        return self


class Gate(Spec):
    """The rule that passes or fails CI."""

    mode: Literal["improve", "no-regress", "absolute"]
    """improve: better than the best prompt. no-regress: not worse by more than the margin.
    absolute: the candidate's own score reaches the threshold."""
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """For mode absolute: the score to reach, above 0 and at most 1."""
    min_cases: Annotated[int, Field(ge=1)] = 20
    """With fewer scored cases the gate is inconclusive."""
    looks: Annotated[int, Field(ge=1, le=100)] = 1
    """Planned number of comparisons of one candidate while the test grows. Each comparison spends
    its part of the error rate (O'Brien-Fleming)."""
    required_cases: tuple[str, ...] = ()
    """Ids of cases that the candidate must get right, besides rows with ``required: true``."""
    required_score: Annotated[float, Field(gt=0, le=1)] = 1.0
    """A required case that scores less is broken."""
    baseline: str | None = None
    """For mode no-regress: a file of scores, kept beside the job, that the candidate is held
    against; `compare --update-baseline` writes it. Without one it is the best baseline."""
    constraints: tuple[Constraint, ...] = ()
    """Further lines that the candidate must keep to, such as ``{metric: json_valid, at_least:
    0.99}``; each takes a score as it is, without an interval."""

    @model_validator(mode="after")
    def _settings_of_the_mode(self) -> Self:
        if self.baseline is not None and self.mode != "no-regress":
            raise ValueError(f"mode {self.mode} takes no baseline file, only no-regress does")
        if (self.mode == "absolute") != (self.threshold is not None):
            raise ValueError(
                "mode absolute needs a threshold above 0 and at most 1, and no other mode takes one"
            )
        return self


class TokenPrice(Spec):
    """What a model's tokens cost, in US dollars a million tokens."""

    input: Annotated[Decimal, Field(ge=0)]
    output: Annotated[Decimal, Field(ge=0)]

    def at_least(self, known: TokenPrice) -> TokenPrice:
        """Return the dearer of two prices, for input and for output."""
        return TokenPrice(input=max(self.input, known.input), output=max(self.output, known.output))


class Economics(Spec):
    """What is paid and gained besides the price of an answer; what is left out is unknown."""

    fixed_cost_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """Training, data, evaluation and hosting over the horizon, in US dollars."""
    requests: Annotated[int, Field(ge=1)] | None = None
    """How many answers the horizon needs."""
    value_per_correct_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """Worth of one more right answer, in US dollars."""


class Evaluate(Spec):
    """How contenders are judged on the test cases."""

    scorers: tuple[ScorerSpec, ...] = (Exact(),)
    """What counts as right, and what else is measured; see `unitune.scorers`."""
    primary: str | None = None
    """Name of the scorer that decides, never a measure; by default the first."""
    contenders: tuple[ContenderSpec, ...] = (ZeroShot(), Instructed(), FewShot(), Tuned())
    """Who competes: zero-shot, instructed, few-shot, tuned, model, server, recorded."""
    instructions: str | None = None
    """Instructions of the instructed contender; made from train alone when absent."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Differences smaller than this do not matter to the team."""
    clusters: str | None = None
    """A custom key in the test rows: cases with equal values belong together, such as those
    of one customer or one document."""
    slices: tuple[str, ...] = ()
    """Custom keys in the test rows: each of their values is looked at on its own, too."""
    leaks: Literal["refuse", "drop", "allow"] = "refuse"
    """What to do with test cases, and rows of a validation file, that stand in train: equal, near
    duplicates, or quoted."""
    max_tokens: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Longest answer in tokens; `auto` gives ample room, and more to models that think."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """How often each test case is answered; its scores are averaged."""
    temperature: Annotated[float, Field(ge=0, le=2)] | Auto = "auto"
    """0 is greedy; above, repeats differ by the seed that each request carries. `auto` is 0, and a
    model that takes no temperature gets none; a number that it does not take is an error."""
    response_schema: dict[str, JsonValue] | None = None
    """JSON Schema that every answer must follow. Each model is held to it by its own means: a
    vendor's structured output, or a grammar on this machine."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Requests in flight at most; fewer when the vendor limits the rate."""
    prices: dict[str, TokenPrice] = Field(default={})
    """By contender, or by model for all contenders that use it. They never lower a price that is
    known without the job: the dearer one applies."""
    budget: Budget | None = None
    """The most that the answers may cost; needs the price of every contender that costs money."""
    economics: Economics = Economics()
    """With `prices`: whether the candidate is worth its money."""
    gate: Gate | None = None
    """When set, `compare` exits by it."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        for kind, names in (
            ("scorers", [scorer.name for scorer in self.scorers]),
            ("contenders", [contender.name for contender in self.contenders]),
        ):
            if not names:
                raise ValueError(f"{kind} must not be empty")
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{kind} names must differ; twice: {', '.join(sorted(twice))}")
        quality = self._quality
        if not quality:
            raise ValueError("the scorers only measure; add one that says what is right, as exact")
        if self.primary is not None and self.primary not in quality:
            raise ValueError(f"primary is {self.primary!r}, but scorers are {', '.join(quality)}")
        return self

    @model_validator(mode="after")
    def _constraints_look_at_scorers(self) -> Self:
        names = [scorer.name for scorer in self.scorers]
        for constraint in self.gate.constraints if self.gate else ():
            if constraint.metric not in names:
                raise ValueError(
                    f"gate.constraints names {constraint.metric!r}, but scorers are "
                    f"{', '.join(names)}"
                )
        return self

    @model_validator(mode="after")
    def _recorded_scores_of_recorded_answers(self) -> Self:
        afresh = [each.name for each in self.contenders if not isinstance(each, Recorded)]
        for scorer in self.scorers:
            if isinstance(scorer, RecordedScore) and scorer.file is None and afresh:
                raise ValueError(
                    f"the scorer {scorer.name!r} reads scores beside recorded answers, and "
                    f"{', '.join(afresh)} answers afresh; give the scorer a `file` with scores, or "
                    "take another scorer, such as exact"
                )
        return self

    def price_of(self, spec: ContenderSpec, base_model: str) -> TokenPrice | None:
        """Return the job's price of a contender; of an untuned one also by its model's name."""
        if isinstance(spec, Tuned | Recorded):
            return self.prices.get(spec.name)
        model = spec.model if isinstance(spec, Model | Server) else base_model
        return self.prices.get(spec.name) or self.prices.get(model)

    @property
    def needs_expected(self) -> bool:
        """Whether a case must say what is expected, because some scorer reads it."""
        return any(scorer.needs_expected for scorer in self.scorers)

    @property
    def _quality(self) -> list[str]:
        return [scorer.name for scorer in self.scorers if isinstance(scorer, Scorer)]

    @property
    def primary_scorer(self) -> str:
        """Name of the scorer that decides the verdict."""
        return self.primary or self._quality[0]

    @property
    def deciding(self) -> Scorer:
        """The scorer that decides the verdict."""
        (scorer,) = (each for each in self.scorers if each.name == self.primary_scorer)
        assert isinstance(scorer, Scorer), "a measure decides nothing"
        return scorer

    @property
    def graded(self) -> bool:
        """Whether a case may score something between right and wrong."""
        return self.repeats > 1 or self.deciding.kind is not Kind.BINARY
