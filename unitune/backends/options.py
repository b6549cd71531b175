"""A backend's typed options: what a job says under ``options``, held against their model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from unitune.errors import JobError, nearest
from unitune.job.job import Job
from unitune.security.addresses import UNREPEATED

Options = TypeVar("Options", bound=BaseModel)


def job_options(job: Job, backend: str, kind: type[Options]) -> Options:
    """Return a job's options for a backend.

    Raises:
        JobError: A key is unknown or a value not allowed; says all of them.
    """
    return validated(kind, job.options.get(backend, {}), f"options.{backend}")


def validated(kind: type[Options], given: Mapping[str, JsonValue], where: str) -> Options:
    """Return options as their model.

    Args:
        kind: The model.
        given: As the user wrote them.
        where: How messages call them, such as ``options.together``.

    Raises:
        JobError: A key is unknown or a value not allowed; says all of them.
    """
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        sentences = [_sentence(detail, list(kind.model_fields), where) for detail in error.errors()]
        raise JobError("\n".join(dict.fromkeys(sentences))) from error


def _sentence(detail: ErrorDetails, known: list[str], where: str) -> str:
    words = detail["msg"].removeprefix("Value error, ")
    keys = [str(part) for part in detail["loc"] if _is_key(part)]
    if not keys:
        return f"{where}: {words}."
    place = ".".join((where, *keys))
    if detail["type"] == UNREPEATED:
        return f"{place} is not valid: {words}."
    if detail["type"] != "extra_forbidden" or len(keys) > 1:
        return f"{place} is {detail['input']!r}: {words}."
    near = nearest(keys[0], known)
    guess = f" Did you mean {near!r}?" if near else ""
    return f"{place} is not a known key.{guess} Known: {', '.join(known)}."


def _is_key(part: int | str) -> bool:
    """Return whether a part of a place is a key, and not the name of a type in a union."""
    return isinstance(part, int) or not any(mark in part for mark in "[]()'")
