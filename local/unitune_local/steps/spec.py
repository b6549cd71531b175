"""Define the specification and the options of a training at a vendor of steps; without torch."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from unitune.documents import Closed, Spec
from unitune_local.steps.vendor import Contract, Prices


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
