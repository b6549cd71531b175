"""`push`: a run's model, as it was exported and verified, with its card, on the Hugging Face Hub.

What large files hold is sent first, and then all of it is one commit: so what was interrupted goes
on where it stopped, and the repository never holds half of a model. Files that are there already
make no commit. A new repository is private unless the user says otherwise, and one that others can
see is never written to by mistake. The token is that of the hub's own package: ``HF_TOKEN``, or
what ``hf auth login`` has kept.

What is published of an export are the files that it wrote, without the names of this machine's
folders, and its card. That is made beside the export, which stays as it is; large files are links
to its own.
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

from unitune.backends.exports import ABOUT, ExportForm
from unitune.backends.protocol import PUSHED, Event
from unitune.card.card import CARD_FILES, PROVENANCE, README, files_in, write_card
from unitune.card.facts import CardFacts, find_facts, refuse_other_training
from unitune.card.provenance import SIGNATURE
from unitune.errors import BackendError, MissingExtra, UnituneError, Unreachable, UserError
from unitune.ledger import Ledger
from unitune.run.run import Run
from unitune.security.redaction import redacted
from unitune.security.spec import Frozen
from unitune.workspace.filesystem import content_of, replacing, sha256
from unitune.workspace.home import home
from unitune.workspace.install import install_command

# Under which a changed model may be published by anyone who names the origin, by SPDX
FREE_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "isc", "cc0-1.0"})
PRECONDITION = 412  # status where a commit was made since the one that a push goes on from
DENIED = (401, 403)


class Pushed(Frozen):
    """What is on the Hugging Face Hub now."""

    repository: str
    """OWNER/NAME."""
    url: str
    is_private: bool
    commit: str
    is_new: bool
    """Whether there was anything to commit."""
    tag: str | None
    """``v3`` for version 3 of a registered model."""
    files: dict[str, int]
    """Bytes by path."""
    notes: tuple[str, ...]
    """What a user must know: licences, what was left out, what was not verified."""


def push(  # noqa: PLR0913 - each is independent
    run: Run,
    repository: str | None = None,
    *,
    public: bool = False,
    folder: str | os.PathLike[str] | None = None,
    form: ExportForm = "adapter",
    all_files: bool = False,
) -> Pushed:
    """Send a run's model with its card to the Hugging Face Hub, in one commit.

    Examples:
        >>> unitune.push(run, "acme/support-triage")

    Args:
        run: One that has succeeded.
        repository: OWNER/NAME, or NAME under the token's own account; None: named after the job.
        public: Whether everyone may see it. What is there already must be as is said here.
        folder: One that `Run.export` wrote; None: it is exported.
        form: Of the export where no folder is given.
        all_files: Publish files that the export did not write, too.

    Raises:
        UserError: There is no token; the repository's name is none; it can be seen by others and
            `public` was not said, or the other way round; the folder is no export of the run.
        Unsupported: The model cannot be exported.
        MissingExtra: The hub's package is not installed.
        BackendError: The hub has refused, or does not answer; what was sent stays there.
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
    if not get_token():
        raise UserError(
            "there is no token for the Hugging Face Hub. Set HF_TOKEN, or log in: hf auth login. "
            "It needs the right to write: https://huggingface.co/settings/tokens"
        )
    disable_progress_bars()
    logging.set_verbosity_error()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def _repository(api: Any, name: str, *, public: bool) -> tuple[str, str]:
    """Return a repository by its whole name, and its newest commit; it is made where it is not."""
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
            f"{full} is {there} on the Hugging Face Hub, and stays so. Push {flag}, or to another "
            "repository: --repo OWNER/NAME"
        )
    return full, str(info.sha)


def _exported(
    run: Run, folder: str | os.PathLike[str] | None, form: ExportForm, scratch: Path
) -> tuple[Path, list[str]]:
    if folder is not None:
        return Path(folder), []
    target = scratch / form
    if target.exists():  # whole and verified, of a push that was interrupted
        return target, []
    scratch.mkdir(parents=True, exist_ok=True)
    exported = run.export(form, target)
    return target, [] if exported.rows else ["the export was not verified: its program is not here"]


def _commit(api: Any, full: str, head: str, folder: Path, message: str) -> str:
    """Send what is not there yet as one commit, and return the newest one."""
    from huggingface_hub import CommitOperationAdd  # noqa: PLC0415 - an extra

    additions = [CommitOperationAdd(name, path) for name, path in files_in(folder).items()]
    return api.create_commit(full, additions, commit_message=message, parent_commit=head).oid


def _tagged(api: Any, full: str, tag: str, commit: str) -> list[str]:
    """Name a commit by the version that it holds; a tag that is there stays where it is."""
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(full).tags}
    if tag not in tags:
        api.create_tag(full, tag=tag, revision=commit)
    if tags.get(tag, commit) != commit:
        return [f"the tag {tag} is there already, on commit {tags[tag][:8]}, and stays there"]
    return []


def _licence_notes(facts: CardFacts) -> Iterator[str]:
    """Yield what is known of the right to publish, which is for the user to decide."""
    licence = facts.base.licence
    if licence is None:
        yield f"the licence of {facts.base.name} is not known here: see whether it lets you publish"
    elif licence.lower() not in FREE_LICENCES:
        yield f"{facts.base.name} has the licence {licence}: see whether it lets you publish"
    yield "the licence of the training rows is not known here: see whether it lets you publish"


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
        return UserError(f"{repository!r} cannot be a repository: {first} Name one: --repo NAME")
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if status in DENIED:
        what = f"does not let this token write to {repository}"
    elif status == PRECONDITION:
        what = f"has another commit on {repository} since this push began; push again"
    elif status is not None or isinstance(error, ValueError):
        what = "has refused"
    else:
        return Unreachable(
            f"the Hugging Face Hub does not answer: {first} Push again; what was sent stays there."
        )
    return BackendError(f"the Hugging Face Hub {what}: {first}", status=status)


# Peft's, which names the base model by the folder that it was loaded from
ADAPTER = "adapter_config.json"
# Ends of the names of files that may name a folder
TEXTS = frozenset({".json", ".md", ".sh", ".jinja", ".txt", ".yaml"})


def _publishable(
    run: Run, facts: CardFacts, export: Path, target: Path, *, all_files: bool = False
) -> list[str]:
    """Write what is published of an export into a folder, and return what a user must know of it.

    Raises:
        UserError: The folder is no export.
        Mismatch: It is an export of another training; or as of `write_card`.
    """
    if link := next((path for path in export.rglob("*") if path.is_symlink()), None):
        raise UserError(
            f"{link} is a link, which may lead anywhere. Put the file itself there, or none."
        )
    refuse_other_training(export, facts.model, run)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(export, target, copy_function=_linked)
    written = {ABOUT, SIGNATURE, *CARD_FILES, *_object(target / ABOUT).get("files", ())}
    others = [] if all_files else [name for name in files_in(target) if name not in written]
    for name in others:
        (target / name).unlink()
    left_out = f"left out, since the export did not write it (--all-files): {', '.join(others)}"
    _without_folders(target, facts.base.hub_name or facts.base.name)
    return [*([left_out] if others else []), *_with_card(run, target)]


def _with_card(run: Run, target: Path) -> Iterator[str]:
    """Write the card, unless a person has written on it; yield what is left out for that."""
    if (target / SIGNATURE).exists():
        (target / SIGNATURE).unlink()
        yield f"{SIGNATURE} is left out: it signs files that name folders of this machine"
    provenance = b""
    with suppress(OSError):
        provenance = content_of(target / PROVENANCE)
    if (target / README).exists() and sha256(target / README).encode() not in provenance:
        (target / PROVENANCE).unlink(missing_ok=True)
        yield f"{README} is yours, and stays so; {PROVENANCE}, which is of another, is left out"
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
    """Put a base's public name in place of its folder on this machine, in every file of text."""
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
            file.unlink()  # it may be the export's own
            file.write_bytes(text)
