"""The backends with OpenAI's wire keep the contract against servers on loopback."""

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


class TestAzure(BackendContract):
    name = "azure"
    setup = VENDORS["azure"]
    tuning = Tuning(epochs=2, batch_size=4, seed=7)
    options = {"training_type": "global"}  # noqa: RUF012 - the contract's class attribute
    rows = (*ROWS, *ROWS)


class TestNebius(BackendContract):
    name = "nebius"
    setup = VENDORS["nebius"]
    tuning = Tuning(epochs=2, batch_size=4, seed=7)
    options = {"lora": True}  # noqa: RUF012 - the contract's class attribute
    rows = (*ROWS, *ROWS)
