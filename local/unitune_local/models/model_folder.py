"""Check that a folder holds a model, and compute its fingerprint.

Fingerprints are cached, as hashing gigabytes takes seconds. A cached one is valid until the inode
of a file changes; unlike the modification time, no user can set the time of that change.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path, PurePosixPath

from unitune.data.example import digest
from unitune.errors import UserError
from unitune.files.filesystem import replacing, sha256

WEIGHTS = "*.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")  # any one of these is a tokenizer
# File systems count time in steps of up to two seconds (FAT); younger stamps identify nothing
TICK_NS = 2_000_000_000
OTHERS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)


def cache_folder() -> Path:
    """Return the model cache: UNITUNE_CACHE, else ``unitune`` in the user's cache folder."""
    if own := os.environ.get("UNITUNE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unitune"


def missing_parts(folder: Path) -> list[str]:
    """Return the parts that a folder lacks to be a model; raises UserError for an adapter."""
    if (folder / ADAPTER).exists():
        raise UserError(
            f"{folder} holds {ADAPTER}. Transformers would apply that adapter to the base model, "
            "or load the base that it names. Move the adapter to a folder of its own."
        )
    files = weight_files(folder)
    parts = {
        "config.json": (folder / "config.json").is_file(),
        "safetensors weights": bool(files) and all(file.is_file() for file in files),
        "tokenizer": any((folder / name).is_file() for name in TOKENIZERS),
    }
    return [name for name, there in parts.items() if not there]


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's weights; those that its index names, if it has one.

    Raises:
        UserError: The index names a file outside the folder.
    """
    index = folder / INDEX
    if not index.is_file():
        return sorted(folder.glob(WEIGHTS))
    shards: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    for shard in map(PurePosixPath, shards.values()):
        if shard.is_absolute() or ".." in shard.parts:
            raise UserError(f"{index} names weights outside its folder: {str(shard)!r}.")
    return [folder / shard for shard in sorted(set(shards.values()))]


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 over a model's weights, configuration, tokenizer and chat template."""
    named = [folder / name for name in (*TOKENIZERS, *OTHERS, INDEX)]
    files = sorted([*weight_files(folder), *(file for file in named if file.is_file())])
    names = {file: file.relative_to(folder).as_posix() for file in files}
    stamps = {names[file]: _stamp(file) for file in files}
    note = cache_folder() / "fingerprints" / f"{digest(str(folder.resolve()))}.json"
    if (known := _read_note(note)) and known.get("stamps") == stamps:
        return str(known["fingerprint"])
    begun = time.time_ns()
    value = digest({names[file]: sha256(file) for file in files})
    if any(stamp[-1] > begun - TICK_NS for stamp in stamps.values()):
        return value  # a change now might have the same stamps
    note.parent.mkdir(parents=True, exist_ok=True)
    with replacing(note) as file:
        json.dump({"fingerprint": value, "stamps": stamps}, file)
    return value


def _stamp(file: Path) -> list[int]:
    """Return values that change with a file.

    Source: git, "Use of index and Racy Git problem", https://git-scm.com/docs/racy-git; st_ctime:
    inode(7), which no call sets.
    """
    seen = file.stat()
    return [seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]


def _read_note(note: Path) -> dict[str, object] | None:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
