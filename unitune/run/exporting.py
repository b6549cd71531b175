"""Download, checkpoint and export the model of a run.

An export is verified by the run's answers to rows outside of its training set. Vendors that offer
weights can give an adapter; every other form needs the backend that trains on this machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from unitune.backends import registry
from unitune.backends.capabilities import Checkpoint, Checkpoints, Downloads
from unitune.backends.local_capabilities import (
    ABOUT,
    Exported,
    ExportForm,
    Exports,
    ExportSpec,
    describe_export,
)
from unitune.backends.output_limit import LOCAL_ROOM, automatic_tokens, longest_expected
from unitune.data.example import Example, Message
from unitune.data.load import load
from unitune.errors import Unsupported, UserError
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord
from unitune.models import Request, TunedModel
from unitune.run.launching import job_of
from unitune.run.model_client import ModelClient

# Rows that verify an export; with 50, two differing rows leave 96 %. Each takes about a second
MOST_ROWS = 50
MOST_CHARACTERS = 2000  # of a raw text that is completed


def model_of(record: RunRecord) -> TunedModel:
    """Return the record of a run's model, or raise `UserError`."""
    if record.model is None:
        raise UserError(
            f"run {record.id} is {record.state} and has no model. Wait for it with `run.wait()` "
            f"or `unitune runs watch {record.id}`."
        )
    return record.model


def checkpoints(record: RunRecord) -> list[Checkpoint]:
    """Return the models saved during a run's training, oldest first, or raise `UserError`."""
    backend = registry.backend(record.backend)
    if not isinstance(backend, Checkpoints):
        raise Unsupported(f"backend {record.backend!r} does not list checkpoints.")
    return list(backend.checkpoints(job_of(record), record.base_model))


def download(record: RunRecord, folder: Path, step: int | None) -> Path:
    """Download the weights of a run's model or checkpoint; see `unitune.run.handle.Run`."""
    backend = registry.backend(record.backend)
    if not isinstance(backend, Downloads):
        raise Unsupported(f"backend {record.backend!r} does not offer weights for download.")
    if step is None:
        return backend.download(model_of(record), folder)
    models = {checkpoint.step: checkpoint.model for checkpoint in checkpoints(record)}
    if step not in models:
        known = ", ".join(map(str, models)) or "none"
        raise UserError(
            f"run {record.id} has no checkpoint at step {step}. Available steps: {known}."
        )
    return backend.download(models[step], folder)


def export(
    ledger: Ledger,
    record: RunRecord,
    form: ExportForm,
    folder: str | os.PathLike[str] | None,
    quantization: str | None,
) -> Exported:
    """Export a run's model for another program; see `unitune.run.handle.Run.export`."""
    model, backend = model_of(record), registry.backend(record.backend)
    job = ledger.job(record.id)
    target = Path(folder or f"{job.name}-{form}")
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} already exists. Remove it or choose another folder with -o DIR.")
    if isinstance(backend, Exports):
        temperature = job.evaluate.temperature
        spec = ExportSpec(
            form=form,
            folder=target,
            name=job.name,
            requests=_requests(ledger.run_folder(record.id), job),
            quantization=quantization,
            temperature=0.0 if temperature == "auto" else temperature,
            system=ModelClient(ledger, record.id, model).system,
        )
        return backend.export(model, spec)
    if isinstance(backend, Downloads) and form == "adapter" and quantization is None:
        return _downloaded(backend, model, target)
    gives = "only adapters (--to adapter)" if isinstance(backend, Downloads) else "no weights"
    raise Unsupported(
        f"backend {record.backend!r} offers {gives}. Models tuned on this machine (backend: local) "
        "can be exported in every form."
    )


def _downloaded(backend: Downloads, model: TunedModel, folder: Path) -> Exported:
    begun = time.monotonic()
    file = backend.download(model, folder)
    describe_export(folder, model, "adapter")
    return Exported(
        form="adapter",
        folder=folder,
        files={each.name: each.stat().st_size for each in (file, folder / ABOUT)},
        seconds=time.monotonic() - begun,
        program=model.backend,
        notes=(f"Downloaded from {model.backend} and not verified: no model was run.",),
    )


def _requests(folder: Path, job: Job) -> list[Request]:
    files = (folder / name for name in ("validation.jsonl", "train.jsonl"))
    file = next((file for file in files if file.exists()), None)
    rows: list[Example] = [*load(file, use="any")][:MOST_ROWS] if file else []
    if job.method == "cpt":  # a model that has seen a whole text would only end it
        texts = (row.prompt[0].text for row in rows)
        begun = (text[: min(len(text) // 2 + 1, MOST_CHARACTERS)] for text in texts)
        rows = [Example(messages=(Message(role="user", content=text),)) for text in begun]
    limit = job.evaluate.max_tokens
    if limit == "auto":
        limit = automatic_tokens(longest_expected(rows), LOCAL_ROOM)
    kwargs = job.data.chat_template_kwargs
    return [
        Request(messages=row.prompt, tools=row.tools, max_tokens=limit, chat_template_kwargs=kwargs)
        for row in rows
    ]
