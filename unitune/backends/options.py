"""Validate a job's options for a backend against their model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from unitune.errors import JobError
from unitune.files.validation import by_location, dotted_keys, part_at, sentence
from unitune.job.job import Job, other_tools

Options = TypeVar("Options", bound=BaseModel)


def job_options(job: Job, backend: str, kind: type[Options]) -> Options:
    """Return a job's options for a backend, or raise a `JobError` with all problems."""
    return validated(kind, job.options.get(backend, {}), f"options.{backend}")


def validated(kind: type[Options], given: Mapping[str, JsonValue], where: str) -> Options:
    """Return options as their model, or raise a `JobError` with all problems.

    `where` is their name in messages, such as ``options.together``.
    """
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        elsewhere = {**dotted_keys(Job), **other_tools()}
        sentences = [
            f"{'.'.join((where, *map(str, at)))} "
            + sentence(details, part_at(kind, given, at), elsewhere)
            for at, details in by_location(given, error).items()
        ]
        raise JobError("\n".join(sentences)) from error
