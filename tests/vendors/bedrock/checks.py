"""What the Bedrock on loopback refuses of a request.

Members are held against AWS's own description inside botocore, patterns and choices included, which
boto3 itself does not look at before it sends. What that description leaves open, which bases can be
tuned where and with which hyperparameters, stands in tables.

Sources: botocore, bedrock/2023-04-20; docs.aws.amazon.com/bedrock/latest/userguide:
custom-model-fine-tuning (bases and regions), cm-hp-nova-mm, cm-hp-meta-llama32 (hyperparameters);
API reference, CreateModelCustomizationJob (names, token).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from botocore.session import Session

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Refused
from vendors.bedrock.wire import refused

KINDS: Mapping[str, type | tuple[type, ...]] = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
}


@dataclass(frozen=True, slots=True)
class Bound:
    """What a hyperparameter may be."""

    kind: type[int | float]
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Base:
    """A model that can be tuned."""

    region: str
    bounds: Mapping[str, Bound] | None  # bounds by hyperparameter; None if unpublished
    validates: bool = True  # whether it takes validation rows


NOVA = {
    "epochCount": Bound(int, 1, 5),
    "learningRate": Bound(float, 1e-6, 1e-4),
    "learningRateWarmupSteps": Bound(int, 0, 100),
}
LLAMA = {
    "epochCount": Bound(int, 1, 10),
    "batchSize": Bound(int, 1, 1),
    "learningRate": Bound(float, 5e-6, 0.1),
}
EAST, WEST = "us-east-1", "us-west-2"
BASES = {
    "amazon.nova-2-lite-v1:0:256k": Base(EAST, None, validates=False),
    "amazon.nova-lite-v1:0:300k": Base(EAST, NOVA),
    "amazon.nova-micro-v1:0:128k": Base(EAST, NOVA),
    "amazon.nova-pro-v1:0:300k": Base(EAST, NOVA),
    "meta.llama3-3-70b-instruct-v1:0:128k": Base(WEST, LLAMA),
    "meta.llama3-1-8b-instruct-v1:0:128k": Base(WEST, LLAMA),
    "meta.llama3-1-70b-instruct-v1:0:128k": Base(WEST, LLAMA),
}


def invalid(message: str) -> Refused:
    """Return the refusal of a request that cannot be right."""
    return refused("ValidationException", message)


def check_members(operation: str, members: Mapping[str, Any], service: str = "bedrock") -> None:
    """Refuse members that AWS's description of an operation does not allow."""
    shape: Any = _input_of(service, operation)
    for where, value, rule in _broken(shape, members, ""):
        raise invalid(
            f"1 validation error detected: Value '{value}' at '{where}' failed to satisfy "
            f"constraint: Member must {rule}"
        )


def check_job(request: Mapping[str, Any], region: str) -> None:
    """Refuse a training that Bedrock would not take."""
    name = str(request["baseModelIdentifier"]).rpartition("foundation-model/")[2]
    base = BASES.get(name)
    if base is None or base.region != region:
        raise invalid("The provided model identifier is invalid.")
    if request.get("validationDataConfig", {}).get("validators") and not base.validates:
        raise invalid(f"Validation data is not supported for {name}.")
    for parameter, value in request.get("hyperParameters", {}).items():
        if base.bounds is not None:
            _check_hyperparameter(parameter, value, base.bounds)


def region_of(request: VendorRequest) -> str:
    """Return the region for which a request was signed."""
    scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/", request.headers.get("authorization", ""))
    return scope[1] if scope else EAST


def _check_hyperparameter(name: str, value: str, bounds: Mapping[str, Bound]) -> None:
    bound = bounds.get(name)
    if bound is None:
        raise invalid(f"Hyperparameter {name} is not known.")
    try:
        number = bound.kind(value)
    except ValueError as error:
        raise invalid(f"Hyperparameter {name} must be a number, and is {value!r}.") from error
    if not bound.least <= number <= bound.most:
        raise invalid(
            f"Hyperparameter {name} must be from {bound.least:g} to {bound.most:g}, and is {value}."
        )


@cache
def _input_of(service: str, operation: str) -> Any:
    model: Any = Session().get_service_model(service)
    return model.operation_model(operation).input_shape


def _broken(shape: Any, value: object, where: str) -> Iterator[tuple[str, object, str]]:
    """Yield each member that breaks a rule: where it is, its value, and the rule."""
    kind = KINDS.get(shape.type_name)
    if kind is not None and (not isinstance(value, kind) or (value is True and kind is not bool)):
        yield where, value, f"be a {shape.type_name}"
        return
    if isinstance(value, str):
        yield from _broken_text(shape, value, where)
    size = len(cast("Sized", value)) if isinstance(value, list | dict) else value
    if isinstance(size, int | float) and shape.type_name != "boolean":
        least, most = shape.metadata.get("min"), shape.metadata.get("max")
        if least is not None and size < float(least):
            yield where, value, f"be at least {least}"
        if most is not None and size > float(most):
            yield where, value, f"be at most {most}"
    for part, held, inside in _parts(shape, cast("object", value), where):
        yield from _broken(part, held, inside)
    if shape.type_name == "structure":
        for name in shape.required_members:
            if cast("Mapping[str, Any]", value).get(name) is None and _in_body(shape.members[name]):
                yield f"{where}.{name}".lstrip("."), "null", "not be null"


def _broken_text(shape: Any, value: str, where: str) -> Iterator[tuple[str, object, str]]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and len(value) < least:
        yield where, value, f"have length greater than or equal to {least}"
    if most is not None and len(value) > most:
        yield where, value, f"have length less than or equal to {most}"
    pattern = shape.metadata.get("pattern")
    # Java's patterns; those that Python cannot read are few.
    if pattern and not re.fullmatch(pattern, value):
        yield where, value, f"satisfy regular expression pattern: {pattern}"
    choices = shape.metadata.get("enum")
    if choices and value not in choices:
        yield where, value, f"satisfy enum value set: [{', '.join(choices)}]"


def _parts(shape: Any, value: object, where: str) -> Iterator[tuple[Any, object, str]]:
    if isinstance(value, list) and shape.type_name == "list":
        for number, held in enumerate(cast("list[object]", value), 1):
            yield shape.member, held, f"{where}.{number}.member"
    if isinstance(value, dict) and shape.type_name in ("structure", "map"):
        for name, held in cast("dict[str, object]", value).items():
            part = shape.members.get(name) if shape.type_name == "structure" else shape.value
            if part is not None and held is not None and _in_body(part):
                yield part, held, f"{where}.{name}".lstrip(".")


def _in_body(shape: Any) -> bool:
    return shape.serialization.get("location") not in ("uri", "header")
