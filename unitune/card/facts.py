"""`CardFacts`: what the ledger, the run's files and its newest comparison say, looked up once.

What none of them says is None or empty here, and "not stated" in what is written. Folders of this
machine are named by their last part alone: what is written here is published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, JsonValue, ValidationError

from unitune.backends import registry
from unitune.backends.exports import ABOUT
from unitune.backends.protocol import State, Upload
from unitune.data.hub import SCHEME
from unitune.errors import Mismatch, UserError
from unitune.evaluate.gate_record import gate_records, refuse_changed_files
from unitune.evaluate.history import history_folder, newest_of_run
from unitune.evaluate.results import Comparison, ContenderResult
from unitune.ledger import Ledger
from unitune.models import TunedModel
from unitune.planning.start import model_fingerprint
from unitune.run.exporting import model_of
from unitune.run.run import Run
from unitune.workspace.filesystem import sha256
from unitune.workspace.home import home

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
HUB_DATA = re.compile(rf"{SCHEME}({HUB_NAME.pattern})", re.ASCII)
# A model's size in its name: ``8B``; of a mixture of experts also the active part: ``A3B``
BILLIONS = re.compile(r"(?<![\w.])(?P<active>a)?(?P<count>\d+(\.\d+)?)b(?![a-z])", re.IGNORECASE)


class Base(NamedTuple):
    """The base model of a run."""

    name: str  # at the backend; of a folder its last part
    hub_name: str | None  # on the Hugging Face Hub
    licence: str | None  # by its SPDX identifier
    parameters: int | None  # those that a token passes through
    counted_by: str  # how the parameters are known, in words
    note: str = ""  # on its weights, where they are not those that the Hub has


class RowFile(NamedTuple):
    """Rows that were trained on, or that the training was looked at with."""

    name: str
    upload: Upload | None  # as the backend got it, in its own format
    path: Path | None  # the canonical rows; None: they are not on this machine


class TrainingRecord(BaseModel):
    """What a training on the user's own hardware wrote beside its adapter."""

    unitune: str | None = None
    base: str | None = None
    base_from_hub: bool | None = None
    base_parameters: int | None = None
    base_fingerprint: str | None = None
    data_fingerprint: str | None = None
    form: str = "adapter"
    """Of an export; an adapter says nothing of it."""
    settings: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class CardFacts:
    """What is known of a run and its model.

    Args:
        trained: What the training wrote; empty for a vendor's.
        rows: The files of its rows.
        tokens: That were trained on, all epochs together; None: not known.
        tokens_by: How they are known, in words.
        finished: When the training ended.
        comparison: The newest on this machine that judged this very model; None: there is none.
        elsewhere: What is on record of a newer one, whose files are not here.
    """

    run: Run
    model: TunedModel
    base: Base
    trained: TrainingRecord  # empty for a vendor's
    rows: tuple[RowFile, ...]
    tokens: int | None  # that were trained on, all epochs together; None: not known
    tokens_by: str  # how they are known, in words
    finished: datetime | None  # when the training ended
    comparison: Comparison | None  # the newest on this machine that judged this very model
    elsewhere: str  # what is on record of a newer one, whose files are not here

    @property
    def is_own(self) -> bool:
        """Whether the user's own hardware trained, which makes adapters of low rank."""
        return registry.offer(self.run.backend_name).is_own

    @property
    def model_folder(self) -> Path | None:
        """The folder of the model; None where a vendor keeps it, or it is on another machine."""
        folder = Path(self.model.name)
        return folder if folder.is_absolute() and folder.is_dir() else None

    @property
    def result(self) -> ContenderResult | None:
        """What the comparison says of this model."""
        contenders = self.comparison.contenders if self.comparison else ()
        return next((each for each in contenders if each.run == self.run.id), None)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Those of the training: all of them where it wrote them down, else those of the job."""
        tuning = self.run.job.tuning.model_dump(mode="json", exclude_defaults=True)
        return self.trained.settings or tuning

    @property
    def data_names(self) -> list[str]:
        """The training files as the job names them, without their folders."""
        names = self.run.job.data.files("train")
        return [name if name.startswith(SCHEME) else Path(name).name for name in names]

    @property
    def hub_data(self) -> list[str]:
        """The data sets of the Hugging Face Hub among them."""
        matches = (HUB_DATA.match(name) for name in self.data_names)
        return list(dict.fromkeys(match[1] for match in matches if match))


def find_facts(run: Run) -> CardFacts:
    """Return what is known of a run with a model.

    Raises:
        UserError: It has no model.
        Mismatch: The comparison, or the model that it judged, was changed since.
    """
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
    """Return what stands beside an adapter or an export; empty where there is nothing to read."""
    try:
        return TrainingRecord.model_validate_json((folder / ABOUT).read_bytes())
    except (OSError, ValidationError):
        return TrainingRecord()


def refuse_other_training(folder: Path, model: TunedModel, run: Run) -> None:
    """Refuse an export of something else than a run's model.

    Raises:
        UserError: The folder holds no export.
        Mismatch: It is an export of another training.
    """
    if not (folder / ABOUT).is_file():
        raise UserError(
            f"{folder} holds files that are no export of a run: there is no {ABOUT}. Name a folder "
            "that `unitune export` wrote, or a new one."
        )
    record = read_training_record(folder)
    trained = record.base, record.base_fingerprint, record.data_fingerprint
    if trained != (model.base, model.base_fingerprint, model.data_fingerprint):
        raise Mismatch(
            f"{folder} is the export of another training than run {run.id}: base or rows differ. "
            "Name the run that it was exported from."
        )


def _base(run: Run, trained: TrainingRecord) -> Base:
    name = run.base_model
    offered = registry.offer(run.backend_name).model(name)
    hub_name = offered.hub_name if offered else None
    if hub_name is None and _is_hub_name(name, trained):
        hub_name = name
    shown = name if hub_name else Path(name).name
    known = {
        "counted when it was trained": trained.base_parameters,
        "as its backend's offer says": offered.parameters if offered else None,
        "as its name says": _parameters_in(shown),
    }
    counted_by = next((how for how, count in known.items() if count), "")
    licence = offered.licence if offered else None
    note = offered.note if offered else ""
    return Base(shown, hub_name, licence, known.get(counted_by), counted_by, note)


def _is_hub_name(name: str, trained: TrainingRecord) -> bool:
    """Return whether a base comes from the Hub; a folder may be named like one of its models."""
    if HUB_NAME.fullmatch(name) is None:
        return False
    return not Path(name).exists() if trained.base_from_hub is None else trained.base_from_hub


def _parameters_in(name: str) -> int | None:
    """Return the parameters that a model's name tells: the active ones where it tells them."""
    sizes = {bool(match["active"]): float(match["count"]) for match in BILLIONS.finditer(name)}
    size = sizes.get(True, sizes.get(False))
    return round(size * 10**9) if size else None


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
        return bill.bill.tokens, "as the vendor bills them"
    if run.estimate is not None and (count := run.estimate.trained_tokens) is not None:
        return count.expected, "estimated before the launch"
    return None, ""


def _comparison(ledger: Ledger, run: Run, model: TunedModel) -> tuple[Comparison | None, str]:
    """Return the newest comparison of a model, and what is on record of one that is not here."""
    comparison, records = newest_of_run(run.id), gate_records(ledger, ledger.record(run.id))
    is_gone = records and not history_folder(records[0].comparison).is_dir()
    elsewhere = records[0].text if is_gone else ""
    if records and not is_gone:
        refuse_changed_files(records[0], is_shared=ledger.is_shared)
    judged = next(
        (each for each in records if comparison and each.comparison == comparison.id), None
    )
    if judged is None:  # it was no candidate there
        return comparison, elsewhere
    if judged.model_fingerprint != model_fingerprint(model):
        raise Mismatch(
            f"the model of run {run.id} is not the one that comparison {judged.comparison} has "
            "judged: its files were changed since, or are not on this machine. Compare it again: "
            f"unitune compare FILE --run {run.id}"
        )
    refuse_changed_files(judged, is_shared=ledger.is_shared)
    return comparison, elsewhere


def digest_of(file: RowFile) -> str | None:
    """Return the SHA-256 of rows as they were trained on."""
    if file.upload is not None:
        return file.upload.sha256
    return sha256(file.path) if file.path else None
