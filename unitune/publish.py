"""Push a run's exported model with its card to the Hugging Face Hub.

Large files are uploaded first, then everything is one commit, so a push can be interrupted. Names
of local folders are removed from published files.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from unitune.backends.local_capabilities import ABOUT, ExportForm
from unitune.backends.protocol import PUSHED, Event
from unitune.card.card import CARD_FILES, PROVENANCE, README, files_in, write_card
from unitune.card.facts import CardFacts, find_facts, refuse_other_training
from unitune.card.provenance import SIGNATURE
from unitune.documents import Frozen
from unitune.errors import BackendError, MissingExtra, UnituneError, Unreachable, UserError
from unitune.files.filesystem import content_of, replacing, sha256
from unitune.ledger import Ledger
from unitune.run.run import Run
from unitune.security.redaction import redacted
from unitune.workspace.home import home
from unitune.workspace.install import install_command
from unitune.workspace.user_settings import variable

# Licences (SPDX) that allow anyone to publish a changed model with attribution
FREE_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "isc", "cc0-1.0"})
PRECONDITION = 412  # status if another commit was made during a push
DENIED = (401, 403)


class Pushed(Frozen):
    """Result of a push to the Hugging Face Hub."""

    repository: str
    """OWNER/NAME."""
    url: str
    is_private: bool
    commit: str
    is_new: bool
    """True if there was anything to commit."""
    tag: str | None
    """``v3`` for version 3 of a registered model."""
    files: dict[str, int]
    """Bytes by path."""
    notes: tuple[str, ...]
    """Information for the user: licences, files left out, missing verification."""


def push(  # noqa: PLR0913 - each is independent
    run: Run,
    repository: str | None = None,
    *,
    public: bool = False,
    folder: str | os.PathLike[str] | None = None,
    form: ExportForm = "adapter",
    all_files: bool = False,
) -> Pushed:
    """Push a run's model with its card to the Hugging Face Hub in one commit.

    Examples:
        >>> unitune.push(run, "acme/support-triage")

    Args:
        run: Succeeded run.
        repository: OWNER/NAME, or NAME under the token's account; None to use the job's name.
        public: Make the repository public (default: private). An existing one must match.
        folder: Folder written by `Run.export`; None to export the model.
        form: Form of the export if no folder is given.
        all_files: Also publish files that the export did not write.

    Raises:
        UserError: The token is missing, the name is invalid, the repository's visibility differs
            from `public`, or the folder is not an export of the run.
        Unsupported: The model cannot be exported.
        MissingExtra: The Hub's package is not installed.
        BackendError: The Hub refuses or does not respond; uploaded files stay there.
    """
    facts, api, name = find_facts(run), _api(), repository or run.job.name
    with _hub_errors(name):
        full, head = _repository(api, name, public=public)
    scratch = home() / "pushes" / run.id
    published = scratch / "published"
    export, unverified = _exported(run, folder, form, scratch)
    notes = _publishable(run, facts, export, published, all_files=all_files)
    ledger = Ledger(home())
    version = ledger.version_of_run(run.id)
    tag = f"v{version.number}" if version else None
    with _hub_errors(full):
        done = _commit(api, full, head, published, f"{run.name}, run {run.id}")
        if tag:
            notes += _tagged(api, full, tag, done)
    pushed = Pushed(
        repository=full,
        url=f"{api.endpoint}/{full}",
        is_private=not public,
        commit=done,
        is_new=done != head,
        tag=tag,
        files={name: path.stat().st_size for name, path in files_in(published).items()},
        notes=(*_licence_notes(facts), *unverified, *notes),
    )
    text = f"pushed to {pushed.url} ({'public' if public else 'private'}), commit {done[:8]}"
    event = Event(f"{PUSHED}.{full}.{done}", "message", time.time(), {"text": text})
    ledger.note(ledger.record(run.id), event)
    shutil.rmtree(scratch)
    return pushed


def _api() -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the package is imported
    try:
        from huggingface_hub import HfApi, get_token  # noqa: PLC0415 - an extra
        from huggingface_hub.utils import disable_progress_bars, logging  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra(
            f"pushing needs huggingface_hub, which is not installed: {install_command('hub')}"
        ) from error
    if not (token := variable("HF_TOKEN") or get_token()):
        raise UserError(
            "a token for the Hugging Face Hub is missing. Set HF_TOKEN, or run `hf auth login`. "
            "The token needs write access: https://huggingface.co/settings/tokens"
        )
    disable_progress_bars()
    logging.set_verbosity_error()
    return HfApi(endpoint=variable("HF_ENDPOINT") or None, token=token)


def _repository(api: Any, name: str, *, public: bool) -> tuple[str, str]:
    from huggingface_hub.errors import RepositoryNotFoundError  # noqa: PLC0415 - an extra
    from huggingface_hub.utils import validate_repo_id  # noqa: PLC0415

    full = name if "/" in name else f"{api.whoami()['name']}/{name}"
    validate_repo_id(full)
    try:
        info = api.model_info(full)
    except RepositoryNotFoundError:
        api.create_repo(full, private=not public, exist_ok=True)
        info = api.model_info(full)
    if info.private == public:
        there, flag = ("private", "without --public") if public else ("public", "with --public")
        raise UserError(
            f"{full} is {there} on the Hugging Face Hub. Push {flag}, or to another "
            "repository: --repo OWNER/NAME"
        )
    return full, str(info.sha)


def _exported(
    run: Run, folder: str | os.PathLike[str] | None, form: ExportForm, scratch: Path
) -> tuple[Path, list[str]]:
    if folder is not None:
        return Path(folder), []
    target = scratch / form
    if target.exists():  # complete, from an interrupted push
        return target, []
    scratch.mkdir(parents=True, exist_ok=True)
    exported = run.export(form, target)
    return target, [] if exported.rows else [
        "the export was not verified, because its program is not installed"
    ]


def _commit(api: Any, full: str, head: str, folder: Path, message: str) -> str:
    from huggingface_hub import CommitOperationAdd  # noqa: PLC0415 - an extra

    additions = [CommitOperationAdd(name, path) for name, path in files_in(folder).items()]
    return api.create_commit(full, additions, commit_message=message, parent_commit=head).oid


def _tagged(api: Any, full: str, tag: str, commit: str) -> list[str]:
    """Tag a commit with its version; an existing tag does not move."""
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(full).tags}
    if tag not in tags:
        api.create_tag(full, tag=tag, revision=commit)
    if tags.get(tag, commit) != commit:
        return [f"the tag {tag} already exists on commit {tags[tag][:8]} and was not moved"]
    return []


def _licence_notes(facts: CardFacts) -> Iterator[str]:
    licence = facts.base.licence
    if licence is None:
        yield f"the licence of {facts.base.name} is unknown: check whether it lets you publish"
    elif licence.lower() not in FREE_LICENCES:
        yield f"{facts.base.name} has the licence {licence}: check whether it lets you publish"
    yield "the licence of the training rows is unknown: check whether it lets you publish"


@contextmanager
def _hub_errors(repository: str) -> Generator[None]:
    try:
        yield
    except UnituneError:
        raise
    except Exception as error:
        raise _mapped(error, repository) from error


def _mapped(error: Exception, repository: str) -> UnituneError:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    reason = getattr(cause, "server_message", None) or str(cause).strip() or type(cause).__name__
    first = redacted(reason.splitlines()[0])
    if isinstance(error, HFValidationError):
        return UserError(f"{repository!r} is not a valid repository name: {first} Pass --repo NAME")
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if status in DENIED:
        what = f"does not let this token write to {repository}"
    elif status == PRECONDITION:
        what = f"has a new commit on {repository} since this push began; push again"
    elif status is not None or isinstance(error, ValueError):
        what = "refused the request"
    else:
        return Unreachable(
            f"the Hugging Face Hub does not respond: {first} Push again; uploaded files stay there."
        )
    return BackendError(f"the Hugging Face Hub {what}: {first}", status=status)


# peft's file, which names the base model by the folder it was loaded from
ADAPTER = "adapter_config.json"
# Suffixes of files that may name a folder
TEXTS = frozenset({".json", ".md", ".sh", ".jinja", ".txt", ".yaml"})


def _publishable(
    run: Run, facts: CardFacts, export: Path, target: Path, *, all_files: bool = False
) -> list[str]:
    if link := next((path for path in export.rglob("*") if path.is_symlink()), None):
        raise UserError(
            f"{link} is a link and may lead anywhere. Replace it with the file, or remove it."
        )
    refuse_other_training(export, facts.model, run)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(export, target, copy_function=_linked)
    written = {ABOUT, SIGNATURE, *CARD_FILES, *_object(target / ABOUT).get("files", ())}
    others = [] if all_files else [name for name in files_in(target) if name not in written]
    for name in others:
        (target / name).unlink()
    left_out = f"left out, because the export did not write it (--all-files): {', '.join(others)}"
    _without_folders(target, facts.base.hub_name or facts.base.name)
    return [*([left_out] if others else []), *_with_card(run, target)]


def _with_card(run: Run, target: Path) -> Iterator[str]:
    if (target / SIGNATURE).exists():
        (target / SIGNATURE).unlink()
        yield f"{SIGNATURE} is left out, because it signs files that name local folders"
    provenance = b""
    with suppress(OSError):
        provenance = content_of(target / PROVENANCE)
    if (target / README).exists() and sha256(target / README).encode() not in provenance:
        (target / PROVENANCE).unlink(missing_ok=True)
        yield f"{README} was edited and is kept; {PROVENANCE} does not match it and is left out"
        return
    for name in CARD_FILES:
        (target / name).unlink(missing_ok=True)
    write_card(run, target)


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _object(file: Path) -> dict[str, Any]:
    return TypeAdapter(dict[str, Any]).validate_json(file.read_bytes())


def _without_folders(target: Path, base: str) -> None:
    folders: set[str] = set()
    for file in (*target.rglob(ABOUT), *target.rglob(ADAPTER)):
        content = _object(file)
        named = [content.get(name) for name in ("base", "base_path", "base_model_name_or_path")]
        folders |= {name for name in named if name and Path(name).is_absolute()}
        public = {name: content[name] for name in content if name not in ("base_path", "start")}
        if "base_model_name_or_path" in public:
            public["base_model_name_or_path"] = base
        with replacing(file) as draft:
            draft.write(json.dumps(public, indent=2, ensure_ascii=False) + "\n")
    for file in (path for path in target.rglob("*") if path.suffix in TEXTS):
        text = whole = file.read_bytes()
        for folder in sorted(folders, key=len, reverse=True):
            text = text.replace(folder.encode(), base.encode())
        if text != whole:
            file.unlink()  # the file may be the export's own
            file.write_bytes(text)
