"""Whose a ``.unitune`` folder is: only one that unitune made in this place for this user is used.

A folder that came with a clone or an archive could say which deployments to take down, which jobs
to cancel and what a model has answered. So unitune leaves a mark in each folder that it makes: the
folder's path, authenticated (HMAC-SHA256) with a secret in the user's own configuration. Who does
not know the secret cannot make a mark, and the mark of one folder is none for another. Marked or
not, a folder that git tracks a file of is not used: a pull can have put it there.

`unitune.workspace.home` checks each folder that it comes across; `accept` marks one by hand.
"""

from __future__ import annotations

import hmac
import os
import secrets
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from unitune.errors import UserError
from unitune.workspace import user_config
from unitune.workspace.filesystem import no_link, private_folder, replacing
from unitune.workspace.git_index import tracked_in

NAME = ".unitune"
MARK = "owner"  # in a ``.unitune`` folder: the file with its mark
MARK_CHARACTERS = 64
# In the user's configuration folder: what marks are made with
SECRET = "secret"  # noqa: S105 - the name of a file
SECRET_BYTES = 32

DANGER = (
    "such a folder says which jobs and deployments are ended with your keys, and which answers are "
    "taken for a model's"
)


def belongs_to_another(folder: Path) -> bool:
    """Return whether a folder, or the ledger in it, is another user's; root is no exception.

    Source: git, "safe.directory", https://git-scm.com/docs/git-config (2026-11-26).
    """
    stats = map(_lstat, (folder, folder / "ledger.db"))
    return any(status is not None and status.st_uid != os.geteuid() for status in stats)


def is_empty(folder: Path) -> bool:
    """Return whether a folder has nothing in it, as a clone never brings one."""
    return next(folder.iterdir(), None) is None


def refuse_strangers(folder: Path) -> None:
    """Raise UserError unless a ``.unitune`` folder was made here for this user, or is empty."""
    _refuse_others(folder)
    if is_empty(folder) or _is_marked(folder):
        return
    raise UserError(
        f"{folder} was not made by unitune in this place for you, and is not used: it was moved or "
        "copied here, came from elsewhere, as with a clone or an archive, or was made with another "
        f"configuration folder, as in another container or under another HOME; {DANGER}. If it is "
        f"yours, run `unitune trust {shlex.quote(str(folder))}`, or name it by UNITUNE_DIR. If you "
        "do not know it, move it away."
    )


def accept(folder: Path) -> None:
    """Mark a ``.unitune`` folder that exists as one that the user trusts.

    Raises:
        UserError: There is none, it is another user's, or it has links that lead out of it.
    """
    if not folder.is_dir() or folder.name != NAME:
        raise UserError(f"{folder} is no {NAME} folder that is there. Name one.")
    _refuse_others(folder)
    if link := next((entry for entry in folder.rglob("*") if entry.is_symlink()), None):
        raise UserError(
            f"{link} is a symbolic link; unitune would write where it leads. Remove it."
        )
    mark(folder, _absolute(folder))


def mark(folder: Path, path: Path) -> None:
    """Write the mark of a path into a folder, which is about to be there.

    Raises:
        UserError: The secret cannot be kept in the user's configuration folder.
    """
    content = _mark_of(path, _secret() or _new_secret())
    with replacing(folder / MARK) as file:
        file.write(content)


def _is_marked(folder: Path) -> bool:
    status, secret = _lstat(folder / MARK), _secret()
    if secret is None or status is None or not stat.S_ISREG(status.st_mode):
        return False  # a pipe, which an archive can hold, would keep us waiting for ever
    try:
        with open(folder / MARK, encoding="ascii", opener=no_link) as file:
            written = file.read(MARK_CHARACTERS + 1)
    except (OSError, UserError, ValueError):
        return False
    return hmac.compare_digest(written, _mark_of(_absolute(folder), secret))


def _mark_of(path: Path, secret: bytes) -> str:
    return hmac.new(secret, os.fsencode(path), "sha256").hexdigest()


def _absolute(folder: Path) -> Path:
    return folder.parent.resolve() / folder.name


def _secret() -> bytes | None:
    file = user_config.folder() / SECRET
    try:
        secret = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _no_secret(error) from error
    if len(secret) != SECRET_BYTES:
        raise UserError(
            f"{file} is damaged: it has {len(secret)} bytes, not {SECRET_BYTES}. Delete it, then "
            "`unitune trust` each .unitune folder that is yours."
        )
    return secret


def _new_secret() -> bytes:
    """Make the secret, or return the secret that another process has just made."""
    folder = user_config.folder()
    try:
        private_folder(folder)
        draft = folder / f".{SECRET}.{secrets.token_hex(8)}"
        with open(draft, "xb", opener=no_link) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            with suppress(FileExistsError):
                os.link(draft, folder / SECRET)  # all of it, and only where there is none
        finally:
            draft.unlink()
    except OSError as error:
        raise _no_secret(error) from error
    return _secret() or _new_secret()


def _no_secret(error: OSError) -> UserError:
    return UserError(
        f"unitune marks the folder of its ledger as yours with a secret in {user_config.folder()}, "
        f"which cannot be used: {error.strerror or error}. Set UNITUNE_DIR to name the ledger's "
        "folder yourself, or XDG_CONFIG_HOME to a folder that you may write to."
    )


def _refuse_others(folder: Path) -> None:
    """Refuse what is no folder of the user's own, and what a repository can change by a pull."""
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a symbolic link, and is not followed. Set UNITUNE_DIR to the folder that "
            "you mean."
        )
    if belongs_to_another(folder):
        raise UserError(
            f"{folder} belongs to another user, or its ledger does, and is not used: what stands "
            "in it would be done with your keys. Set UNITUNE_DIR to a folder of your own."
        )
    if (file := tracked_in(_absolute(folder))) is not None:
        raise UserError(
            f"{folder} is not used, because git tracks a file of it, {file!r}: whoever writes to "
            f"the repository writes there, and {DANGER}. Take it out of the repository (`git rm -r "
            f"--cached {shlex.quote(str(folder))}`), and restore your own from a backup if a pull "
            "has overwritten it; or set UNITUNE_DIR to another folder."
        )


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None
