"""Specify contenders: one frozen class per kind, with `ContenderSpec` as their union."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from unitune.documents import Typed, from_name
from unitune.job.dialogue import SimulatedUser
from unitune.scorers.judge import Judge
from unitune.security.addresses import Address, VariableName

NEWEST = "newest"
Role = Literal["baseline", "candidate", "reference"]
PromptKind = Literal["zero-shot", "instructed", "few-shot"]
ShotChoice = Literal["auto", "random", "nearest"]


class ZeroShot(Typed):
    """Untuned model with the row's own messages."""

    type: Literal["zero-shot"] = "zero-shot"
    name: str = "zero-shot"
    role: Role = "baseline"


class Instructed(Typed):
    """Untuned model with written instructions."""

    type: Literal["instructed"] = "instructed"
    name: str = "instructed"
    role: Role = "baseline"
    instructions: str | None = None
    """Text added to the system prompt; by default `evaluate.instructions` or a text made from
    train."""


class FewShot(Typed):
    """Untuned model with answered rows of train before the question."""

    type: Literal["few-shot"] = "few-shot"
    name: str = "few-shot"
    role: Role = "baseline"
    shots: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of example rows; `auto` chooses among a few numbers on dev."""
    choose: ShotChoice = "auto"
    """random: the same rows for every case, spread over the answers. nearest: the rows most similar
    to each case. `auto` tries both on dev."""


class Tuned(Typed):
    """Tuned model of this job or of any run."""

    type: Literal["tuned"] = "tuned"
    run: Annotated[str, Field(min_length=1)] | None = None
    """Run whose model answers, also of another job: a run id or its first letters, `newest`, or a
    version of a registered model (NAME:3, NAME@ALIAS). By default the run of `compare --run`, or
    the newest succeeded run of this training."""
    name: str = Field(default_factory=lambda given: given.get("run") or "tuned")
    """Name in the report; by default tuned, or the run as named here."""
    role: Role = "candidate"
    prompt: Literal["own", "baseline"] = "own"
    """own: the row's own messages, as in training. baseline: the prompt that the best baseline
    chose on dev, with its instructions and shots."""


class Prompted(Typed):
    """Base of contenders with a different model and one of the same prompts."""

    prompt: PromptKind = "instructed"
    """Kind of prompt, as for the contenders of these names."""
    instructions: str | None = None
    """Instructions for instructed and few-shot; by default `evaluate.instructions` or a text made
    from train."""
    shots: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of example rows for few-shot."""
    choose: ShotChoice = "auto"
    """Choice of example rows for few-shot."""

    @model_validator(mode="after")
    def _settings_of_its_prompt(self) -> Self:
        if self.prompt != "few-shot" and (self.shots, self.choose) != ("auto", "auto"):
            raise ValueError(f"prompt {self.prompt} does not take shots or choose; few-shot does")
        if self.prompt == "zero-shot" and self.instructions is not None:
            raise ValueError(
                "prompt zero-shot does not take instructions; instructed and few-shot do"
            )
        return self


class Model(Prompted):
    """Model of any backend."""

    type: Literal["model"] = "model"
    backend: str
    """Backend that answers; `unitune backends` lists them."""
    model: str
    """Name of the model at the backend."""
    name: str = Field(default_factory=lambda given: given.get("model", "model"))
    """Name in the report; by default the model's."""
    role: Role = "reference"


class Server(Prompted):
    """Model on a server with OpenAI's chat completions API."""

    type: Literal["server"] = "server"
    url: Address
    """Base URL with its version, such as ``http://127.0.0.1:8000/v1``."""
    model: str
    """Name of the model on the server."""
    api_key_variable: VariableName | None = None
    """Environment variable with the key, which is never in a job. You must allow it for this
    address first (`unitune keys allow`)."""
    name: str = Field(default_factory=lambda given: given.get("model", "server"))
    """Name in the report; by default the model's."""
    role: Role = "reference"


class Recorded(Typed):
    """Answers recorded earlier, such as those of a retired model."""

    type: Literal["recorded"] = "recorded"
    name: str = "recorded"
    role: Role = "baseline"
    answers: str
    """JSON Lines with one object per case: ``{"case": ID, "answer": TEXT}``; ids as in
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
    """Return the prompt of an untuned model; None for tuned models and recorded answers."""
    match spec:
        case ZeroShot() | Instructed() | FewShot():
            return spec.type
        case Model() | Server():
            return spec.prompt
        case Tuned() | Recorded():
            return None


def model_of(asked: Judge | SimulatedUser) -> Model | Server:
    """Return the model of a judge or of a simulated user, as a contender."""
    if asked.url is not None:
        return Server(
            name=asked.name,
            url=asked.url,
            model=asked.model,
            api_key_variable=asked.api_key_variable,
            prompt="zero-shot",
        )
    assert asked.backend is not None, "a named model has a backend or a url"
    return Model(name=asked.name, backend=asked.backend, model=asked.model, prompt="zero-shot")
