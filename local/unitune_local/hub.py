"""Models from the Hugging Face Hub: configuration, tokenizer and safetensors, and nothing else.

They stay in the hub's own cache, where other tools find them too. A snapshot that is here is used
as it is, without asking the hub again, so that a job goes on with the weights that it began with
and works offline.
"""

from __future__ import annotations

import re
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
from unitune.errors import UnknownName, Unreachable, UserError
from unitune_local.model_folder import missing_parts

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
PATTERNS = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "tokenizer.model"]


def hub_snapshot(name: str) -> Path:
    """Return the folder of a hub model, downloaded if it is not here yet.

    Raises:
        UnknownName: The hub has no such model.
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
        for repository in sorted(repositories, key=lambda one: one.repo_id)
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
        raise UnknownName("model", name, (), hint) from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise Unreachable(
            f"model {name!r} is not on this machine and the Hugging Face Hub does not answer. Try "
            "again with a network, copy the model here and give its folder, or use the embedded "
            "model smollm2-135m-instruct."
        ) from error


def _snapshot(name: str, *, local_files_only: bool) -> Path:
    download = cast("Callable[..., str]", huggingface_hub.snapshot_download)  # pyright: ignore[reportUnknownMemberType]  # its progress bar is untyped
    return Path(download(name, allow_patterns=PATTERNS, local_files_only=local_files_only))
