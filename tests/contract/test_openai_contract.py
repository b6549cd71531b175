"""OpenAI's backend keeps the contract against a server on loopback."""

from __future__ import annotations

from vendors.serving import VENDORS

from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract
from unitune.testing.contract_base import ROWS


class TestOpenAI(BackendContract):
    name = "openai"
    setup = VENDORS["openai"]
    tuning = Tuning(epochs=2, batch_size=4, seed=7)
    options = {"learning_rate_multiplier": 1.5}  # noqa: RUF012 - the contract's class attribute
    rows = (*ROWS, *ROWS)  # OpenAI takes ten at least
