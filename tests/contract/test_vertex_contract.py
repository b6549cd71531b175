"""The vertex backend keeps the contract, through Google's own SDKs, against its loopback server."""

from __future__ import annotations

import json

from vendors.serving import VENDORS

from unitune.job.job import Tuning
from unitune.testing.contract import BackendContract
from unitune.testing.contract_base import COLOURS


def wire_row(thing: str, colour: str) -> str:
    question = {"role": "user", "parts": [{"text": f"What is the colour of {thing}?"}]}
    answer = {"role": "model", "parts": [{"text": colour}]}
    return json.dumps({"contents": [question, answer]}) + "\n"


class TestVertex(BackendContract):
    name = "vertex"
    setup = VENDORS["vertex"]
    tuning = Tuning(epochs=2)
    slow_tuning = Tuning(epochs=100)
    rows = tuple(wire_row(*pair) for pair in COLOURS.items())
