"""What is published of an export: its files without the names of this machine's folders, its card.

It is made beside the export, which stays as it is; large files are links to the export's own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

from unitune.backends.exports import ABOUT
from unitune.card.card import CARD_FILES, PROVENANCE, README, write_card
from unitune.card.facts import CardFacts, refuse_other_training
from unitune.card.signing import SIGNATURE
from unitune.errors import UserError
from unitune.run.run import Run
from unitune.workspace.filesystem import content_of, replacing, sha256

ADAPTER = "adapter_config.json"
"""peft's, which names the base model by the folder that it was loaded from."""
Notes = list[str]


def publishable(run: Run, facts: CardFacts, export: Path, target: Path) -> Notes:
    """Write what is published of an export into a folder, and return what a user must know of it.

    Args:
        run: Whose export it is.
        facts: Of the run.
        export: A folder that `unitune export` wrote.
        target: Removed first where it is there.

    Raises:
        UserError: The folder is no export.
        Mismatch: It is an export of another training; or as of `write_card`.
    """
    _refuse_links(export)
    refuse_other_training(export, facts.model, run)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(export, target, copy_function=_linked)
    base = facts.base.hub_name or facts.base.name
    for file in (*target.rglob(ABOUT), *target.rglob(ADAPTER)):
        _without_folders(file, base)
    return list(_with_card(run, target))


def _refuse_links(export: Path) -> None:
    if link := next((path for path in export.rglob("*") if path.is_symlink()), None):
        raise UserError(
            f"{link} is a link, which may lead anywhere. Put the file itself there, or none."
        )


def _with_card(run: Run, target: Path) -> Iterator[str]:
    """Write the card, unless a person has written on it; yield what is left out for that."""
    if (target / SIGNATURE).exists():
        (target / SIGNATURE).unlink()
        yield f"{SIGNATURE} is left out: it signs files that name folders of this machine"
    provenance = b""
    with suppress(OSError):
        provenance = content_of(target / PROVENANCE)
    edited = (target / README).exists() and sha256(target / README).encode() not in provenance
    if edited:
        (target / PROVENANCE).unlink(missing_ok=True)
        yield f"{README} is yours, and stays so; {PROVENANCE}, which is of another, is left out"
        return
    for name in CARD_FILES:
        (target / name).unlink(missing_ok=True)
    write_card(run, target)


def _linked(source: str, target: str) -> str:
    """Link a file instead of a copy, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _without_folders(file: Path, base: str) -> None:
    """Write a file of settings anew, with the base model by its public name."""
    content = TypeAdapter(dict[str, JsonValue]).validate_json(file.read_bytes())
    public = {name: value for name, value in content.items() if name not in ("base_path", "start")}
    if "base_model_name_or_path" in public:
        public["base_model_name_or_path"] = base
    with replacing(file) as draft:
        draft.write(json.dumps(public, indent=2, ensure_ascii=False) + "\n")
