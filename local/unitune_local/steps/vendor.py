"""Define the protocol of an adapter for a vendor of training steps, with its options and errors.

An adapter translates; it decides nothing. Log-probabilities and weights belong to the tokens after
the first of a sequence, one each. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import import_module
from typing import Annotated, Literal, NamedTuple, Protocol, TypeAlias

from pydantic import Field

from unitune.backends.kit.errors import ErrorTable, Vendor, vendor_errors
from unitune.documents import Closed, Spec
from unitune.errors import BackendError, RunFailed, UserError
from unitune.workspace.install import install_command

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


class StepOptions(Spec):
    """Options of a training at a vendor of steps."""

    base_url: str | None = None
    """Address of a server with the vendor's API; by default the vendor's own or that of the
    environment."""
    checkpoint_usd: Annotated[Decimal, Field(gt=0)] = Decimal("0.50")
    """Cost of the steps between two checkpoints, in US dollars. If the training's process dies, at
    most these steps and one more are paid for again. A step is never split. Without a known price,
    a checkpoint is saved after each million trained tokens."""
    policy_loss: Literal["importance_sampling", "ppo", "cispo"] | None = None
    """Loss of sampled answers (rft); by default importance_sampling with one update per step, and
    ppo with more."""


class AzureSessionsOptions(StepOptions):
    """Options of a training in Azure's sessions."""

    training_type: Literal["global", "data-zone", "developer"] | None = None
    """Where it trains: `global` anywhere, `data-zone` in the zone of the Foundry account,
    `developer` on idle capacity. By default, Azure chooses."""


class StepSpec(Closed):
    """Facts about the vendor, for the worker."""

    backend: str
    adapter: str
    """Adapter of the vendor, as ``module:Class``."""
    sdk: str
    """Package of the vendor, or the module that calls it, whose warnings become events."""
    key_variable: str
    contract: Contract
    options: StepOptions
    prices: Prices = Prices()


# Words of a vendor that refuses its own SDK
TOO_OLD = "SDK version is no longer supported"
ROW_TOO_LONG = "Set tuning.sequence_length, and tuning.overlength to drop or truncate."
# What to do next, by HTTP status
ADVICE = {
    402: "Add credit, then run `unitune runs resume`; it continues from the newest checkpoint.",
    410: "The session has ended. Run `unitune runs resume`, which begins another.",
    429: "Run `unitune runs resume` later, or ask for a higher limit.",
}


@contextmanager
def step_errors(
    vendor: Vendor, doing: str, table: ErrorTable, is_final: Callable[[BaseException | None], bool]
) -> Generator[None]:
    """Map an SDK's exceptions.

    Args:
        vendor: Vendor that is called.
        doing: Completes "VENDOR could not DOING".
        table: Exceptions of the SDK.
        is_final: Returns whether the same request would fail again.

    Raises:
        UserError: The SDK is too old.
        RunFailed: The same request would fail again.
        BackendError: Another failure; a resume continues.
    """
    try:
        with vendor_errors(vendor, doing, table):
            yield
    except BackendError as error:
        refuse_old_sdk(error, vendor.name)
        if is_final(error.__cause__):
            advice = f" {ROW_TOO_LONG}" if "context window" in str(error) else ""
            raise RunFailed(f"{error}{advice}") from error
        raise


def refuse_old_sdk(error: BackendError, name: str) -> None:
    """Raise `UserError` with the command that helps, if a vendor refuses the version of its SDK."""
    if TOO_OLD in str(error):
        command = install_command(name).replace("pip install", "pip install -U", 1)
        raise UserError(f"{error} Run `{command} {name}`, and launch or resume again.") from error
