"""Define the evaluation of contenders, and the gate that passes or fails CI."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StrictBool, model_validator

from unitune.documents import Spec
from unitune.job.contenders import (
    ContenderSpec,
    FewShot,
    Instructed,
    Model,
    Recorded,
    Server,
    Tuned,
    ZeroShot,
    model_of,
)
from unitune.job.dialogue import Dialogue, SimulatedUser
from unitune.job.tuning import Auto, Budget
from unitune.scorers import ScorerSpec
from unitune.scorers.functions import RecordedScore
from unitune.scorers.interface import Entry, Kind, Scorer
from unitune.scorers.json_text import ToolCalls
from unitune.scorers.judge import Judge
from unitune.scorers.measures import Change, Measure, PassK, Stability, ToolErrors, Turns, Unstable
from unitune.scorers.text import Exact
from unitune.scorers.trajectory import Trajectory

# What tuning cost, in `Gate.constraints`: differences of the share of general questions answered
# right and of the loss on the general text, tuned minus untuned model
RETENTION_METRICS = ("retention", "general_loss")
GENERAL_QUESTIONS = 300  # number of general questions that exist
# Number asked by default: about a tenth of the time of the tutorial's comparison
AUTO_QUESTIONS = 100


class Constraint(Spec):
    """Bounds on the candidate's value by a scorer or measure, or on what tuning cost it."""

    metric: str
    """Name of a scorer or measure; `retention` (tuned minus untuned model, as a share of general
    questions, such as ``at_least: -0.05``) or `general_loss` (rise of the loss on a general text,
    in nats per token)."""
    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Lowest value that passes."""
    at_most: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Highest value that passes."""
    test: str | None = None
    """Named test set that the value of a scorer is about; by default all cases."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give either at_least or at_most")
        return self


class Gate(Spec):
    """Rule that passes or fails CI."""

    mode: Literal["improve", "no-regress", "absolute"]
    """improve: better than the best prompt. no-regress: not worse by more than the margin.
    absolute: the candidate's score reaches the threshold."""
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Score to reach in mode absolute, above 0 and at most 1."""
    min_cases: Annotated[int, Field(ge=1)] = 20
    """Minimum number of scored cases; with fewer the gate is inconclusive."""
    looks: Annotated[int, Field(ge=1, le=100)] = 1
    """Planned number of comparisons of one candidate while the test grows. Each comparison spends
    its part of the error rate (O'Brien-Fleming)."""
    required_cases: tuple[str, ...] = ()
    """Ids of cases that the candidate must get right, in addition to rows with ``required:
    true``."""
    required_score: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Minimum score of a required case, and of a right answer in figures of reliability."""
    min_case_pass_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the repeats of every single case that the candidate must get right."""
    baseline: str | None = None
    """File of scores to compare with in mode no-regress, next to the job; `compare
    --update-baseline` writes it. By default the best baseline."""
    constraints: tuple[Constraint, ...] = ()
    """Further bounds for the candidate, such as ``{metric: json_valid, at_least: 0.99}``; they
    apply to point values, without an interval."""

    @model_validator(mode="after")
    def _settings_of_the_mode(self) -> Self:
        if self.baseline is not None and self.mode != "no-regress":
            raise ValueError(
                f"mode {self.mode} does not take a baseline file; only no-regress does"
            )
        if (self.mode == "absolute") != (self.threshold is not None):
            raise ValueError(
                "mode absolute needs a threshold above 0 and at most 1; other modes take none"
            )
        return self


class TokenPrice(Spec):
    """Price of a model's tokens, in US dollars per million tokens."""

    input: Annotated[Decimal, Field(ge=0)]
    output: Annotated[Decimal, Field(ge=0)]

    def at_least(self, known: TokenPrice) -> TokenPrice:
        """Return the higher of two prices, for input and for output."""
        return TokenPrice(input=max(self.input, known.input), output=max(self.output, known.output))


class Economics(Spec):
    """Costs and gains apart from the price of answers; missing values are unknown."""

    fixed_cost_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """Training, data, evaluation and hosting over the time horizon, in US dollars."""
    requests: Annotated[int, Field(ge=1)] | None = None
    """Number of requests over the time horizon."""
    value_per_correct_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """Value of one more right answer, in US dollars."""


class Evaluate(Spec):
    """Evaluation of contenders on the test cases."""

    scorers: tuple[ScorerSpec, ...] = (Exact(),)
    """Scorers that define a right answer, and measures; see `unitune.scorers`."""
    primary: str | None = None
    """Name of the scorer that decides; by default the first. Measures cannot decide."""
    contenders: tuple[ContenderSpec, ...] = (ZeroShot(), Instructed(), FewShot(), Tuned())
    """Models to compare: zero-shot, instructed, few-shot, tuned, model, server, recorded."""
    instructions: str | None = None
    """Instructions of the instructed contender; by default made from train."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Smallest difference that matters to the team."""
    clusters: str | None = None
    """Custom key of test rows; cases with equal values belong together, such as those of one
    customer or document."""
    slices: tuple[str, ...] = ()
    """Custom keys of test rows; each of their values is also evaluated separately."""
    leaks: Literal["refuse", "drop", "allow"] = "refuse"
    """Treatment of test cases, and rows of a validation file, that are also in train: equal, near
    duplicates, or quoted."""
    max_tokens: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Longest answer in tokens; `auto` leaves ample room, and more for reasoning models."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """Number of answers per test case, whose scores are averaged. From 2 on, the measures pass^2,
    pass^REPEATS and unstable are reported."""
    robustness: tuple[Change, ...] = ()
    """Harmless changes of each test question that are also requested: `case` writes it in lower
    case, `whitespace` doubles its spaces, `option_order` reverses its list of options. The measures
    stable_case, stable_whitespace and stable_option_order are the shares of scores that stay."""
    temperature: Annotated[float, Field(ge=0, le=2)] | Auto = "auto"
    """Sampling temperature; 0 is greedy. Above 0, repeats use different seeds. `auto` is 0, or none
    for a model that does not support it; an explicit value is then an error."""
    response_schema: dict[str, JsonValue] | None = None
    """JSON Schema that every answer must follow, by a vendor's structured output or a local
    grammar."""
    dialogue: Dialogue | None = None
    """Several turns with tools in each case; by default a case has one answer."""
    labels: str | None = None
    """File with verdicts of people on test cases (JSON Lines or CSV: case, reviewer, verdict,
    note). With at least 30 labelled cases, the verdict of a judge rests on them."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Maximum number of concurrent requests; fewer if the vendor limits the rate."""
    prices: dict[str, TokenPrice] = Field(default={})
    """Prices by contender, or by model for all contenders that use it. They never lower a known
    price: the higher one applies."""
    budget: Budget | None = None
    """Maximum cost of the answers; requires the price of every contender that costs money."""
    economics: Economics = Economics()
    """Costs and gains, with `prices`, that decide whether the candidate pays off."""
    retention: StrictBool | Annotated[int, Field(ge=20, le=GENERAL_QUESTIONS)] | Auto = "auto"
    """Number of general questions for each tuned model and its untuned base, to measure what tuning
    cost; true asks all. `auto` asks 100 of models on this machine, and of others only if the gate
    constrains the result."""
    gate: Gate | None = None
    """Gate that sets the exit code of `compare`."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        user = {self.user.name} if self.user else set[str]()
        for kind, names in (
            ("scorers", [scorer.name for scorer in self.scorers]),
            ("contenders", [contender.name for contender in self.contenders]),
        ):
            if not names:
                raise ValueError(f"{kind} must not be empty")
            if taken := user.intersection(names):
                raise ValueError(f"{kind}: {taken.pop()} is the name of evaluate.dialogue.user")
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(
                    f"{kind} names must be unique; repeated: {', '.join(sorted(twice))}"
                )
        quality = self._quality
        if not quality:
            raise ValueError("the scorers only measure; add one that scores, such as exact")
        if self.primary is not None and self.primary not in quality:
            raise ValueError(
                f"primary is {self.primary!r}, but the scorers are {', '.join(quality)}"
            )
        return self

    @model_validator(mode="after")
    def _enough_repeats(self) -> Self:
        for measure in self.measures:
            needed = measure.k if isinstance(measure, PassK) else 2
            if isinstance(measure, PassK | Unstable) and self.repeats < needed:
                repeats = f"evaluate.repeats of at least {needed}, not {self.repeats}"
                raise ValueError(f"{measure.name} needs {repeats}")
        return self

    @model_validator(mode="after")
    def _scorers_fit_the_dialogue(self) -> Self:
        recorded = [each.name for each in self.contenders if isinstance(each, Recorded)]
        for scorer in self.scorers:
            self.check_turns(scorer)
            if isinstance(scorer, Trajectory) and recorded:
                why = f"reads several turns, but {recorded[0]!r} has recorded answers of one turn"
                raise ValueError(f"the scorer {scorer.name!r} {why}. Remove one of them")
        if self.dialogue is not None and self.response_schema is not None:
            raise ValueError("response_schema forbids tool calls, which a dialogue needs")
        return self

    def check_turns(self, scorer: Entry) -> None:
        """Raise ValueError if a scorer reads a dialogue where cases have one answer, or reverse."""
        why = ""
        if isinstance(scorer, Trajectory) and self.dialogue is None:
            why = "reads several turns; set evaluate.dialogue, or use tool_calls"
        if isinstance(scorer, ToolCalls) and self.dialogue is not None:
            why = "reads the calls of a single answer; use trajectory for those of a dialogue"
        if why:
            raise ValueError(f"the scorer {scorer.name!r} {why}")

    @model_validator(mode="after")
    def _constraints_look_at_scorers(self) -> Self:
        names = [*self._quality, *(measure.name for measure in self.measures)]
        for constraint in self.gate.constraints if self.gate else ():
            if constraint.metric in names:
                continue
            if constraint.metric not in RETENTION_METRICS:
                raise ValueError(
                    f"gate.constraints names {constraint.metric!r}, but the scorers are "
                    f"{', '.join(names)}"
                )
            if self.retention is False:
                raise ValueError(
                    f"gate.constraints names {constraint.metric!r}, but retention is false"
                )
        return self

    @model_validator(mode="after")
    def _judges_decide_only_with_labels(self) -> Self:
        names, gate = [judge.name for judge in self.judges], self.gate
        if taken := {each.name for each in self.contenders}.intersection(names):
            raise ValueError(f"{taken.pop()!r} is the name of a judge and of a contender")
        if bounded := [c.metric for c in (gate.constraints if gate else ()) if c.metric in names]:
            raise ValueError(
                f"gate.constraints names {bounded[0]!r}, a judge. A judge's own figures are not "
                "calibrated, so no gate rests on them"
            )
        decider = next((each for each in self.judges if each.name == self.primary_scorer), None)
        unfit = gate and (gate.baseline or gate.required_cases)
        if gate and gate.mode == "absolute" and decider:
            unfit = unfit or decider.compare or len(decider.scale) > 2 or self.labels is None
        if unfit and decider:
            raise ValueError(
                f"{decider.name!r}, a judge, decides. Its scores are calibrated only with labels, "
                "as a difference between contenders or, for a rubric without a scale, as the "
                "candidate's share of right answers. So the gate takes mode improve or "
                "no-regress, or absolute with such a rubric and labels, without baseline and "
                "required_cases"
            )
        if self.robustness and self.primary_scorer in names:
            raise ValueError(
                f"{self.primary_scorer!r}, a judge, decides, and judges do not read the answers to "
                "changed questions. Remove robustness, or let another scorer decide"
            )
        if self.labels is not None and not names:
            raise ValueError("labels calibrate a judge: add one to scorers, or remove labels")
        return self

    @model_validator(mode="after")
    def _recorded_scores_of_recorded_answers(self) -> Self:
        afresh = [each.name for each in self.contenders if not isinstance(each, Recorded)]
        for scorer in self.scorers:
            if isinstance(scorer, RecordedScore) and scorer.file is None and afresh:
                raise ValueError(
                    f"the scorer {scorer.name!r} reads scores of recorded answers, but "
                    f"{', '.join(afresh)} gives new answers; give the scorer a `file` with "
                    "scores, or use another scorer, such as exact"
                )
        return self

    def price_of(self, spec: ContenderSpec, base_model: str) -> TokenPrice | None:
        """Return the job's price of a contender, or of its untuned model."""
        if isinstance(spec, Tuned | Recorded):
            return self.prices.get(spec.name)
        model = spec.model if isinstance(spec, Model | Server) else base_model
        return self.prices.get(spec.name) or self.prices.get(model)

    def general_questions(self, *, here: bool) -> int:
        """Return the number of general questions for a tuned model here, or for one elsewhere."""
        if self.retention == "auto":
            constraints = self.gate.constraints if self.gate else ()
            asked = here or any(each.metric in RETENTION_METRICS for each in constraints)
            return AUTO_QUESTIONS if asked else 0
        if isinstance(self.retention, bool):
            return GENERAL_QUESTIONS if self.retention else 0
        return self.retention

    @property
    def judges(self) -> tuple[Judge, ...]:
        """Scorers that are language models."""
        return tuple(scorer for scorer in self.scorers if isinstance(scorer, Judge))

    @property
    def user(self) -> SimulatedUser | None:
        """Simulated user of the dialogues, if any."""
        return self.dialogue and self.dialogue.user

    @property
    def scores_dev(self) -> bool:
        """True if a scorer other than judges can choose on dev rows."""
        return len(self._quality) > len(self.judges)

    @property
    def requested(self) -> tuple[ContenderSpec, ...]:
        """Contenders and, in the same form, the models of judges and of the simulated user."""
        users = [self.user] if self.user else []
        return (*self.contenders, *map(model_of, [*self.judges, *users]))

    @property
    def needs_expected(self) -> bool:
        """True if a scorer needs the expected answer of each case."""
        return any(scorer.needs_expected for scorer in self.scorers)

    @property
    def _quality(self) -> list[str]:
        return [scorer.name for scorer in self.scorers if isinstance(scorer, Scorer)]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Measures of the job, with those that `repeats`, `robustness` and the gate add."""
        taken = {each.name for each in self.scorers}
        added = (each for each in self._added if each.name not in taken)
        return (*(each for each in self.scorers if isinstance(each, Measure)), *added)

    @property
    def _added(self) -> list[Measure]:
        score = self.gate.required_score if self.gate else 1.0
        bounds = self.gate.constraints if self.gate else ()
        bounded = [re.fullmatch(r"pass\^([2-9]|[1-9]\d+)", each.metric) for each in bounds]
        sizes = {int(each[1]) for each in bounded if each}
        # Hardly any graded score is exactly 1
        has_right = self.deciding.kind is Kind.BINARY or score < 1
        is_repeated = self.repeats > 1 and has_right
        sizes |= {2, self.repeats} if is_repeated else set()
        return [
            *(PassK(k=k, name=f"pass^{k}", required_score=score) for k in sorted(sizes)),
            *([Unstable(required_score=score)] if is_repeated else []),
            *([Turns(), ToolErrors()] if self.dialogue else []),
            *(
                Stability(name=f"stable_{change}", change=change, tolerance=self.margin)
                for change in dict.fromkeys(self.robustness)
            ),
        ]

    @property
    def primary_scorer(self) -> str:
        """Name of the scorer that decides."""
        return self.primary or self._quality[0]

    @property
    def deciding(self) -> Scorer:
        """Scorer that decides."""
        (scorer,) = (each for each in self.scorers if each.name == self.primary_scorer)
        assert isinstance(scorer, Scorer), "a measure decides nothing"
        return scorer

    @property
    def graded(self) -> bool:
        """True if the score of a case may be between right and wrong."""
        return self.repeats > 1 or self.deciding.kind is not Kind.BINARY
