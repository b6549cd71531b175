"""Import a training from a vendor as a job, and record the old model's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import JsonValue

from unitune.backends import event_loop, registry
from unitune.backends.capabilities import ImportedJob, Imports
from unitune.backends.formats import Converted, convert_file
from unitune.data.example import Example
from unitune.errors import DataError, NotFoundError, Unsupported, UserError
from unitune.evaluate.inference.requests import AdaptiveLimiter, request_with_retry
from unitune.evaluate.inference.sources import answer_line, mend, read_answers
from unitune.files.filesystem import no_link, replacing
from unitune.findings import Finding
from unitune.job.contenders import Recorded, Tuned
from unitune.job.job import Data, Evaluate, Job, Tuning
from unitune.models import ChatModel, Request, TunedModel

TOOLS = ("promptfoo", "inspect", "lm-eval")  # read by `unitune.importers.import_suite`
ANSWERS = "old-answers.jsonl"
OLD_MODEL = "old-model"
IN_FLIGHT = 8  # concurrent requests; few, because no run waits for them


@dataclass(frozen=True, slots=True)
class Imported:
    """Job as written, its files, the old tuned model, and settings that could not be imported."""

    job: Job
    files: tuple[Path, ...]
    model: TunedModel | None
    notes: tuple[str, ...]


def import_job(source: str, folder: Path) -> Imported:
    """Write an existing job of a vendor as a job file with its rows.

    Args:
        source: ``BACKEND:JOB-ID``, such as ``openai:ftjob-abc123``.
        folder: Folder for the files; files there with other content are not overwritten.

    Raises:
        UserError: The source has another form, or another file is in the way.
        Unsupported: The backend cannot import, or no longer has the training file.
        NotFoundError: The backend or job does not exist.
        DataError: The vendor's rows cannot be read.
    """
    name, _, job_id = source.partition(":")
    if not job_id:
        raise UserError(
            f"{source!r} does not name a job. Write BACKEND:JOB-ID, such as openai:ftjob-abc123."
        )
    if name not in registry.backend_names():
        raise NotFoundError("backend or tool", name, {*registry.backend_names(), *TOOLS})
    backend = registry.backend(name)
    if not isinstance(backend, Imports):
        raise Unsupported(f"backend {name!r} has no jobs to import.")
    imported = backend.import_job(job_id)
    if imported.training is None:
        raise Unsupported(
            f"{name} has job {job_id} but no longer has its training file. "
            "Write the job file yourself, with your own copy of the rows."
        )
    return _write(name, job_id, imported, imported.training, folder)


def record_answers(model: TunedModel, cases: Sequence[Example], file: Path) -> list[str]:
    """Record a model's answers to all cases without one, and return the failures."""
    if file.exists():
        mend(file)
    known = read_answers(file) if file.exists() else {}
    pending = [case for case in cases if case.case_id not in known]
    chat = registry.backend(model.backend).chat(model)
    return event_loop.run(_record_all(chat, pending, file))


def _append(file: Path, line: str) -> None:
    with open(file, "a", encoding="utf-8", opener=no_link) as lines:
        lines.write(line)


async def _record_all(chat: ChatModel, cases: Sequence[Example], file: Path) -> list[str]:
    failures: list[str] = []
    pending, limiter = iter(cases), AdaptiveLimiter(IN_FLIGHT)

    async def work() -> None:
        for case in pending:
            request = Request(messages=case.prompt)
            reply = (await request_with_retry(chat, request, limiter)).reply
            if reply.error is not None:
                failures.append(f"case {case.case_id}: {reply.error}")
                continue
            _append(file, answer_line(case.case_id, reply.text))

    async with chat, asyncio.TaskGroup() as group:
        for _ in range(min(IN_FLIGHT, len(cases))):
            group.create_task(work())
    return failures


def _write(name: str, job_id: str, old: ImportedJob, training: bytes, folder: Path) -> Imported:
    form = registry.offer(name).terms(old.base_model).formats.get(old.method)
    parts = {"train.jsonl": training, "validation.jsonl": old.validation}
    with TemporaryDirectory() as temporary:
        draft = Path(temporary)
        for file, content in parts.items():
            if content is not None:
                rows = _canonical(content, form, draft / "wire.jsonl", f"{name}:{job_id}/{file}")
                (draft / file).write_bytes(rows)
        validation = "validation.jsonl" if old.validation is not None else None
        contenders = (Recorded(name=OLD_MODEL, answers=ANSWERS), Tuned())
        options: dict[str, dict[str, JsonValue]] = {name: dict(old.options)} if old.options else {}
        Job(
            name=job_name(job_id),
            model={name: old.base_model},
            backend=name,
            method=old.method,  # pyright: ignore[reportArgumentType]  # validated by the model
            start=old.start,
            data=Data(train="train.jsonl", validation=validation),
            tuning=Tuning.model_validate(dict(old.tuning)),
            evaluate=Evaluate(contenders=contenders) if old.model else Evaluate(),
            options=options,
            folder=draft,
        ).save(draft / "unitune.yaml")
        files = moved(draft, folder)
    return Imported(Job.load(folder / "unitune.yaml"), files, old.model, old.notes)


def _canonical(content: bytes, form: str | None, draft: Path, called: str) -> bytes:
    """Return a vendor's rows in canonical form."""
    if form is None:
        return content
    draft.write_bytes(content)
    items = list(convert_file(draft, source=form))
    draft.unlink()
    problems = tuple(item.at(file=called) for item in items if isinstance(item, Finding))
    if problems:
        raise DataError(
            f"{called} has {len(problems)} rows that cannot be read. The first: {problems[0]}. "
            "Nothing was written.",
            problems,
        )
    return "".join(item.text + "\n" for item in items if isinstance(item, Converted)).encode()


def moved(drafts: Path, folder: Path) -> tuple[Path, ...]:
    """Copy a folder's files into another, all or none.

    A link in place of a file is replaced; a link in place of a folder is refused.
    """
    files = {file.relative_to(drafts): file for file in sorted(drafts.rglob("*")) if file.is_file()}
    for name, draft in files.items():
        target = folder / name
        differs = target.exists() and target.read_bytes() != draft.read_bytes()
        if differs or any((folder / parent).is_symlink() for parent in name.parents[:-1]):
            what = "exists with other content" if differs else "is in a linked folder"
            raise UserError(
                f"{target} {what}. Nothing was written. Name another folder with --output."
            )
    for name, draft in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder / name) as file:
            file.buffer.write(draft.read_bytes())
    return tuple(folder / name for name in files)


def job_name(job_id: str) -> str:
    """Return a job name from the last part of a vendor's id."""
    last = job_id.rstrip("/").rpartition("/")[2].lower()
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in last)
    return kept.strip("-")[-40:].strip("-") or "imported"
