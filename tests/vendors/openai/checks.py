"""What OpenAI refuses when a job is created: the body against the published bounds.

A `Refused` has the vendor's status, code and parameter. Other vendors of the same wire differ by
what they know: see `Rules`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from unitune.testing.vendor_setup import Refused
from vendors.openai.graders import problem_of

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rules:
    """What one vendor's create call knows."""

    # arguments at the top level
    arguments: frozenset[str] = frozenset(
        {
            "model",
            "training_file",
            "validation_file",
            "hyperparameters",
            "suffix",
            "integrations",
            "seed",
            "method",
            "metadata",
        }
    )
    # types of graders
    graders: tuple[str, ...] = (
        "string_check",
        "text_similarity",
        "python",
        "score_model",
        "multi",
    )
    # names at the top level's `hyperparameters`; None: they stand in `method`, within OpenAI's
    # bounds, or at the top level for supervised jobs
    own_hyperparameters: frozenset[str] | None = None
    # hyperparameters that this vendor alone takes in `method`, by kind of training
    further: Mapping[str, Mapping[str, Bound]] = field(
        default_factory=dict[str, Mapping[str, "Bound"]]
    )
    # pattern of the models that are trained by reinforcement, and by nothing else
    reinforced: str = r"(ft:)?(o\d|gpt-[5-9])"


@dataclass(frozen=True, slots=True)
class Bound:
    """Which values a hyperparameter takes."""

    kind: type = int
    least: float = 1  # smallest value
    most: float | None = None  # largest value; None: no bound
    open: bool = False  # whether the smallest value itself is out of bounds
    choices: tuple[str, ...] = ("auto",)  # texts that it takes

    def takes(self, value: object) -> bool:
        """Whether a value is within the bounds."""
        if isinstance(value, str):
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind is int and not isinstance(value, int):
            return False
        low = value > self.least if self.open else value >= self.least
        return low and (self.most is None or value <= self.most)


SHARED = {
    "n_epochs": Bound(most=50),
    "batch_size": Bound(most=256),
    "learning_rate_multiplier": Bound(float, 0, open=True),
}
HYPERPARAMETERS: dict[str, dict[str, Bound]] = {
    "supervised": SHARED,
    "dpo": {**SHARED, "beta": Bound(float, 0, 2, open=True)},
    "reinforcement": {
        **SHARED,
        "reasoning_effort": Bound(str, choices=("default", "low", "medium", "high")),
        "compute_multiplier": Bound(float, 1e-5, 10, open=True),
        "eval_interval": Bound(),
        "eval_samples": Bound(),
    },
}
MOST_SEED = 2147483647
SUFFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_create(body: Body, rules: Rules) -> None:
    """Refuse a create call that the vendor would refuse, whatever its files."""
    for name in sorted(body.keys() - rules.arguments):
        raise Refused(400, f"Unrecognized request argument supplied: {name}")
    for name in ("model", "training_file"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise Refused(400, f"you must provide a {name} parameter", param=name)
    _check_suffix(body.get("suffix"))
    _check_seed(body.get("seed"))
    check_metadata(body.get("metadata"))
    if rules.own_hyperparameters is not None:
        _check_own(body, rules.own_hyperparameters)
    else:
        _check_top(body)
        _check_method(body.get("method", {"type": "supervised"}), rules)
        _check_trainable(str(body["model"]), method_of(body), rules)
    for integration in body.get("integrations") or ():
        if integration.get("type") != "wandb" or not integration.get("wandb", {}).get("project"):
            raise Refused(400, "Invalid integration", param="integrations")


def method_of(body: Body) -> str:
    """Return the kind of training that a request asks for."""
    return str(body.get("method", {}).get("type", "supervised"))


def _check_suffix(suffix: object) -> None:
    if suffix is not None and not (isinstance(suffix, str) and SUFFIX.fullmatch(suffix)):
        message = "Invalid suffix: 1 to 64 letters, numbers, hyphens and underscores"
        raise Refused(400, message, param="suffix")


def _check_seed(seed: object) -> None:
    if seed is not None and not Bound(least=0, most=MOST_SEED, choices=()).takes(seed):
        raise Refused(400, f"Invalid seed: 0 to {MOST_SEED}", param="seed")


def check_metadata(metadata: object) -> None:
    """Refuse metadata that is none."""
    if metadata is None:
        return
    pairs = cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else None
    ok = pairs is not None and all(
        len(key) <= 64 and isinstance(value, str) and len(value) <= 512
        for key, value in pairs.items()
    )
    if pairs is None or not ok or len(pairs) > 16:
        raise Refused(400, "Invalid metadata: 16 pairs of texts at most", param="metadata")


def _check_own(body: Body, known: frozenset[str]) -> None:
    if "method" in body and "hyperparameters" in body:
        raise Refused(422, "Only one of 'method' or 'hyperparameters' must be provided")
    for name in sorted(body.get("hyperparameters", {}).keys() - known):
        raise Refused(422, f"hyperparameters.{name}: extra fields not permitted")


def _check_method(method: Any, rules: Rules) -> None:
    given = cast("dict[str, Any]", method) if isinstance(method, dict) else dict[str, Any]()
    kind = str(given.get("type"))
    if kind not in HYPERPARAMETERS:
        raise Refused(400, f"Invalid value for method.type: {kind!r}", param="method.type")
    for other in sorted(given.keys() - {"type", kind}):
        raise Refused(400, f"method.{other} does not go with type {kind}", param=f"method.{other}")
    inner = given.get(kind, {})
    if kind == "reinforcement" and (problem := problem_of(inner.get("grader"), rules.graders)):
        raise Refused(400, f"Invalid grader: {problem}", param="method.reinforcement.grader")
    path, further = f"method.{kind}.hyperparameters", rules.further.get(kind)
    _check_bounds(inner.get("hyperparameters", {}), kind, path, further)


def _check_top(body: Body) -> None:
    """Check hyperparameters where the deprecated form has them."""
    if "hyperparameters" not in body:
        return
    if "method" in body:
        message = "Only one of 'method' or 'hyperparameters' may be provided."
        raise Refused(400, message, param="hyperparameters")
    _check_bounds(body["hyperparameters"], "supervised", "hyperparameters")


def _check_bounds(
    given: Any, kind: str, path: str, further: Mapping[str, Bound] | None = None
) -> None:
    if not isinstance(given, dict):
        raise Refused(400, f"Invalid type for {path}: expected an object", param=path)
    for name, value in cast("dict[str, Any]", given).items():
        bound = HYPERPARAMETERS[kind].get(name) or (further or {}).get(name)
        if bound is None or not bound.takes(value):
            message = f"Invalid value for {path}.{name}: {value!r}"
            raise Refused(400, message, param=f"{path}.{name}")


def _check_trainable(model: str, kind: str, rules: Rules) -> None:
    """Refuse a method that a model is not trained by."""
    if (kind == "reinforcement") != bool(re.match(rules.reinforced, model)):
        message = f"The method '{kind}' is not supported for model {model}."
        raise Refused(400, message, code="invalid_method", param="method.type")
