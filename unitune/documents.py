"""Define the base classes of documents and job files: frozen data that refuses unknown keys.

`Typed` is for lists whose entries differ by `type`, such as scorers and contenders. An entry
without options may be written as its type alone.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from textwrap import dedent
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Frozen(BaseModel):
    """Frozen data."""

    model_config = ConfigDict(frozen=True)


class Closed(Frozen):
    """Frozen data that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid")


class Spec(Closed):
    """Frozen data that refuses unknown keys and whose schema includes the docs of its fields."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        docs = field_docs(cls)
        for key, part in properties.items():
            if key in docs:
                part.setdefault("description", docs[key])
        return schema


class Typed(Spec):
    """A specification with a `type`; ``exact`` is short for ``{type: exact}``."""

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> JsonValue:
        fields = handler(self)
        if isinstance(fields, str):  # pydantic serializes a self-referencing type twice
            return fields
        content = {"type": getattr(self, "type"), **fields}  # noqa: B009 - every subclass has one
        return content["type"] if len(content) == 1 else content


@cache
def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the attribute docstrings of a model by their keys in a file.

    They are read on demand. Pydantic's `use_attribute_docstrings` reads the source of every model
    at import, which took a sixth of a command's start time.
    """
    docs: dict[str, str] = {}
    fields = model.model_fields
    for kind in reversed(model.__mro__):
        if not issubclass(kind, Spec):
            continue
        try:
            (tree,) = ast.parse(dedent(inspect.getsource(kind))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue  # typed into Python, or changed on disk since the import
        body: list[ast.stmt] = getattr(tree, "body", [])
        for statements in pairwise(body):
            match statements:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ) if name in fields:
                    docs[fields[name].alias or name] = inspect.cleandoc(text)
                case _:
                    pass
    return docs


def is_short(kind: type[Typed]) -> bool:
    """Return whether an entry of this kind may be its type alone."""
    return not any(field.is_required() for field in kind.model_fields.values())


def from_name(value: Any) -> Any:
    """Return the specification that a bare type abbreviates; other values unchanged."""
    return {"type": value} if isinstance(value, str) else value
