"""Collect facts about a run, with local folders reduced to their last part for publication."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, JsonValue, ValidationError

from unitune.backends import registry
from unitune.backends.local_capabilities import ABOUT
from unitune.backends.protocol import State, Upload
from unitune.cost.machine_hours import parameters_in
from unitune.data.binary_tables import SCHEME
from unitune.errors import Mismatch, UserError
from unitune.evaluate.documents.history import history_folder, newest_of_run
from unitune.evaluate.documents.results import Comparison, ContenderResult
from unitune.evaluate.prompts.tuned_run import gate_records, refuse_changed_files
from unitune.files.filesystem import sha256
from unitune.ledger import Ledger
from unitune.models import TunedModel
from unitune.planning.start import model_fingerprint
from unitune.run.exporting import model_of
from unitune.run.run import Run
from unitune.workspace.home import home

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
HUB_DATA = re.compile(rf"{SCHEME}({HUB_NAME.pattern})", re.ASCII)


class Base(NamedTuple):
    """Base model of a run."""

    name: str  # name at the backend; for a folder its last part
    hub_name: str | None  # name on the Hugging Face Hub
    licence: str | None  # SPDX identifier
    parameters: int | None  # active parameters per token
    counted_by: str  # source of the parameter count, in words
    note: str = ""  # on weights that differ from those on the Hub


class RowFile(NamedTuple):
    """Rows for training or validation."""

    name: str
    upload: Upload | None  # as uploaded, in the backend's format
    path: Path | None  # canonical rows; None if not on this machine


class TrainingRecord(BaseModel):
    """Record that a local training wrote next to its adapter."""

    unitune: str | None = None
    base: str | None = None
    base_from_hub: bool | None = None
    base_parameters: int | None = None
    base_fingerprint: str | None = None
    data_fingerprint: str | None = None
    form: str = "adapter"
    """Form of an export; an adapter has none."""
    settings: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class CardFacts:
    """Facts about a run and its model."""

    run: Run
    model: TunedModel
    base: Base
    trained: TrainingRecord  # empty for a vendor's training
    rows: tuple[RowFile, ...]
    tokens: int | None  # trained on in all epochs; None if unknown
    tokens_by: str  # source of the token count, in words
    finished: datetime | None  # end of the training
    comparison: Comparison | None  # newest one of this model on this machine
    elsewhere: str  # record of a newer one without local files

    @property
    def is_own(self) -> bool:
        """True if the user's own hardware trained, which produces low-rank adapters."""
        return registry.offer(self.run.backend_name).is_own

    @property
    def model_folder(self) -> Path | None:
        """Folder of the model; None if it is at a vendor or on another machine."""
        folder = Path(self.model.name)
        return folder if folder.is_absolute() and folder.is_dir() else None

    @property
    def result(self) -> ContenderResult | None:
        """Result of this model in the comparison."""
        contenders = self.comparison.contenders if self.comparison else ()
        return next((each for each in contenders if each.run == self.run.id), None)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings of the training if it recorded them, otherwise those of the job."""
        tuning = self.run.job.tuning.model_dump(mode="json", exclude_defaults=True)
        return self.trained.settings or tuning

    @property
    def data_names(self) -> list[str]:
        """Training files as named in the job, without their folders."""
        names = self.run.job.data.files("train")
        return [name if name.startswith(SCHEME) else Path(name).name for name in names]

    @property
    def hub_data(self) -> list[str]:
        """Data sets of the Hugging Face Hub among the training files."""
        matches = (HUB_DATA.match(name) for name in self.data_names)
        return list(dict.fromkeys(match[1] for match in matches if match))


def find_facts(run: Run) -> CardFacts:
    """Return the facts about a run; raises `UserError` without a model, and `Mismatch`."""
    ledger = Ledger(home())
    record = ledger.record(run.id)
    model = model_of(record)
    trained = read_training_record(Path(model.name))
    tokens, tokens_by = _tokens(run)
    comparison, elsewhere = _comparison(ledger, run, model)
    ends = [seen.time for seen in run.transitions() if seen.state is State.SUCCEEDED]
    return CardFacts(
        run=run,
        model=model,
        base=_base(run, trained),
        trained=trained,
        rows=tuple(_row_files(run.folder, ledger.uploads(run.id))),
        tokens=tokens,
        tokens_by=tokens_by,
        finished=datetime.fromtimestamp(ends[-1], UTC) if ends else None,
        comparison=comparison,
        elsewhere=elsewhere,
    )


def read_training_record(folder: Path) -> TrainingRecord:
    """Return the record of an adapter or export; empty if there is none."""
    try:
        return TrainingRecord.model_validate_json((folder / ABOUT).read_bytes())
    except (OSError, ValidationError):
        return TrainingRecord()


def refuse_other_training(folder: Path, model: TunedModel, run: Run) -> None:
    """Raise `UserError` for a folder that is not an export, `Mismatch` for another training's."""
    if not (folder / ABOUT).is_file():
        raise UserError(
            f"{folder} is not an export of a run: it has no {ABOUT}. Name a folder "
            "written by `unitune models export`, or a new one."
        )
    record = read_training_record(folder)
    trained = record.base, record.base_fingerprint, record.data_fingerprint
    if trained != (model.base, model.base_fingerprint, model.data_fingerprint):
        raise Mismatch(
            f"{folder} is the export of another training, not of run {run.id}: base or rows "
            "differ. Name the run that it was exported from."
        )


def _base(run: Run, trained: TrainingRecord) -> Base:
    name = run.base_model
    offered = registry.offer(run.backend_name).model(name)
    hub_name = offered.hub_name if offered else None
    if hub_name is None and _is_hub_name(name, trained):
        hub_name = name
    shown = name if hub_name else Path(name).name
    known = {
        "counted in the training": trained.base_parameters,
        "from the backend's offer": offered.parameters if offered else None,
        "from its name": parameters_in(shown),
    }
    counted_by = next((how for how, count in known.items() if count), "")
    licence = offered.licence if offered else None
    note = offered.note if offered else ""
    return Base(shown, hub_name, licence, known.get(counted_by), counted_by, note)


def _is_hub_name(name: str, trained: TrainingRecord) -> bool:
    """Return whether a base comes from the Hub; a folder may have the same name."""
    if HUB_NAME.fullmatch(name) is None:
        return False
    return not Path(name).exists() if trained.base_from_hub is None else trained.base_from_hub


def _row_files(folder: Path, uploads: dict[str, Upload]) -> Iterator[RowFile]:
    for name in ("train.jsonl", "validation.jsonl"):
        path = folder / name
        if name in uploads or path.is_file():
            yield RowFile(name, uploads.get(name), path if path.is_file() else None)


def _tokens(run: Run) -> tuple[int | None, str]:
    steps = [event.number("tokens") for event in run.events() if event.kind == "step"]
    if registry.offer(run.backend_name).is_own and steps and None not in steps:
        return round(sum(filter(None, steps))), "counted in the training"
    if (bill := run.reconciliation) is not None and bill.bill.tokens is not None:
        return bill.bill.tokens, "as billed by the vendor"
    if run.estimate is not None and (count := run.estimate.trained_tokens) is not None:
        return count.expected, "estimated before the launch"
    return None, ""


def _comparison(ledger: Ledger, run: Run, model: TunedModel) -> tuple[Comparison | None, str]:
    comparison, records = newest_of_run(run.id), gate_records(ledger, ledger.record(run.id))
    is_gone = records and not history_folder(records[0].comparison).is_dir()
    elsewhere = records[0].text if is_gone else ""
    if records and not is_gone:
        refuse_changed_files(records[0], is_shared=ledger.is_shared)
    judged = next(
        (each for each in records if comparison and each.comparison == comparison.id), None
    )
    if judged is None:  # it was not the candidate
        return comparison, elsewhere
    if judged.model_fingerprint != model_fingerprint(model):
        raise Mismatch(
            f"the model of run {run.id} is not the one in comparison {judged.comparison}: its "
            "files changed since, or are not on this machine. Compare it again: unitune compare "
            f"FILE --run {run.id}"
        )
    refuse_changed_files(judged, is_shared=ledger.is_shared)
    return comparison, elsewhere


def digest_of(file: RowFile) -> str | None:
    """Return the SHA-256 of rows as used for training."""
    if file.upload is not None:
        return file.upload.sha256
    return sha256(file.path) if file.path else None
