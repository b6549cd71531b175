"""The computation of a training beside its base's: the one third of the European Commission.

Who modifies a general-purpose model becomes the provider of a model of their own, with duties for
the modification alone, from one third of the original's training compute on; where that is not
known, of the 10^23 floating-point operations (FLOP) from which a model counts as general-purpose.

Source: European Commission, Guidelines on the scope of the obligations for general-purpose AI
models, 2025-07-18. This is arithmetic, and not legal advice.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from unitune.card.facts import Base
from unitune.job.job import Method
from unitune.security.spec import Closed
from unitune.workspace import yaml_file

FALLBACK_FLOP = 1e23
THRESHOLD = 1 / 3
# FLOP a parameter and token where all weights learn: 2 in the forward pass and 4 in the backward
# pass, half of these for the gradients of the weights (Kaplan et al. 2020, arXiv 2001.08361, 2.1).
TRAINED_WHOLE = 6
# Where the weights stay and adapters learn: without the gradients of the weights; the adapters' own
# share is small (Schulman et al. 2025, LoRA Without Regret: slightly more than two thirds).
FROZEN = 4
FORWARD = 2
# Further forward passes a token, at most: dpo reads the rows with the model that it began with, and
# rft samples the answers and reads them with that model
EXTRA_PASSES = {"sft": 0, "dpo": 1, "rft": 2, "cpt": 0}


class Pretraining(Closed):
    """How much a family of base models has read."""

    pattern: str
    tokens: float
    source: str


class Compute(NamedTuple):
    """What a training has computed, and what its base's took."""

    factor: int  # FLOP a parameter and token
    reason: str
    flop: float | None  # none: not known
    pretraining: Pretraining | None
    base_flop: float | None

    @property
    def threshold_flop(self) -> float:
        """A third of the base's training, or of the fallback."""
        return THRESHOLD * (self.base_flop or FALLBACK_FLOP)

    @property
    def share(self) -> float | None:
        """Of the base's training, or of the fallback, that this one has taken."""
        return None if self.flop is None else THRESHOLD * self.flop / self.threshold_flop


def compute_of(base: Base, method: Method, tokens: int | None, *, trains_adapter: bool) -> Compute:
    """Return what a training has computed, beside its base's.

    Args:
        base: What was tuned.
        method: By which.
        tokens: That were trained on, all epochs together; None: not known.
        trains_adapter: Whether the base's weights are known to have stayed.
    """
    trained = FROZEN if trains_adapter else TRAINED_WHOLE
    reason = (
        "an adapter was trained, and the base's weights stayed as they are"
        if trains_adapter
        else "at most: the vendor does not say whether all weights were trained"
    )
    if extra := EXTRA_PASSES[method]:
        reason += f"; {FORWARD * extra} of them for what {method} computes besides, at most"
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
