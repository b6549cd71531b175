"""Write the documents of a run's model into a folder, for example that of its export.

README.md               model card of the Hugging Face Hub (`unitune.card.model_card`)
training-summary.md     training content, by the European Commission's template (same module)
croissant.json          the rows (`unitune.card.provenance`)
provenance.intoto.json  origin of the model (`unitune.card.provenance`)
model.sig               signature of the folder (`unitune.card.provenance`)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from unitune.backends.local_capabilities import ABOUT
from unitune.card import model_card
from unitune.card.facts import CardFacts, find_facts, read_training_record, refuse_other_training
from unitune.card.provenance import BUILD_TYPE, SIGNATURE, croissant, sign, signer_of, statement
from unitune.documents import Frozen
from unitune.errors import UserError
from unitune.files.filesystem import content_of, replacing, sha256
from unitune.run.run import Run

README, SUMMARY, ROWS = "README.md", "training-summary.md", "croissant.json"
PROVENANCE = "provenance.intoto.json"
CARD_FILES = (README, SUMMARY, ROWS, PROVENANCE)


class Card(Frozen):
    """Result of writing a card."""

    folder: Path
    files: tuple[str, ...] = CARD_FILES
    model_files: tuple[str, ...]
    """Model files hashed in the provenance; empty if a vendor keeps them."""
    comparison: str | None
    """Id of the comparison with the results; None if the model was not evaluated."""
    not_stated: tuple[str, ...]
    """Information that is missing in job and run, for a person to add."""
    signature: str | None = None


def write_card(
    run: Run,
    folder: str | os.PathLike[str] | None = None,
    *,
    sign_key: str | os.PathLike[str] | None = None,
) -> Card:
    """Write the card of a run's model, training summary, description of the rows and provenance.

    Examples:
        >>> unitune.write_card(run, run.export("adapter").folder)

    Args:
        run: Succeeded run.
        folder: Folder of an export of the run, or another; None for a new one named after the job.
        sign_key: PEM file of a private elliptic-curve key that signs all files of the folder.

    Raises:
        UserError: The run has no model, a file would be lost, or the key cannot sign.
        Mismatch: The export is of another training, or the model or its comparison changed since.
        MissingExtra: The signing package is not installed.
    """
    target = Path(folder or f"{run.job.name}-card")
    signer = None if sign_key is None else signer_of(Path(sign_key))
    facts = find_facts(run)
    files = _model_files(facts, target)
    _refuse_changed_files(target, signs=sign_key is not None)
    card = {
        README: model_card.render(facts, _form(facts, target, files)),
        SUMMARY: model_card.render_summary(facts),
        ROWS: croissant(facts),
    }
    texts = card | {PROVENANCE: statement(facts, files, card)}
    target.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replacing(target / name) as file:
            file.write(text)
    return Card(
        folder=target,
        model_files=tuple(files),
        comparison=facts.comparison and facts.comparison.id,
        not_stated=tuple(model_card.not_stated(facts)),
        signature=sign(target, signer) if signer else None,
    )


def _model_files(facts: CardFacts, folder: Path) -> dict[str, Path]:
    """Return the files of a model in its export folder, or else as trained."""
    exported = files_in(folder, without=(*CARD_FILES, SIGNATURE))
    if not exported:
        return files_in(facts.model_folder) if facts.model_folder else {}
    refuse_other_training(folder, facts.model, facts.run)
    return exported


def files_in(folder: Path, without: Iterable[str] = ()) -> dict[str, Path]:
    """Return the files in a folder tree by relative name."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {name: path for name, path in files.items() if path.is_file() and name not in without}


def _form(facts: CardFacts, folder: Path, files: Mapping[str, Path]) -> str | None:
    record = read_training_record(folder) if (folder / ABOUT).exists() else facts.trained
    if not files or (record.form == "adapter" and "adapter_config.json" not in files):
        return None
    return record.form


def _refuse_changed_files(folder: Path, *, signs: bool) -> None:
    try:
        provenance = content_of(folder / PROVENANCE).decode(errors="replace")
    except OSError:
        provenance = ""
    for name in CARD_FILES:
        file = folder / name
        if not file.exists() and not file.is_symlink():
            continue
        mark = BUILD_TYPE if name == PROVENANCE else file.is_file() and sha256(file)
        if not mark or mark not in provenance:
            raise UserError(
                f"{file} was edited or not written by `unitune models card`, and is not "
                "overwritten. Move it away, or choose another folder with -o DIR."
            )
    if (folder / SIGNATURE).exists() and not signs:
        raise UserError(
            f"{folder / SIGNATURE} signs the current files. Sign again with --sign KEY, "
            "or remove it."
        )
