"""Define a `Job`: frozen data on what to tune, the same in YAML and in Python."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from unitune._shown import Shown
from unitune.documents import Spec
from unitune.errors import JobError
from unitune.files import yaml_file
from unitune.files.filesystem import replacing
from unitune.job.data import Columns, Data, Template
from unitune.job.evaluate import Constraint, Economics, Evaluate, Gate, TokenPrice
from unitune.job.files import CHAT_TEMPLATES, place_files
from unitune.job.prices import PriceEntry, rows_of
from unitune.job.sweep import Value, written
from unitune.job.tuning import Auto, Budget, Lora, Preference, Reward, TrainingBudget, Tuning, Usage
from unitune.scorers.interface import Scorer
from unitune.scorers.judge import Judge
from unitune.scorers.trajectory import Trajectory
from unitune.security.addresses import NotAnAddress, check_no_secret, unrepeated

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


def other_tools() -> dict[str, str]:
    """Return our dotted keys, or a sentence, by the keys of other tools."""
    files = (Path(__file__).with_name(f"{name}.yaml") for name in ("no_such_key", "other_tools"))
    return {
        theirs: ours
        for file in files
        for ours, names in yaml_file.parse(file.read_text(encoding="utf-8")).items()
        for theirs in names
    }


class Job(Shown, Spec):
    """Specification of what to tune, on what, how and where.

    Examples:
        >>> job = Job(name="demo", model="smollm2-135m-instruct", backend="local",
        ...           data={"train": "train.jsonl", "test": "test.jsonl"})
        >>> job.method
        'sft'
    """

    version: Literal[1] = 1
    """Version of this file format."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    """Lower-case letters, digits and dashes; at most 40 characters."""
    model: str | dict[str, str]
    """Base model, or one per backend: ``{local: smollm2-135m-instruct, …}``."""
    backend: str
    """Training backend; `unitune backends` lists them."""
    method: Method = "sft"
    """sft: learn the answers (supervised fine-tuning). dpo: prefer one answer to another (rows with
    a preferred and a non-preferred output). rft: maximise a grader's reward (rows may lack
    answers). cpt: continue pre-training on raw text (rows ``{"text": …}``); every token is trained
    on."""
    start: Annotated[str, Field(min_length=1)] | None = None
    """Tuned model to continue from: a run id, a version of a registered model (NAME:3, NAME@ALIAS),
    an adapter folder for local training, or the vendor's model name. By default training starts at
    the base model, which `model` names in either case."""
    data: Data
    tuning: Tuning = Tuning()
    evaluate: Evaluate = Evaluate()
    budget: TrainingBudget | None = None
    """Maximum cost of the training; for a sweep, of all its runs together."""
    usage: Usage = Usage()
    """Expected use of the model, for `unitune cost`."""
    prices: tuple[PriceEntry, ...] = ()
    """Custom prices, which override all known ones: ``{backend: azure, training: 21.00}`` or
    ``{backend: local, machine: 0.85}`` an hour; as in ``prices.yaml``."""
    track: tuple[Literal["mlflow", "wandb", "tensorboard", "trackio"], ...] = ()
    """Experiment trackers that receive the figures of runs and comparisons. MLflow's registry also
    receives registered versions and aliases. The trackers' own variables set their address:
    ``MLFLOW_TRACKING_URI``, ``WANDB_API_KEY``, …"""
    options: dict[str, dict[str, JsonValue]] = {}  # noqa: RUF012 - pydantic copies it
    """Backend-specific options, by backend."""
    folder: Annotated[SkipJsonSchema[Path], Field(exclude=True, repr=False)] = Path()
    """Folder of relative paths: that of the job file."""
    given_prices: Annotated[
        SkipJsonSchema[tuple[PriceEntry, ...]], Field(exclude=True, repr=False)
    ] = ()
    """Prices of the command line, which override `prices`."""

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
    def _dialogue_fits(self) -> Self:
        for reward in self.rewards:
            self.evaluate.check_turns(reward)
        dialogue = self.evaluate.dialogue
        if self.method == "rft" and self.evaluate.user:
            raise ValueError(
                "method rft samples dialogues without a simulated user. Remove "
                "evaluate.dialogue.user, and compare with it in a job without method: rft, whose "
                "contenders name the run ({type: tuned, run: newest})"
            )
        if dialogue and dialogue.tools and self.data.personal_data == "redact":
            raise ValueError(
                "data.personal_data is redact, but results of evaluate.dialogue.tools are sent "
                "unredacted. Record them in the rows and remove the tools, or set personal_data "
                "to warn"
            )
        return self

    @model_validator(mode="after")
    def _steps_are_chosen_by_answers(self) -> Self:
        decides = self.evaluate.deciding
        if isinstance(decides, Judge | Trajectory) and self.tuning.best_by == "score":
            why = "a judge decides, and judges read only answers to test cases"
            if isinstance(decides, Trajectory):
                why = f"{decides.name!r} decides, which reads dialogues, and validation has none"
            raise ValueError(
                f"tuning.best_by is score, but {why}. Set best_by to loss, or let another scorer "
                "decide (evaluate.primary)"
            )
        return self

    @model_validator(mode="after")
    def _constraints_name_tests(self) -> Self:
        names = {name for name, _ in self.data.named_files("test")}
        if isinstance(self.data.test, float):
            names = {source.label for source in self.data.mixture}
        for constraint in self.evaluate.gate.constraints if self.evaluate.gate else ():
            if constraint.test is not None and constraint.test not in names:
                known = ", ".join(sorted(filter(None, names))) or "none"
                raise ValueError(
                    f"a constraint of the gate names the test set {constraint.test!r}; data has: "
                    f"{known}"
                )
        return self

    @model_validator(mode="after")
    def _rated_answers_are_no_cases(self) -> Self:
        if self.rows_for == "kto" and isinstance(self.data.test, float):
            raise ValueError(
                "data.test cannot be a share with loss kto, because not every rated answer is "
                "right. Name a file of test cases, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _each_run_is_valid(self) -> Self:
        if self.sweep and self.data.train is None:
            raise ValueError("lists under tuning start trainings, but data.train names no rows")
        runs = [type(self).model_validate(dict(each)) for each in self.variants().values()]
        if self.sweep and len({run.rows_for for run in runs}) > 1:
            raise ValueError(
                "the runs of a sweep share their rows, but loss kto needs different rows from the "
                "other losses. Put it in a separate job"
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
        """Kind of training rows: the method, or kto for its loss."""
        return "kto" if self.tuning.preference.loss == "kto" else self.method

    @property
    def sweep(self) -> dict[str, tuple[Value, ...]]:
        """Settings under `tuning` with a list of values, by dotted name."""
        return self.tuning.swept

    def variants(self) -> dict[str, Self]:
        """Return the job of each run of a sweep by its values: ``learning_rate=0.0001, …``."""
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
        """Rewards of sampled answers for rft: those of the training, or the deciding scorer."""
        own = self.tuning.reward.scorers or (self.evaluate.deciding,)
        return own if self.method == "rft" else ()

    @property
    def judged_rewards(self) -> tuple[Judge, ...]:
        """Rewards that are language models."""
        return tuple(each for each in self.rewards if isinstance(each, Judge))

    @property
    def reward_scorer(self) -> Scorer:
        """Reward for backends that take one scorer; raises `JobError` for several or a group's."""
        if len(self.rewards) == 1 and not self.rewards[0].grades_groups:
            return self.rewards[0]
        names = ", ".join(reward.name for reward in self.rewards)
        raise JobError(
            f"tuning.reward.scorers has {names}, but the backend {self.backend} takes one scorer. "
            "Keep one of them, or train on the backend local."
        )

    @property
    def base_model(self) -> str:
        """Name of the base model on this job's backend; raises `JobError` if it has none."""
        if isinstance(self.model, str):
            return self.model
        if self.backend not in self.model:
            raise JobError(
                f"job {self.name!r}: model has no base model for backend {self.backend!r}. "
                f"It has one for {', '.join(sorted(self.model))}. Add `{self.backend}: MODEL` to "
                "model."
            )
        return self.model[self.backend]

    @property
    def chat_template(self) -> str | None:
        """Text of the chat template that replaces the model's own; raises `JobError`."""
        name = self.data.chat_template
        if name is None:
            return None
        own = Path(__file__).parent / "chat_templates" / f"{name}.jinja"
        try:
            return (own if name in CHAT_TEMPLATES else self.path(name)).read_text(encoding="utf-8")
        except (OSError, ValueError) as problem:
            raise JobError(
                f"data.chat_template is {name!r}, which cannot be read: {problem}. Use a "
                f"Jinja file or one of {', '.join(CHAT_TEMPLATES)}."
            ) from problem

    def with_backend(self, backend: str | None) -> Self:
        """Return the job with this backend; unchanged for None."""
        return self if backend is None else self.model_copy(update={"backend": backend})

    def with_budget(self, usd: Decimal | None) -> Self:
        """Return the job with another training budget; unchanged for None."""
        if usd is None:
            return self
        hours = self.budget and self.budget.hours
        return self.model_copy(update={"budget": TrainingBudget(usd=usd, hours=hours)})

    def with_evaluation_budget(self, usd: Decimal) -> Self:
        """Return the job with another budget for contenders' answers."""
        evaluate = self.evaluate.model_copy(update={"budget": Budget(usd=usd)})
        return self.model_copy(update={"evaluate": evaluate})

    def with_prices(self, prices: Iterable[PriceEntry]) -> Self:
        """Return the job with prices that override all others, as with `--price`."""
        return self.model_copy(update={"given_prices": tuple(prices)})

    def path(self, name: str) -> Path:
        """Return a data path resolved against the job's folder."""
        return self.folder / name

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a job file.

        Args:
            path: Path of a YAML file.

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
        """Write the job as YAML without defaults, with paths relative to the new folder."""
        file = Path(path)

        def place(name: str) -> str:
            is_fixed = "://" in name or Path(name).is_absolute() or file.parent == self.folder
            return name if is_fixed else os.path.relpath(self.path(name), file.parent)

        content = self.model_dump(mode="json", exclude_defaults=True)
        place_files(content, self.folder, place)
        with replacing(file) as draft:
            draft.write(yaml_file.dump(content))
