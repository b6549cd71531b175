"""What a team wants from a model: a `Job`, frozen data, the same in YAML and in Python.

`Job.load` reads a file, `job.save` writes one, and a Job built in Python equals the one read from
the file it saves. Nothing here acts: `unitune.plan` looks, `unitune.launch` trains, and
`unitune.compare` judges. Paths are kept as written and resolved against the job file's folder.

Errors name the file, the line, the value and what is allowed; see `unitune.workspace.yaml_file`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from unitune.errors import JobError
from unitune.job.contenders import ContenderSpec, FewShot, Instructed, Recorded, Tuned, ZeroShot
from unitune.job.prices import PriceEntry, rows_of
from unitune.job.usage import Usage
from unitune.scorers import ScorerSpec
from unitune.scorers.interface import Kind, Scorer
from unitune.scorers.recorded import RecordedScore
from unitune.scorers.text import Exact
from unitune.security.addresses import NotAnAddress, check_no_secret, unrepeated
from unitune.security.spec import Spec
from unitune.workspace import yaml_file
from unitune.workspace.filesystem import replacing

Auto = Literal["auto"]
Method = Literal["sft", "dpo", "rft"]


class Columns(Spec):
    """Which column of a table becomes which message."""

    user: str
    """Column with the user's message."""
    assistant: str
    """Column with the expected answer."""
    system: str | None = None
    """Column with the system prompt, if there is one."""


class Template(Spec):
    """Jinja2 templates over the columns of a row, one for each message."""

    user: str
    """Template of the user's message, e.g. ``Subject: {{ subject }}\\n\\n{{ body }}``."""
    assistant: str
    """Template of the expected answer."""
    system: str | None = None
    """Template of the system prompt."""


class Data(Spec):
    """The files that a job learns from and is judged on."""

    train: str | None = None
    """Training file: JSONL, CSV or TSV; a job without one is only compared, never trained."""
    test: str | None = None
    """Held-out cases; `compare` needs them, training never reads them for learning."""
    validation: str | Annotated[float, Field(gt=0, lt=1)] | None = None
    """A file, or the fraction of train to hold out; by default a seeded tenth, at least 30 rows."""
    columns: Columns | None = None
    """For tables: which columns hold the messages."""
    template: Template | None = None
    """For tables: how messages are made from the columns; instead of `columns`."""

    @model_validator(mode="after")
    def _one_mapping(self) -> Self:
        if self.columns and self.template:
            raise ValueError("give either columns or template, not both")
        return self


class Lora(Spec):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Rank of each adapter."""
    alpha: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Scale; the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """Dropout on the adapters' input."""
    targets: tuple[str, ...] | Auto = "auto"
    """Names of the linear modules that get an adapter."""


class Tuning(Spec):
    """How the model is trained; `auto` leaves a value to the backend."""

    epochs: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Passes over the training rows."""
    batch_size: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Rows that make one optimiser step."""
    learning_rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Absolute peak learning rate, never a multiplier."""
    lora: Lora = Lora()
    """Adapter settings."""
    sequence_length: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Longest row in tokens; a longer row is a finding, never cut silently."""
    seed: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Seed of everything random."""


class Constraint(Spec):
    """A line that the candidate's score by a scorer, or a measure of it, must keep to."""

    metric: str
    """Name of a scorer or measure."""
    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The lowest that passes."""
    at_most: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The highest that passes."""

    @model_validator(mode="after")
    def _one_line(self) -> Self:
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
    min_cases: Annotated[int, Field(ge=1)] = 1
    """With fewer scored cases the gate is inconclusive."""
    required_cases: tuple[str, ...] = ()
    """Ids of cases that the candidate must get right, besides rows with ``required: true``."""
    required_score: Annotated[float, Field(gt=0, le=1)] = 1.0
    """A required case that scores less is broken."""
    baseline: str | None = None
    """For mode no-regress: a file of scores, kept beside the job, that the candidate is held
    against; `compare --update-baseline` writes it. Without one it is the best baseline."""
    constraints: tuple[Constraint, ...] = ()
    """Further lines that the candidate must keep to, such as ``{metric: json_valid, at_least:
    0.99}``; each looks at a score as it is, without an interval."""

    @model_validator(mode="after")
    def _baseline_when_regressing(self) -> Self:
        if self.baseline is not None and self.mode != "no-regress":
            raise ValueError(f"mode {self.mode} takes no baseline file, only no-regress does")
        return self

    @model_validator(mode="after")
    def _threshold_when_absolute(self) -> Self:
        if (self.mode == "absolute") != (self.threshold is not None):
            raise ValueError(
                "mode absolute needs a threshold above 0 and at most 1, and no other mode takes one"
            )
        return self


class Budget(Spec):
    """The most that a job may cost."""

    usd: Annotated[Decimal, Field(ge=0)]
    """US dollars."""


class TrainingBudget(Budget):
    """The most that a training may cost, and take."""

    hours: Annotated[Decimal, Field(gt=0)] | None = None
    """Hours; needed to say what a training costs that is charged by the hour."""


class TokenPrice(Spec):
    """What a model's tokens cost, in US dollars a million tokens."""

    input: Annotated[Decimal, Field(ge=0)]
    output: Annotated[Decimal, Field(ge=0)]


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
    """What the instructed contender is told; made from train alone when absent."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Differences smaller than this do not matter to the team."""
    clusters: str | None = None
    """A key of one's own in the test rows: cases with equal values belong together, such as those
    of one customer or one document."""
    slices: tuple[str, ...] = ()
    """Keys of one's own in the test rows: each of their values is looked at on its own, too."""
    leaks: Literal["refuse", "drop", "allow"] = "refuse"
    """What to do with test cases that stand in train: equal, near duplicates, or half quoted."""
    max_tokens: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Longest answer in tokens; `auto` gives ample room, and more to models that think."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """How often each test case is asked; its scores are averaged."""
    temperature: Annotated[float, Field(ge=0, le=2)] | Auto = "auto"
    """0 is greedy; above, repeats differ by the seed that each request carries. `auto` is 0, and a
    model that takes no temperature is asked without; a number that it does not take is an error."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Requests in flight at most; fewer when the vendor says that it is asked too often."""
    prices: dict[str, TokenPrice] = Field(default={})
    """By contender, or by model for all contenders that ask it."""
    budget: Budget | None = None
    """The most that the answers may cost; needs the price of every contender that costs money."""
    economics: Economics = Economics()
    """With `prices`: whether the candidate is worth its money."""
    retention: bool = False
    """Also ask base and tuned model general questions, and tell what tuning made it forget."""
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
    def _retention_of_a_tuned_model(self) -> Self:
        if self.retention and not any(isinstance(each, Tuned) for each in self.contenders):
            raise ValueError(
                "retention asks what tuning made a model forget; no contender is tuned"
            )
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
        asked = [each.name for each in self.contenders if not isinstance(each, Recorded)]
        for scorer in self.scorers:
            if isinstance(scorer, RecordedScore) and asked:
                raise ValueError(
                    f"the scorer {scorer.name!r} reads scores beside recorded answers, and "
                    f"{', '.join(asked)} is asked afresh; take another scorer, such as exact"
                )
        return self

    @property
    def needs_expected(self) -> bool:
        """Whether a case must say what is expected, because some scorer looks at it."""
        return any(scorer.needs_expected for scorer in self.scorers)

    @property
    def _quality(self) -> list[str]:
        return [scorer.name for scorer in self.scorers if isinstance(scorer, Scorer)]

    @property
    def primary_scorer(self) -> str:
        """Name of the scorer that decides the verdict."""
        return self.primary or self._quality[0]

    @property
    def graded(self) -> bool:
        """Whether a case may score something between right and wrong."""
        (deciding,) = (each for each in self.scorers if each.name == self.primary_scorer)
        return self.repeats > 1 or not (
            isinstance(deciding, Scorer) and deciding.kind is Kind.BINARY
        )


class Job(Spec):
    """What to tune, on what, how and where.

    Example:
        >>> job = Job(name="demo", model="smollm2-135m-instruct", backend="local",
        ...           data={"train": "train.jsonl", "test": "test.jsonl"})
        >>> job.method
        'sft'
    """

    version: Literal[1] = 1
    """Version of this file format."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    """Lower-case letters, digits and dashes; at most 40."""
    model: str | dict[str, str]
    """Base model, or one for each backend: ``{local: smollm2-135m-instruct, …}``."""
    backend: str
    """Who trains it; `unitune backends` lists them."""
    method: Method = "sft"
    """sft: learn the answers (supervised fine-tuning). dpo: prefer one answer to another (rows with
    a preferred and a non-preferred output). rft: earn a grader's reward (rows may lack answers)."""
    data: Data
    tuning: Tuning = Tuning()
    evaluate: Evaluate = Evaluate()
    budget: TrainingBudget | None = None
    usage: Usage = Usage()
    """How the model will be used, for `unitune cost`."""
    prices: tuple[PriceEntry, ...] = ()
    """Prices of one's own, which win over all that are known: ``{backend: azure, training: 21.00}``
    or ``{backend: local, machine: 0.85}`` an hour; as in ``prices.yaml``."""
    options: dict[str, dict[str, JsonValue]] = {}  # noqa: RUF012 - pydantic copies it
    """What one backend alone understands, by backend."""
    folder: Annotated[Path, Field(exclude=True, repr=False)] = Path()
    """Where relative paths start; the job file's folder."""
    given_prices: Annotated[tuple[PriceEntry, ...], Field(exclude=True, repr=False)] = ()
    """Prices of the command line, which win over `prices`."""

    @model_validator(mode="after")
    def _prices_are_somebodys(self) -> Self:
        rows_of(self.prices, origin="job", day=date.min)
        return self

    @field_validator("options")
    @classmethod
    def _addresses_hold_no_secret(
        cls, options: dict[str, dict[str, JsonValue]]
    ) -> dict[str, dict[str, JsonValue]]:
        for backend, given in options.items():
            for name, value in given.items():
                if name.endswith("url") and isinstance(value, str):
                    try:
                        check_no_secret(value)
                    except NotAnAddress as error:
                        raise unrepeated(NotAnAddress(f"{backend}.{name}: {error}")) from None
        return options

    @property
    def base_model(self) -> str:
        """Name of the base model on this job's backend.

        Raises:
            JobError: `model` is a map without this backend.
        """
        if isinstance(self.model, str):
            return self.model
        if self.backend not in self.model:
            raise JobError(
                f"job {self.name!r}: model names no base for backend {self.backend!r}, "
                f"only for {', '.join(sorted(self.model))}. Add `{self.backend}: MODEL` to model."
            )
        return self.model[self.backend]

    def on(self, backend: str | None) -> Self:
        """Return the job as it would be if it named this backend; None: as it is."""
        return self if backend is None else self.model_copy(update={"backend": backend})

    def within(self, usd: Decimal | None) -> Self:
        """Return the job with another budget for its training; None: as it is.

        Args:
            usd: US dollars.
        """
        if usd is None:
            return self
        hours = self.budget and self.budget.hours
        return self.model_copy(update={"budget": TrainingBudget(usd=usd, hours=hours)})

    def answered_for(self, usd: Decimal) -> Self:
        """Return the job with another budget for the answers of its contenders.

        Args:
            usd: US dollars.
        """
        evaluate = self.evaluate.model_copy(update={"budget": Budget(usd=usd)})
        return self.model_copy(update={"evaluate": evaluate})

    def at(self, prices: Iterable[PriceEntry]) -> Self:
        """Return the job with prices that win over all others, for this once.

        Args:
            prices: As `--price` gives them.
        """
        return self.model_copy(update={"given_prices": tuple(prices)})

    def path(self, name: str) -> Path:
        """Return a data path resolved against the job's folder."""
        return self.folder / name

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a job file.

        Args:
            path: A YAML file.

        Raises:
            JobError: The file is missing or not a valid job; the message names the line.
        """
        file = Path(path)
        document = yaml_file.read(file)
        for key in ("folder", "given_prices"):
            if key in document.value:
                raise JobError(yaml_file.problem(document, (key,), "is not a key of a job"))
        try:
            return cls.model_validate({**document.value, "folder": file.parent})
        except ValidationError as error:
            raise JobError(yaml_file.explain(document, error, cls)) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the job as YAML, leaving out what equals its default.

        Data paths are rewritten so that they mean the same files from the new place.
        """
        file = Path(path)
        content = self.model_dump(mode="json", exclude_defaults=True)
        content["data"] = {
            key: self._moved(value, file.parent)
            if key in ("train", "test", "validation")
            else value
            for key, value in content["data"].items()
        }
        for scorer in content.get("evaluate", {}).get("scorers", ()):
            if isinstance(scorer, dict):
                self._move_files(cast("dict[str, Any]", scorer), file.parent)
        with replacing(file) as draft:
            draft.write(yaml_file.dump(content))

    def _move_files(self, scorer: dict[str, Any], folder: Path) -> None:
        """Let a scorer's options name the same files from another folder."""
        for key in {"definition", "grader"} & scorer.keys():
            scorer[key] = self._moved(scorer[key], folder)
        place, _, name = str(scorer.get("function", "")).rpartition(":")
        if place.endswith(".py"):
            scorer["function"] = f"{self._moved(place, folder)}:{name}"

    def _moved(self, value: Any, folder: Path) -> Any:
        if not isinstance(value, str) or Path(value).is_absolute() or folder == self.folder:
            return value
        return os.path.relpath(self.path(value), folder)
