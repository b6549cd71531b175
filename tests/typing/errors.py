"""Catch errors by their class; each is also an error of the standard library."""

from __future__ import annotations

from typing import assert_type

import unitune
from unitune import Data, Job, UnituneError
from unitune.errors import DataError, JobError, NotFoundError


def kind(error: UnituneError) -> str:
    """Return what to do about an error."""
    match error:
        case DataError():
            assert_type(error.findings, tuple[unitune.types.Finding, ...])
            return "mend the rows"
        case unitune.errors.DuplicateRunError():
            assert_type(error.run_id, str)
            return "it is running already"
        case unitune.errors.BackendError():
            assert_type(error.status, int | None)
            return "try again" if error.is_retryable else "read what the vendor says"
        case unitune.errors.UserError():
            return "change the job"
        case _:
            return f"exit code {error.exit_code}"


caught: list[str] = []
try:
    unitune.find_run("r-none")
except LookupError as error:
    assert isinstance(error, NotFoundError)
    caught.append(kind(error))
try:
    Job.load("there-is-none.yaml")
except JobError as error:
    caught.append(kind(error))
try:
    unitune.launch(Job(name="x", model="tiny", backend="fake", data=Data(train="none.jsonl")))
except UnituneError as error:
    assert "none.jsonl" in str(error)
    caught.append(kind(error))
assert caught == ["change the job", "change the job", "mend the rows"], caught
