"""A backend's typed options: what a job says under ``options``, held against their model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from unitune.errors import JobError
from unitune.job.job import Job
from unitune.workspace.validation import by_location, part_at, sentence

Options = TypeVar("Options", bound=BaseModel)


def job_options(job: Job, backend: str, kind: type[Options]) -> Options:
    """Return a job's options for a backend; a `JobError` says all that is wrong with them."""
    return validated(kind, job.options.get(backend, {}), f"options.{backend}")


def validated(kind: type[Options], given: Mapping[str, JsonValue], where: str) -> Options:
    """Return options, called `where` in messages, as their model; a `JobError` says all faults."""
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        sentences = [
            f"{'.'.join((where, *map(str, at)))} {sentence(details, part_at(kind, given, at))}"
            for at, details in by_location(given, error).items()
        ]
        raise JobError("\n".join(sentences)) from error
