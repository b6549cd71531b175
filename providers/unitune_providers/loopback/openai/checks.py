"""What OpenAI refuses when a job is created: the body against the published bounds.

A refusal is a `Refused` with the vendor's status, code and parameter. Other vendors of the same
wire differ by what they know: see `Rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from unitune.testing.loopback import Answer

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rules:
    """What one vendor's create call knows.

    Args:
        arguments: Names at the top level.
        graders: Types of graders.
        own_hyperparameters: Names at the top level's `hyperparameters`; None: they stand in
            `method`, within OpenAI's bounds.
    """

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
    graders: tuple[str, ...] = (
        "string_check",
        "text_similarity",
        "python",
        "score_model",
        "multi",
    )
    own_hyperparameters: frozenset[str] | None = None


class Refused(Exception):
    """A request that the vendor does not accept.

    Args:
        message: In the vendor's words.
        status: HTTP status.
        code: Machine-readable.
        param: Which parameter is wrong.
    """

    def __init__(
        self, message: str, status: int = 400, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        error: dict[str, JsonValue] = {
            "message": message,
            "type": "invalid_request_error",
            "param": param,
            "code": code,
        }
        self.body: JsonValue = {"error": error}

    @property
    def answer(self) -> Answer:
        """As it goes over the wire."""
        return Answer(self.body, self.status)


@dataclass(frozen=True, slots=True)
class Bound:
    """Which values a hyperparameter takes.

    Args:
        kind: Its type.
        least: Smallest value.
        most: Largest value; None: no bound.
        open: Whether the smallest value itself is out of bounds.
        words: Texts that it takes.
    """

    kind: type = int
    least: float = 1
    most: float | None = None
    open: bool = False
    words: tuple[str, ...] = ("auto",)

    def takes(self, value: object) -> bool:
        """Whether a value is within the bounds."""
        if isinstance(value, str):
            return value in self.words
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
        "reasoning_effort": Bound(str, words=("default", "low", "medium", "high")),
        "compute_multiplier": Bound(float, 1e-5, 10, open=True),
        "eval_interval": Bound(),
        "eval_samples": Bound(),
    },
}
MOST_SEED = 2147483647
MOST_SUFFIX = 64


def check_create(body: Body, rules: Rules) -> None:
    """Refuse a create call that the vendor would refuse, whatever its files.

    Args:
        body: Of the request.
        rules: What the vendor knows.

    Raises:
        Refused: In the vendor's words.
    """
    for name in sorted(body.keys() - rules.arguments):
        raise Refused(f"Unrecognized request argument supplied: {name}")
    for name in ("model", "training_file"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise Refused(f"you must provide a {name} parameter", param=name)
    _check_suffix(body.get("suffix"))
    _check_seed(body.get("seed"))
    check_metadata(body.get("metadata"))
    if rules.own_hyperparameters is not None:
        _check_own(body, rules.own_hyperparameters)
    else:
        _check_method(body.get("method", {"type": "supervised"}), rules)
    for one in body.get("integrations") or ():
        if one.get("type") != "wandb" or not one.get("wandb", {}).get("project"):
            raise Refused("Invalid integration", param="integrations")


def method_of(body: Body) -> str:
    """Return the kind of training that a request asks for."""
    return str(body.get("method", {}).get("type", "supervised"))


def _check_suffix(suffix: object) -> None:
    if suffix is not None and not (isinstance(suffix, str) and 0 < len(suffix) <= MOST_SUFFIX):
        raise Refused(f"Invalid suffix: 1 to {MOST_SUFFIX} characters", param="suffix")


def _check_seed(seed: object) -> None:
    if seed is not None and not Bound(least=0, most=MOST_SEED, words=()).takes(seed):
        raise Refused(f"Invalid seed: 0 to {MOST_SEED}", param="seed")


def check_metadata(metadata: object) -> None:
    """Refuse metadata that is none.

    Args:
        metadata: As it was sent.

    Raises:
        Refused: In the vendor's words.
    """
    if metadata is None:
        return
    pairs = cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else None
    ok = pairs is not None and all(
        len(key) <= 64 and isinstance(value, str) and len(value) <= 512
        for key, value in pairs.items()
    )
    if pairs is None or not ok or len(pairs) > 16:
        raise Refused("Invalid metadata: 16 pairs of texts at most", param="metadata")


def _check_own(body: Body, known: frozenset[str]) -> None:
    if "method" in body and "hyperparameters" in body:
        raise Refused("Only one of 'method' or 'hyperparameters' must be provided", 422)
    for name in sorted(body.get("hyperparameters", {}).keys() - known):
        raise Refused(f"hyperparameters.{name}: extra fields not permitted", 422)


def _check_method(method: Any, rules: Rules) -> None:
    given = cast("dict[str, Any]", method) if isinstance(method, dict) else dict[str, Any]()
    kind = str(given.get("type"))
    if kind not in HYPERPARAMETERS:
        raise Refused(f"Invalid value for method.type: {kind!r}", param="method.type")
    for other in sorted(given.keys() - {"type", kind}):
        raise Refused(f"method.{other} does not go with type {kind}", param=f"method.{other}")
    inner = given.get(kind, {})
    if kind == "reinforcement" and inner.get("grader", {}).get("type") not in rules.graders:
        raise Refused("Invalid grader", param="method.reinforcement.grader")
    for name, value in inner.get("hyperparameters", {}).items():
        bound = HYPERPARAMETERS[kind].get(name)
        if bound is None or not bound.takes(value):
            place = f"method.{kind}.hyperparameters.{name}"
            raise Refused(f"Invalid value for {place}: {value!r}", param=place)
