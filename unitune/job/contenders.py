"""Who competes, as a job says it: one frozen specification for each kind of contender.

`ContenderSpec` is their union. Three ask the job's own base (zero-shot, instructed, few-shot), one
a tuned model, two any other model with a prompt of the same three kinds (`Model` of any backend,
`Server` by its URL), and one reads answers that were written down. Which prompts each may choose
from is the business of `unitune.evaluate.prompts.contenders`; nothing here acts.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from unitune.security.addresses import Address, VariableName
from unitune.security.spec import Typed, from_name

NEWEST = "newest"
Role = Literal["baseline", "candidate", "reference"]
PromptKind = Literal["zero-shot", "instructed", "few-shot"]
ShotChoice = Literal["auto", "random", "nearest"]


class ZeroShot(Typed):
    """The untuned model with the row's own messages."""

    type: Literal["zero-shot"] = "zero-shot"
    name: str = "zero-shot"
    role: Role = "baseline"


class Instructed(Typed):
    """The untuned model with instructions in words."""

    type: Literal["instructed"] = "instructed"
    name: str = "instructed"
    role: Role = "baseline"
    instructions: str | None = None
    """Text added to the system prompt; `evaluate.instructions`, or a text made from train."""


class FewShot(Typed):
    """The untuned model, shown answered rows of train before the question."""

    type: Literal["few-shot"] = "few-shot"
    name: str = "few-shot"
    role: Role = "baseline"
    shots: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """How many rows are shown; `auto` chooses among a few numbers on dev."""
    choose: ShotChoice = "auto"
    """random: the same rows for every case, spread over the answers. nearest: for each case the
    rows most similar to it. `auto` tries both on dev."""


class Tuned(Typed):
    """The tuned model, of this job or of any run."""

    type: Literal["tuned"] = "tuned"
    run: Annotated[str, Field(min_length=1)] | None = None
    """Run whose model answers, also one of another job: its id, the first letters of it, newest,
    or a version of a registered model (NAME:3, NAME@ALIAS). By default that of `compare --run`,
    else the newest succeeded run of this training."""
    name: str = Field(default_factory=lambda given: given.get("run") or "tuned")
    """In the report; by default tuned, or the run as it is named here."""
    role: Role = "candidate"
    prompt: Literal["own", "baseline"] = "own"
    """own: the row's own messages, as it was trained. baseline: the prompt that the best baseline
    has chosen on dev, instructions and shots included."""


class Prompted(Typed):
    """A model that is not the job's own, with one of the same prompts."""

    prompt: PromptKind = "instructed"
    """See the contenders of the same names."""
    instructions: str | None = None
    """For instructed and few-shot; `evaluate.instructions`, or a text made from train."""
    shots: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """For few-shot: how many rows are shown."""
    choose: ShotChoice = "auto"
    """For few-shot: which rows are shown."""

    @model_validator(mode="after")
    def _settings_of_its_prompt(self) -> Self:
        if self.prompt != "few-shot" and (self.shots, self.choose) != ("auto", "auto"):
            raise ValueError(f"prompt {self.prompt} takes neither shots nor choose; few-shot does")
        if self.prompt == "zero-shot" and self.instructions is not None:
            raise ValueError("prompt zero-shot takes no instructions; instructed and few-shot do")
        return self


class Model(Prompted):
    """Any model of any backend."""

    type: Literal["model"] = "model"
    backend: str
    """Who answers; `unitune backends` lists them."""
    model: str
    """Its name there."""
    name: str = Field(default_factory=lambda given: given.get("model", "model"))
    """In the report; by default that of the model."""
    role: Role = "reference"


class Server(Prompted):
    """Any model on a server that speaks OpenAI's chat completions."""

    type: Literal["server"] = "server"
    url: Address
    """Base URL with its version, such as ``http://127.0.0.1:8000/v1``."""
    model: str
    """Its name there."""
    api_key_variable: VariableName | None = None
    """Environment variable that holds the key, which never stands in a job itself; the user must
    have allowed it for this address (`unitune keys allow`)."""
    name: str = Field(default_factory=lambda given: given.get("model", "server"))
    """In the report; by default that of the model."""
    role: Role = "reference"


class Recorded(Typed):
    """Answers that were written down before, such as those of a model that is switched off."""

    type: Literal["recorded"] = "recorded"
    name: str = "recorded"
    role: Role = "baseline"
    answers: str
    """JSON Lines, one object a case: ``{"case": ID, "answer": TEXT}``, ids as in
    `Example.case_id`."""


_ByType: TypeAlias = Annotated[
    ZeroShot | Instructed | FewShot | Tuned | Model | Server | Recorded,
    Field(discriminator="type"),
]
ContenderSpec: TypeAlias = Annotated[
    _ByType,
    BeforeValidator(
        from_name,
        json_schema_input_type=Literal["zero-shot", "instructed", "few-shot", "tuned"] | _ByType,
    ),
]


def prompt_kind(spec: ContenderSpec) -> PromptKind | None:
    """Return how an untuned model is prompted; None for tuned models and recorded answers."""
    match spec:
        case ZeroShot() | Instructed() | FewShot():
            return spec.type
        case Model() | Server():
            return spec.prompt
        case Tuned() | Recorded():
            return None
