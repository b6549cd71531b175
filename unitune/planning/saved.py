"""A plan as a file, and what has changed since it was saved: `unitune plan -o`, `unitune apply`.

A saved plan is bound to the job, to the rows as they would be handed over, and to the prices that
it rests on. Who has read and approved it launches exactly that, or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from unitune.errors import JobError, UserError
from unitune.job.job import Job
from unitune.job.prices import PriceRow
from unitune.planning.documents import Plan
from unitune.workspace.filesystem import content_of


def refuse_errors(found: Plan) -> None:
    """Refuse to save a plan that no launch would follow.

    Raises:
        UserError: The plan has errors.
    """
    if found.errors:
        raise UserError(f"the plan has errors and was not saved: {found.errors[0]}")


def saved_text(found: Plan, path: Path, job_file: Path) -> str:
    """Return a plan that can be applied, as its file holds it, with what its command line said.

    Args:
        found: Of one backend, without errors.
        path: Where it goes.
        job_file: What it was made from.

    Raises:
        UserError: The plan has errors.
    """
    refuse_errors(found)
    if found.bound is None:
        raise UserError(f"the plan of {job_file} is bound to no job, and cannot be saved.")
    place = os.path.relpath(job_file.absolute(), path.absolute().parent)
    budget = Job.model_validate(found.bound.job).budget
    given = budget if budget != Job.load(job_file).budget else None
    bound = found.bound.model_copy(update={"job_file": place, "given_budget": given})
    saved = found.model_copy(update={"bound": bound})
    return saved.model_dump_json(indent=2) + "\n"


def read(path: Path) -> Plan:
    """Read a saved plan.

    Raises:
        UserError: The file is missing or no saved plan.
    """
    try:
        return Plan.model_validate_json(content_of(path))
    except OSError as failure:
        raise UserError(f"{path} cannot be read: {failure.strerror or failure}.") from failure
    except ValidationError as invalid:
        raise UserError(
            f"{path} is no plan that this version of unitune has saved. {_how_to_save(path)}"
        ) from invalid


def _how_to_save(path: Path) -> str:
    """Say how a plan is saved, never over what stands at a path that is none."""
    job = path if path.suffix in (".yaml", ".yml") else "FILE"
    return f"Save one with `unitune plan {job} -o plan.json`."


def job_of(found: Plan, path: Path) -> Job:
    """Return the job of a saved plan, as its file stands now, with what the plan was given.

    Args:
        found: The plan.
        path: Where it was read.

    Raises:
        UserError: The plan was not saved to be applied.
        JobError: The job file is missing or not valid.
    """
    if found.bound is None or found.bound.job_file is None:
        raise UserError(f"{path} names no job file to launch. {_how_to_save(path)}")
    file = path.absolute().parent / found.bound.job_file
    if not file.exists():
        raise JobError(f"{path} was made from {file}, which is not there any more.")
    job = Job.load(file).with_backend(found.backend).with_prices(found.bound.given_prices)
    given = found.bound.given_budget
    return job if given is None else job.model_copy(update={"budget": given})


def changes(then: Plan, now: Plan) -> tuple[str, ...]:
    """Return what a plan rests on that is not as it was, a sentence each.

    Args:
        then: As saved.
        now: Of the same job today.
    """
    if then.bound is None or now.bound is None:
        return ("one of the plans names nothing that it holds for",)
    return (
        *_job_changes(then.bound.job, now.bound.job),
        *_file_changes(then.bound.files, now.bound.files),
        *_price_changes(_prices(then), _prices(now)),
    )


def _job_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    before, after = _flat(then), _flat(now)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"job: {key} was {before.get(key)!r}, is {after.get(key)!r}"


def _file_changes(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield f"data: the rows in {name} are others"


def _price_changes(then: Mapping[str, PriceRow], now: Mapping[str, PriceRow]) -> Iterator[str]:
    for what in sorted(then.keys() | now.keys()):
        before, after = then.get(what), now.get(what)
        if before != after:
            yield f"price: {what} was {_said(before)}, is {_said(after)}"


def _prices(found: Plan) -> dict[str, PriceRow]:
    rows = found.estimate.launch_prices if found.estimate else ()
    return {f"{row.kind} of {row.model}": row for row in rows}


def _said(row: PriceRow | None) -> str:
    return "unknown" if row is None else f"{row.amount} per {row.per} as of {row.as_of}"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted names."""
    found: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping) and each:
            found |= _flat(cast("Mapping[str, Any]", each), f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = each
    return found
