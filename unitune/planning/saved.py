"""Save a plan to a file and find what has changed since."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from unitune.errors import JobError, Mismatch, UserError
from unitune.files.filesystem import content_of
from unitune.job.job import Job
from unitune.planning.plan import Plan


def refuse_errors(plan: Plan) -> None:
    """Raise UserError if a plan has errors."""
    if plan.errors:
        raise UserError(f"the plan has errors and was not saved: {plan.errors[0]}")


def saved_text(plan: Plan, path: Path, job_file: Path) -> str:
    """Return the file content of a plan. Raises UserError if it has errors."""
    refuse_errors(plan)
    if plan.bound is None:
        raise UserError(f"the plan of {job_file} is not bound to a job and cannot be saved.")
    relative = os.path.relpath(job_file.absolute(), path.absolute().parent)
    budget = Job.model_validate(plan.bound.job).budget
    given = budget if budget != Job.load(job_file).budget else None
    bound = plan.bound.model_copy(update={"job_file": relative, "given_budget": given})
    return plan.model_copy(update={"bound": bound}).model_dump_json(indent=2) + "\n"


def read(path: Path) -> Plan:
    """Read a saved plan. Raises UserError if the file is missing or is not one."""
    try:
        return Plan.model_validate_json(content_of(path))
    except OSError as failure:
        raise UserError(f"{path} cannot be read: {failure.strerror or failure}.") from failure
    except ValidationError as invalid:
        raise UserError(
            f"{path} is not a plan saved by this version of unitune. {_how_to_save(path)}"
        ) from invalid


def _how_to_save(path: Path) -> str:
    """Return the command that saves a plan. It never overwrites a file that is not a plan."""
    job = path if path.suffix in (".yaml", ".yml") else "FILE"
    return f"Save one with `unitune plan {job} -o plan.json`."


def job_of(plan: Plan, path: Path) -> Job:
    """Return the job of a saved plan from its current job file, with the command line's settings.

    Raises:
        UserError: The plan was not saved, or trains nothing.
        JobError: The job file is missing or not valid.
    """
    file, bound = job_file_of(plan, path), plan.bound
    if plan.compares_only:
        raise UserError(
            f"{path} is the plan of a comparison, which trains nothing. Run `unitune compare "
            f"{os.path.relpath(file)}`. `unitune plan --against {path} --markdown` shows what has "
            "changed since."
        )
    if bound is None or not file.exists():
        raise JobError(f"{path} was made from {file}, which no longer exists.")
    job = Job.load(file).with_backend(plan.backend).with_prices(bound.given_prices)
    given = bound.given_budget
    return job if given is None else job.model_copy(update={"budget": given})


def job_file_of(plan: Plan, path: Path) -> Path:
    """Return the path of a saved plan's job file. Raises UserError like `job_of`."""
    if plan.bound is None or plan.bound.job_file is None:
        raise UserError(f"{path} names no job file to launch. {_how_to_save(path)}")
    return path.absolute().parent / plan.bound.job_file


def refuse_changes(then: Plan, now: Plan) -> None:
    """Raise Mismatch if an input of a plan has changed."""
    changed = changes(then, now)
    if changed:
        listed = "".join(f"\n  {change}" for change in changed)
        raise Mismatch(
            f"the plan of {then.day} is no longer valid:{listed}\nNothing was launched. Save "
            "a new plan, review it and launch that."
        )


def changes(then: Plan, now: Plan) -> tuple[str, ...]:
    """Return a line for each input of a plan that has changed."""
    if then.bound is None or now.bound is None:
        return ("one of the plans is not bound to a job",)
    jobs = _differences(_flat(then.bound.job), _flat(now.bound.job))
    files = _differences(then.bound.files, now.bound.files)
    prices = _differences(prices_of(then), prices_of(now))
    start = now.bound.start
    is_other = start is not None and start.content != (then.bound.start or start).content
    return (
        *(f"job: {key} was {before!r}, is {after!r}" for key, before, after in jobs),
        *((f"start: the files in {start} have changed",) if is_other else ()),
        *(f"data: the rows in {name} have changed" for name, _, _ in files),
        *(
            f"price: {name} was {before or 'unknown'}, is {after or 'unknown'}"
            for name, before, after in prices
        ),
    )


def _differences(
    then: Mapping[str, object], now: Mapping[str, object]
) -> Iterator[tuple[str, object, object]]:
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            yield key, then.get(key), now.get(key)


def prices_of(plan: Plan) -> dict[str, str]:
    """Return the prices that a plan rests on, with their dates."""
    rows = plan.estimate.launch_prices if plan.estimate else ()
    return {f"{row.kind} of {row.model}": f"{row.rate} as of {row.as_of}" for row in rows}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping) and each:
            flat |= _flat(cast("Mapping[str, Any]", each), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = each
    return flat
