"""What a team wants from a model: a `Job`, frozen data, the same in YAML and in Python.

`Job.load` reads a file, `job.save` writes one, and a Job built in Python equals the Job read from
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
from pydantic.json_schema import SkipJsonSchema

from unitune._shown import Shown
from unitune.errors import JobError
from unitune.job.data import Columns, Data, Template
from unitune.job.evaluate import Constraint, Economics, Evaluate, Gate, TokenPrice
from unitune.job.prices import PriceEntry, rows_of
from unitune.job.sweep import Value, written
from unitune.job.tuning import (
    Auto,
    Budget,
    Lora,
    Preference,
    Reward,
    TrainingBudget,
    Tuning,
    Usage,
)
from unitune.scorers.interface import Scorer
from unitune.security.addresses import NotAnAddress, check_no_secret, unrepeated
from unitune.security.spec import Spec
from unitune.workspace import yaml_file
from unitune.workspace.filesystem import replacing

__all__ = [
    "Auto",
    "Budget",
    "Columns",
    "Constraint",
    "Data",
    "Economics",
    "Evaluate",
    "Gate",
    "Job",
    "Lora",
    "Method",
    "Preference",
    "Reward",
    "Template",
    "TokenPrice",
    "TrainingBudget",
    "Tuning",
]
Method = Literal["sft", "dpo", "rft", "cpt"]
CHAT_TEMPLATES = ("hermes",)  # chat templates that `Data.chat_template` may name


def other_tools() -> dict[str, str]:
    """Return what keys of other tools are called in a job file, by dotted names.

    Of a key that has no equivalent it is a sentence about it.
    """
    files = (Path(__file__).with_name(f"{name}.yaml") for name in ("no_such_key", "other_tools"))
    return {
        theirs: ours
        for file in files
        for ours, names in yaml_file.parse(file.read_text(encoding="utf-8")).items()
        for theirs in names
    }


class Job(Shown, Spec):
    """What to tune, on what, how and where.

    Examples:
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
    a preferred and a non-preferred output). rft: earn a grader's reward (rows may lack answers).
    cpt: continue the pre-training on raw text (rows ``{"text": …}``); every token is trained."""
    start: Annotated[str, Field(min_length=1)] | None = None
    """A tuned model to go on from: a run of this ledger by its id, a version of a registered model
    (NAME:3, NAME@ALIAS), the folder of an adapter for a backend that trains here, or the vendor's
    own name of a model. By default training begins at the base model; `model` names the base in
    either case."""
    data: Data
    tuning: Tuning = Tuning()
    evaluate: Evaluate = Evaluate()
    budget: TrainingBudget | None = None
    """The most that the training may cost; of a sweep, all its runs together."""
    usage: Usage = Usage()
    """How the model will be used, for `unitune cost`."""
    prices: tuple[PriceEntry, ...] = ()
    """Custom prices, which win over all that are known: ``{backend: azure, training: 21.00}``
    or ``{backend: local, machine: 0.85}`` an hour; as in ``prices.yaml``."""
    track: tuple[Literal["mlflow", "wandb", "tensorboard", "trackio"], ...] = ()
    """Experiment trackers that get its runs' figures as they come, and its comparisons; MLflow's
    registry gets its registered versions and their aliases, too. Where they send them is their own
    business: ``MLFLOW_TRACKING_URI``, ``WANDB_API_KEY``, …"""
    options: dict[str, dict[str, JsonValue]] = {}  # noqa: RUF012 - pydantic copies it
    """What one backend alone understands, by backend."""
    folder: Annotated[SkipJsonSchema[Path], Field(exclude=True, repr=False)] = Path()
    """Where relative paths start; the job file's folder."""
    given_prices: Annotated[
        SkipJsonSchema[tuple[PriceEntry, ...]], Field(exclude=True, repr=False)
    ] = ()
    """Prices of the command line, which win over `prices`."""

    @model_validator(mode="after")
    def _settings_are_for_the_method(self) -> Self:
        for name, method, unset in (
            ("neftune_noise_alpha", "sft", "auto"),
            ("preference", "dpo", Preference()),
            ("reward", "rft", Reward()),
        ):
            if self.method != method and getattr(self.tuning, name) != unset:
                raise ValueError(f"tuning.{name} is for method {method}, not for {self.method}")
        return self

    @model_validator(mode="after")
    def _rated_answers_are_no_cases(self) -> Self:
        if self.rows_for == "kto" and isinstance(self.data.test, float):
            raise ValueError(
                "data.test cannot be a share with loss kto: not every rated answer is one to "
                "expect. Name a file of cases, or none"
            )
        return self

    @model_validator(mode="after")
    def _each_run_is_valid(self) -> Self:
        if self.sweep and self.data.train is None:
            raise ValueError("lists under tuning make trainings, and data.train names no rows")
        runs = [type(self).model_validate(dict(each)) for each in self.variants().values()]
        if self.sweep and len({run.rows_for for run in runs}) > 1:
            raise ValueError(
                "the runs of a sweep learn from the same rows, and loss kto takes others than the "
                "losses beside it. Make it a job of its own"
            )
        return self

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
    def rows_for(self) -> Literal["sft", "dpo", "kto", "rft", "cpt"]:
        """What training rows must hold: by the method, and for kto by its loss."""
        return "kto" if self.tuning.preference.loss == "kto" else self.method

    @property
    def sweep(self) -> dict[str, tuple[Value, ...]]:
        """The settings under `tuning` with a list of values, by dotted names; mostly none."""
        return self.tuning.swept

    def variants(self) -> dict[str, Self]:
        """Return the job of each run of a sweep, by its values: ``learning_rate=0.0001, …``.

        Nothing where no setting has a list of values.
        """
        if not (settings := [*self.sweep]):
            return {}
        return {
            ", ".join(f"{name}={written(tuning.value_of(name))}" for name in settings): (
                self.model_copy(update={"tuning": tuning})
            )
            for tuning in self.tuning.variants()
        }

    @property
    def rewards(self) -> tuple[Scorer, ...]:
        """Rewards of sampled answers: those of the training, or the scorer of the verdict.

        Other methods than rft have none.
        """
        own = self.tuning.reward.scorers or (self.evaluate.deciding,)
        return own if self.method == "rft" else ()

    @property
    def reward_scorer(self) -> Scorer:
        """The only reward, for backends that take one scorer.

        Raises:
            JobError: There are several rewards, or it grades groups.
        """
        if len(self.rewards) == 1 and not self.rewards[0].grades_groups:
            return self.rewards[0]
        names = ", ".join(reward.name for reward in self.rewards)
        raise JobError(
            f"tuning.reward.scorers has {names}, and the backend {self.backend} takes one scorer. "
            "Give it a single one, or train on the backend local."
        )

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
                f"job {self.name!r}: model names no base for backend {self.backend!r}. "
                f"It names one for {', '.join(sorted(self.model))}. Add `{self.backend}: MODEL` to "
                "model."
            )
        return self.model[self.backend]

    @property
    def chat_template(self) -> str | None:
        """Text of the chat template that the job names in place of the model's own.

        Raises:
            JobError: It cannot be read.
        """
        name = self.data.chat_template
        if name is None:
            return None
        own = Path(__file__).parent / "chat_templates" / f"{name}.jinja"
        try:
            return (own if name in CHAT_TEMPLATES else self.path(name)).read_text(encoding="utf-8")
        except (OSError, ValueError) as problem:
            raise JobError(
                f"data.chat_template is {name!r}, which cannot be read: {problem}. It is a file in "
                f"Jinja, or one of {', '.join(CHAT_TEMPLATES)}."
            ) from problem

    def with_backend(self, backend: str | None) -> Self:
        """Return the job as it would be if it named this backend; None: as it is."""
        return self if backend is None else self.model_copy(update={"backend": backend})

    def with_budget(self, usd: Decimal | None) -> Self:
        """Return the job with another budget for its training; None: as it is."""
        if usd is None:
            return self
        hours = self.budget and self.budget.hours
        return self.model_copy(update={"budget": TrainingBudget(usd=usd, hours=hours)})

    def with_evaluation_budget(self, usd: Decimal) -> Self:
        """Return the job with another budget for the answers of its contenders."""
        evaluate = self.evaluate.model_copy(update={"budget": Budget(usd=usd)})
        return self.model_copy(update={"evaluate": evaluate})

    def with_prices(self, prices: Iterable[PriceEntry]) -> Self:
        """Return the job with prices that win over all others, as `--price` gives them."""
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
            raise JobError(yaml_file.explain(document, error, cls, other_tools())) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the job as YAML, leaving out what equals its default.

        Data paths are rewritten so that they mean the same files from the new place.
        """
        file = Path(path)
        content = self.model_dump(mode="json", exclude_defaults=True)
        data: dict[str, Any] = content["data"]
        for key in {"train", "test", "validation"} & data.keys():
            data[key] = self._moved(data[key], file.parent)
        if "chat_template" in data and data["chat_template"] not in CHAT_TEMPLATES:
            data["chat_template"] = self._moved(data["chat_template"], file.parent)
        if self.start is not None and self.path(self.start).is_dir():
            content["start"] = self._moved(self.start, file.parent)
        tuning: dict[str, Any] = content.get("tuning", {})
        if called := tuning.get("callbacks"):
            tuning["callbacks"] = [self._moved_function(each, file.parent) for each in called]
        rewarding = tuning.get("reward", {}).get("scorers") or ()
        for scorer in (*content.get("evaluate", {}).get("scorers", ()), *rewarding):
            if isinstance(scorer, dict):
                self._move_files(cast("dict[str, Any]", scorer), file.parent)
        with replacing(file) as draft:
            draft.write(yaml_file.dump(content))

    def _move_files(self, scorer: dict[str, Any], folder: Path) -> None:
        """Let a scorer's options name the same files from another folder."""
        for key in {"definition", "file", "grader"} & scorer.keys():
            scorer[key] = self._moved(scorer[key], folder)
        if "function" in scorer:
            scorer["function"] = self._moved_function(scorer["function"], folder)

    def _moved_function(self, reference: str, folder: Path) -> str:
        path, _, name = reference.rpartition(":")
        return f"{self._moved(path, folder)}:{name}" if path.endswith(".py") else reference

    def _moved(self, value: Any, folder: Path) -> Any:
        if isinstance(value, list):
            return [self._moved(each, folder) for each in cast("list[Any]", value)]
        if (
            not isinstance(value, str)
            or "://" in value
            or Path(value).is_absolute()
            or folder == self.folder
        ):
            return value
        return os.path.relpath(self.path(value), folder)
