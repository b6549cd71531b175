"""Compare a training's computation with a third of its base model's.

From that share, whoever modifies a general-purpose model becomes its provider. If the base's
compute is unknown, 10^23 floating-point operations (FLOP) count instead.

Source: European Commission, Guidelines on the scope of the obligations for general-purpose AI
models, 2025-07-18. Not legal advice.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from unitune.card.facts import Base
from unitune.documents import Closed
from unitune.files import yaml_file
from unitune.job.job import Method

FALLBACK_FLOP = 1e23
THRESHOLD = 1 / 3
# FLOP per parameter and token if all weights are trained: 2 in the forward and 4 in the backward
# pass, half of these for weight gradients (Kaplan et al. 2020, arXiv 2001.08361, 2.1).
TRAINED_WHOLE = 6
# FLOP if only adapters are trained: no gradients of the frozen weights, and little for the adapters
# (Schulman et al. 2025, LoRA Without Regret: slightly more than two thirds).
FROZEN = 4
FORWARD = 2
# Maximum extra forward passes per token: dpo runs the starting model on the rows, and rft samples
# the answers and runs that model on them
EXTRA_PASSES = {"sft": 0, "dpo": 1, "rft": 2, "cpt": 0}


class Pretraining(Closed):
    """Pre-training tokens of a family of base models."""

    pattern: str
    tokens: float
    source: str


class Compute(NamedTuple):
    """Computation of a training and of its base model."""

    factor: int  # FLOP per parameter and token
    reason: str
    flop: float | None  # None if unknown
    pretraining: Pretraining | None
    base_flop: float | None

    @property
    def threshold_flop(self) -> float:
        """A third of the base's training compute, or of the fallback."""
        return THRESHOLD * (self.base_flop or FALLBACK_FLOP)

    @property
    def share(self) -> float | None:
        """Share of the base's training compute, or of the fallback."""
        return None if self.flop is None else THRESHOLD * self.flop / self.threshold_flop


def compute_of(base: Base, method: Method, tokens: int | None, *, trains_adapter: bool) -> Compute:
    """Return the computation of a training on a number of tokens, and that of its base model."""
    trained = FROZEN if trains_adapter else TRAINED_WHOLE
    reason = (
        "an adapter was trained, and the base's weights were frozen"
        if trains_adapter
        else "at most: the vendor does not state whether all weights were trained"
    )
    if extra := EXTRA_PASSES[method]:
        reason += f"; {FORWARD * extra} of them for extra passes of {method}, at most"
    factor = trained + FORWARD * extra
    size, name = base.parameters, (base.hub_name or "").rpartition("/")[2].lower()
    known = next((each for each in _pretrained() if re.match(each.pattern, name)), None)
    return Compute(
        factor=factor,
        reason=reason,
        flop=factor * size * tokens if size and tokens else None,
        pretraining=known,
        base_flop=TRAINED_WHOLE * size * known.tokens if size and known else None,
    )


@cache
def _pretrained() -> list[Pretraining]:
    text = Path(__file__).with_name("pretraining.yaml").read_text(encoding="utf-8")
    return TypeAdapter(list[Pretraining]).validate_python(yaml_file.parse(text))
