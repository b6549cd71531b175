"""What leaves a run for other programs: its model, its checkpoints' weights, its exports.

An export is held against the run's own answers to the rows that it was not trained on. Vendors that
hand out weights can give an adapter; every other form is made by the backend that trains here.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from unitune.backends import registry
from unitune.backends.capabilities import (
    Checkpoint,
    Checkpoints,
    Downloads,
)
from unitune.backends.exports import (
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

# Rows that verify an export: of 50, two others make 96 %, and each takes a second or so
MOST_ROWS = 50


def model_of(record: RunRecord) -> TunedModel:
    """Return the record of the model that a run left behind.

    Raises:
        UserError: It has none, or none yet.
    """
    if record.model is None:
        raise UserError(
            f"run {record.id} is {record.state} and has no model. Wait for it with `run.wait()` or "
            f"`unitune watch {record.id}`."
        )
    return record.model


def checkpoints(record: RunRecord) -> list[Checkpoint]:
    """Return the models saved during a run's training, oldest first.

    Raises:
        UserError: The run has no job yet.
        Unsupported: Its backend lists none.
    """
    backend = registry.backend(record.backend)
    if not isinstance(backend, Checkpoints):
        raise Unsupported(f"backend {record.backend!r} lists no checkpoints.")
    return list(backend.checkpoints(job_of(record), record.base_model))


def download(record: RunRecord, folder: Path, step: int | None) -> Path:
    """Write the weights of a run's model, or of a checkpoint; see `unitune.run.handle.Run`."""
    backend = registry.backend(record.backend)
    if not isinstance(backend, Downloads):
        raise Unsupported(f"backend {record.backend!r} does not hand out weights.")
    if step is None:
        return backend.download(model_of(record), folder)
    models = {checkpoint.step: checkpoint.model for checkpoint in checkpoints(record)}
    if step not in models:
        known = ", ".join(map(str, models)) or "none"
        raise UserError(f"run {record.id} has no checkpoint of step {step}. There are: {known}.")
    return backend.download(models[step], folder)


def export(
    ledger: Ledger,
    record: RunRecord,
    form: ExportForm,
    folder: str | os.PathLike[str] | None,
    quantization: str | None,
) -> Exported:
    """Write a run's model in another program's form; see `unitune.run.handle.Run.export`."""
    model, backend = model_of(record), registry.backend(record.backend)
    job = ledger.job(record.id)
    target = Path(folder or f"{job.name}-{form}")
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} is there already. Remove it, or choose another with -o DIR.")
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
    gives = "an adapter alone: --to adapter" if isinstance(backend, Downloads) else "no weights"
    raise Unsupported(
        f"backend {record.backend!r} gives {gives}. Models that were tuned on this machine "
        "(backend: local) can be exported in every form."
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
        notes=(f"It is what {model.backend} hands out, and was not verified: no model was run.",),
    )


def _requests(folder: Path, job: Job) -> list[Request]:
    """Return the rows that verify an export, as an evaluation asks them, answered greedily."""
    files = (folder / name for name in ("validation.jsonl", "train.jsonl"))
    file = next((file for file in files if file.exists()), None)
    rows: list[Example] = [*load(file, use="any")][:MOST_ROWS] if file else []
    if job.method == "cpt":  # a model that has seen a whole text would only end it
        texts = (row.prompt[0].text for row in rows)
        begun = (text[: min(len(text) // 2 + 1, 2000)] for text in texts)
        rows = [Example(messages=(Message(role="user", content=text),)) for text in begun]
    limit = job.evaluate.max_tokens
    if limit == "auto":
        limit = automatic_tokens(longest_expected(rows), LOCAL_ROOM)
    kwargs = job.data.chat_template_kwargs
    return [
        Request(messages=row.prompt, tools=row.tools, max_tokens=limit, chat_template_kwargs=kwargs)
        for row in rows
    ]
