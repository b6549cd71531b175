"""Support lists of values for settings: a sweep with one run per combination of values.

    tuning: {learning_rate: [1e-4, 3e-4], lora: {rank: [8, 16]}}      four runs

`Swept` holds the first value of each list, and `variants` yields the part of each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Self, TypeAlias, cast, get_args, get_origin

from pydantic import (
    BaseModel,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails

from unitune.documents import Spec

# Maximum runs of a sweep. Three lists of five values are 125 trainings, rarely intended.
MOST_RUNS = 64
Value: TypeAlias = str | int | float
_OF_ALL_ALTERNATIVES = ("default", "description", "title")


class Swept(Spec):
    """Part of a job whose settings may be lists of values."""

    _lists: dict[str, tuple[Value, ...]] = PrivateAttr(default_factory=dict[str, tuple[Value, ...]])

    @model_validator(mode="wrap")
    @classmethod
    def _read_lists(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        lists = cls._lists_of(given)
        if not lists:
            made = handler(given)
            _check_runs(made.swept)
            return made
        _check_runs(lists)
        seen: dict[str, dict[int, Value]] = {name: {} for name in lists}
        for positions in product(*(range(len(values)) for values in lists.values())):
            at = dict(zip(lists, positions, strict=True))
            chosen = {name: lists[name][position] for name, position in at.items()}
            try:
                part = cls.model_validate({**given, **chosen})
            except ValidationError as error:
                raise _placed(error, at) from error
            for name, position in at.items():
                seen[name][position] = getattr(part, name)
        made = handler({**given, **{name: values[0] for name, values in lists.items()}})
        read = {name: tuple(values.values()) for name, values in seen.items()}
        for name, values in read.items():
            if twice := [value for at, value in enumerate(values) if value in values[:at]]:
                raise _refusal(name, values, f"{twice[0]} is in the list twice. Keep one")
        several = {name: values for name, values in read.items() if len(values) > 1}
        made._lists = several  # noqa: SLF001 - of this class
        _check_runs(made.swept)  # with the lists of the parts inside
        return made

    @classmethod
    def _lists_of(cls, given: Any) -> dict[str, list[Any]]:
        if not isinstance(given, Mapping):
            return {}
        lists = {
            name: list(cast("list[Any]", value))
            for name, value in cast("Mapping[str, Any]", given).items()
            if isinstance(value, list | tuple)
            and name in cls.model_fields
            and _takes_one_value(cls.model_fields[name])
        }
        for name, values in lists.items():
            if not values:
                raise _refusal(name, values, "the list is empty. Add values, or remove it")
            if any(isinstance(value, list | tuple) for value in values):
                raise _refusal(name, values, "the list contains a list. Use only single values")
        return lists

    @property
    def swept(self) -> dict[str, tuple[Value, ...]]:
        """Settings with a list of values, by dotted name, in field order."""
        swept: dict[str, tuple[Value, ...]] = {}
        for name in type(self).model_fields:
            inner = getattr(self, name)
            if name in self._lists:
                swept[name] = self._lists[name]
            elif isinstance(inner, Swept):
                swept |= {f"{name}.{key}": values for key, values in inner.swept.items()}
        return swept

    def variants(self) -> Iterator[Self]:
        """Yield the part of each run; the last setting changes fastest."""
        choices: dict[str, tuple[Any, ...]] = {}
        for name in type(self).model_fields:
            inner = getattr(self, name)
            if name in self._lists:
                choices[name] = self._lists[name]
            elif isinstance(inner, Swept) and inner.swept:
                choices[name] = tuple(inner.variants())
        for values in product(*choices.values()):
            variant = self.model_copy(update=dict(zip(choices, values, strict=True)))
            variant._lists = {}  # noqa: SLF001 - of this class
            yield variant

    def value_of(self, setting: str) -> Value:
        """Return the value of a setting by dotted name."""
        name, _, inner = setting.partition(".")
        value = getattr(self, name)
        return value.value_of(inner) if isinstance(value, Swept) else value

    @model_serializer(mode="wrap")
    def _with_lists(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**handler(self), **{name: list(values) for name, values in self._lists.items()}}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe settings as a value or a list of values."""
        described = super().__get_pydantic_json_schema__(core_schema, handler)
        for name, part in handler.resolve_ref_schema(described).get("properties", {}).items():
            if _takes_one_value(cls.model_fields[name]):
                single = {key: part.pop(key) for key in {*part} - {*_OF_ALL_ALTERNATIVES}}
                values = {"type": "array", "items": single, "minItems": 1, "uniqueItems": True}
                part["anyOf"] = [*single.get("anyOf", [single]), values]
        return described


def written(value: Value) -> str:
    """Return a value as written in a job file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _takes_one_value(field: FieldInfo) -> bool:
    """Return whether a setting is a single value, so that a list can only be a sweep."""
    kinds = (field.annotation, *get_args(field.annotation))
    return not any(
        get_origin(kind) is tuple or (isinstance(kind, type) and issubclass(kind, BaseModel))
        for kind in kinds
    )


def _check_runs(lists: Mapping[str, Sequence[Value]]) -> None:
    if (runs := prod(map(len, lists.values()))) > MOST_RUNS:
        factors = " x ".join(f"{len(values)} of {name}" for name, values in lists.items())
        raise ValueError(
            f"the lists make {runs:,} runs ({factors}), but a sweep has at most {MOST_RUNS}. "
            "Remove some values"
        )


def _refusal(name: str, given: object, why: str) -> ValidationError:
    error = InitErrorDetails(
        type="value_error", loc=(name,), input=given, ctx={"error": ValueError(why)}
    )
    return ValidationError.from_exception_data("list of values", [error])


def _placed(error: ValidationError, at: Mapping[str, int]) -> ValidationError:
    details: list[InitErrorDetails] = []
    for each in error.errors():
        loc = each["loc"]
        if loc and loc[0] in at:
            loc = (loc[0], at[str(loc[0])], *loc[1:])
        details.append(
            InitErrorDetails(
                type=each["type"], loc=loc, input=each["input"], ctx=each.get("ctx", {})
            )
        )
    return ValidationError.from_exception_data(error.title, details)
