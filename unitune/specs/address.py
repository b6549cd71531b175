"""An address in a job file or in options, refused where it may hold a secret."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from unitune.addresses import UNREPEATED, NotAnAddress, as_origin, checked


def _address(text: str) -> str:
    try:
        checked(text)
    except NotAnAddress as error:
        raise PydanticCustomError(UNREPEATED, "{words}", {"words": str(error)}) from None
    return text


def _origin(text: str) -> str:
    origin = as_origin(_address(text))
    if origin != text:
        raise ValueError(f"write scheme, host and port alone, as {origin}")
    return text


Address = Annotated[str, AfterValidator(_address)]
"""Scheme, host and path, such as ``https://example.com/v1``."""
Origin = Annotated[str, AfterValidator(_origin)]
"""Scheme, host and port, such as ``https://example.com``."""
