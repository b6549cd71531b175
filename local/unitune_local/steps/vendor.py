"""Define the protocol of an adapter for a vendor of training steps, and its parameters.

An adapter translates; it decides nothing. Log-probabilities and weights belong to the tokens after
the first of a sequence, one each. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import import_module
from typing import Literal, NamedTuple, Protocol, TypeAlias

from unitune.documents import Closed

Loss = Literal["cross_entropy", "importance_sampling", "ppo", "cispo"]
Logprobs: TypeAlias = list[list[float]]

# Days that a vendor keeps a checkpoint that is no longer needed
CHECKPOINT_DAYS = 7


@dataclass(frozen=True, slots=True)
class Trace:
    """A sequence of tokens, and what a loss needs to know of those after the first."""

    ids: Sequence[int]
    # cross_entropy: weights of the tokens' losses; otherwise: their advantages
    weights: Sequence[float]
    # Log-probabilities at which the tokens were sampled; only for losses of sampled answers
    sampled: Sequence[float] = ()


class Prompt(NamedTuple):
    """A prompt, and how it is answered."""

    ids: Sequence[int]
    answers: int
    max_tokens: int
    temperature: float
    seed: int


class Sampled(NamedTuple):
    """A sampled answer: its tokens, including the one that ended it, and their probabilities."""

    ids: list[int]
    logprobs: list[float]


class Saved(NamedTuple):
    """A checkpoint with weights and optimiser."""

    step: int
    position: str  # JSON of `unitune_local.training.checkpoint.Position`
    ref: str  # the vendor's name


@dataclass(frozen=True, slots=True)
class Found:
    """What a vendor keeps of a training."""

    checkpoints: Sequence[Saved] = ()
    model: str | None = None  # the finished model


class Bill(NamedTuple):
    """What a vendor has charged so far."""

    usd: Decimal | None = None  # None if unknown
    trained_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Adam:
    """Settings of an optimiser step: AdamW, as in torch; named as at Tinker."""

    learning_rate: float
    beta1: float
    beta2: float
    weight_decay: float
    grad_clip_norm: float
    eps: float = 1e-8


class Prices(Closed):
    """Prices in US dollars per million tokens; None if unknown."""

    train: Decimal | None = None
    prefill: Decimal | None = None
    sample: Decimal | None = None


class Contract(Closed):
    """Parameters of a training, for an adapter."""

    key: str
    """Launch key, which marks everything that is created."""
    base: str
    """The vendor's name of the base model."""
    rank: int = 16
    seed: int = 0
    url: str | None = None
    """Address of the server; None for the vendor's own or that of the environment."""
    tier: str | None = None
    """The vendor's name of the training's tier; None for its usual one."""
    stops: tuple[int, ...] = ()
    """Tokens that end an answer."""


class StepVendor(Protocol):
    """A vendor of steps. A method returns when its work is done, and raises `BackendError`.

    Every object at the vendor carries the launch key, so that another process finds it.
    """

    def find(self) -> Found:
        """Return what exists under the launch key, of any earlier process."""
        ...

    def begin(self, start: Saved | None) -> None:
        """Begin to train: new adapters, or the weights and optimiser of a checkpoint."""
        ...

    def logprobs(self, traces: Sequence[Trace], *, of_base: bool = False) -> Logprobs:
        """Return log-probabilities by the weights of now, or by the base model."""
        ...

    def learn(
        self, traces: Sequence[Trace], loss: Loss, config: Mapping[str, float], adam: Adam
    ) -> Logprobs:
        """Make an optimiser step on a loss; return the log-probabilities before it."""
        ...

    def sample(self, prompts: Sequence[Prompt]) -> list[list[Sampled]]:
        """Answer prompts with the weights of now."""
        ...

    def save(self, step: int, position: str) -> Saved:
        """Save weights and optimiser as a checkpoint."""
        ...

    def publish(self) -> str:
        """Save the weights of now as the finished model; return its name for requests."""
        ...

    def finish(self, word: Literal["success", "errored", "interrupted"]) -> None:
        """End what was begun; nothing is left that costs anything but storage."""
        ...

    def bill(self) -> Bill:
        """Return what the vendor has charged for the launch key so far."""
        ...


@dataclass(slots=True)
class Meter:
    """Tokens of this process, and their cost since the last checkpoint."""

    prices: Prices
    tokens: dict[str, int] = field(default_factory=lambda: {"train": 0, "prefill": 0, "sample": 0})
    usd: Decimal = Decimal(0)  # since the last checkpoint
    unpriced: int = 0  # trained tokens since the last checkpoint

    def count(self, kind: Literal["train", "prefill", "sample"], tokens: int) -> None:
        """Count tokens that the vendor charges for."""
        self.tokens[kind] += tokens
        self.unpriced += tokens if kind == "train" else 0
        price: Decimal | None = getattr(self.prices, kind)
        self.usd += (price or Decimal(0)) * tokens / 1_000_000

    def saved(self) -> None:
        """Begin again, after a checkpoint."""
        self.usd, self.unpriced = Decimal(0), 0


def connect(adapter: str, contract: Contract, key: str | None) -> StepVendor:
    """Return a vendor by its adapter, ``module:Class``."""
    module, _, name = adapter.partition(":")
    return getattr(import_module(module), name)(contract, key)
