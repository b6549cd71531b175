"""Addresses in a job file or in options, refused where they may hold a secret; variables' names."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from unitune.addresses import UNREPEATED, NotAnAddress, as_origin, checked

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""Name of an environment variable."""


def unrepeated(error: NotAnAddress) -> PydanticCustomError:
    """Return an error for pydantic that leaves the value out."""
    return PydanticCustomError(UNREPEATED, "{words}", {"words": str(error)})


def _address(text: str) -> str:
    try:
        checked(text)
    except NotAnAddress as error:
        raise unrepeated(error) from None
    return text


def _origin(text: str) -> str:
    origin = as_origin(_address(text))
    if origin != text:
        raise ValueError(f"write scheme, host and port alone, as {origin}")
    return text


Address = Annotated[str, AfterValidator(_address)]
"""Scheme, host and path, such as ``https://example.com/v1``."""


def _variable(text: str) -> str:
    if not re.fullmatch(VARIABLE, text):
        raise PydanticCustomError(
            UNREPEATED,
            "write the name of an environment variable, such as LLM_API_KEY, never a key",
        )
    return text


VariableName = Annotated[
    str, AfterValidator(_variable), Field(json_schema_extra={"pattern": VARIABLE})
]
"""Name of an environment variable with a key; what is none may be the key, and is not repeated."""
Origin = Annotated[str, AfterValidator(_origin)]
"""Scheme, host and port, such as ``https://example.com``."""
