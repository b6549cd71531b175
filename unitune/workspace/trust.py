"""Whose a ``.unitune`` folder is: only one that unitune made in this place for this user is used.

A folder that came with a clone or an archive could say which deployments to take down, which jobs
to cancel and what a model has answered. So unitune leaves a mark in each folder that it makes: the
folder's path, authenticated (HMAC-SHA256) with a secret in the user's own configuration. Whoever
does not know the secret cannot make a mark, and the mark of one folder is none for another. Marked
or not, a folder that git tracks a file of is not used: a pull can have put it there.

`unitune.workspace.home` asks here whenever it finds a folder; `accept` is the user's word for one.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast

from unitune.errors import UserError
from unitune.workspace import user_config
from unitune.workspace.filesystem import no_link, private_folder, replacing
from unitune.workspace.git_index import tracked_in

NAME = ".unitune"
MARK = "owner"
"""In a ``.unitune`` folder: the file with its mark."""
SECRET = "secret"  # noqa: S105 - the name of a file
"""In the user's configuration folder: what marks are made with."""
SECRET_BYTES = 32
LONGEST_MARK = 1 << 14
"""Bytes; a path of Linux has 4,096 at most."""

DANGER = (
    "such a folder says which jobs and deployments are ended with your keys, and which answers are "
    "taken for a model's"
)
Standing = Literal["marked", "moved", "unmarked"]


def belongs_to_another(folder: Path) -> bool:
    """Return whether a folder, or the ledger in it, is another user's; root is no exception.

    Source: git, "safe.directory", https://git-scm.com/docs/git-config (2026-11-26).
    """
    return any(
        found is not None and found.st_uid != os.geteuid()
        for found in map(_seen, (folder, folder / "ledger.db"))
    )


def refuse_strangers(folder: Path) -> None:
    """Raise UserError unless a ``.unitune`` folder was made here for this user, or is empty."""
    _refuse_others(folder)
    _refuse_tracked(folder)
    standing = _standing(folder)
    if standing == "marked" or is_empty(folder):
        return
    came = (
        "it was moved or copied here"
        if standing == "moved"
        else "it came from elsewhere, as with a clone or an archive, or was made with another "
        "configuration folder, as in another container or under another HOME"
    )
    raise UserError(
        f"{folder} was not made by unitune in this place for you ({came}), and is not used: "
        f"{DANGER}. If it is yours, run `unitune trust {shlex.quote(str(folder))}`, or "
        "name it by UNITUNE_DIR. If you do not know it, move it away."
    )


def accept(folder: Path) -> None:
    """Mark a ``.unitune`` folder that exists as one that the user trusts.

    Raises:
        UserError: There is none, it is another user's, or it has links that lead out of it.
    """
    if not folder.is_dir() or folder.name != NAME:
        raise UserError(f"{folder} is no {NAME} folder that is there. Name one.")
    _refuse_others(folder)
    _refuse_tracked(folder)
    if link := next(_links(folder), None):
        raise UserError(
            f"{link} is a symbolic link; unitune would write where it leads. Remove it."
        )
    mark(folder, _place(folder))


def mark(folder: Path, place: Path) -> None:
    """Write the mark of a place into a folder, which is about to be there.

    Args:
        folder: Where to write.
        place: Absolute, without links.

    Raises:
        UserError: The secret cannot be kept in the user's configuration folder.
    """
    content = {"folder": str(place), "mark": _mark_of(place, _secret() or _new_secret())}
    with replacing(folder / MARK) as file:
        file.write(json.dumps(content))


def _standing(folder: Path) -> Standing:
    """Return what the mark of a folder says."""
    secret, found = _secret(), _read_mark(folder)
    if secret is None or found is None:
        return "unmarked"
    place, written = found
    if not hmac.compare_digest(written, _mark_of(Path(place), secret)):
        return "unmarked"
    return "marked" if place == str(_place(folder)) else "moved"


def _read_mark(folder: Path) -> tuple[str, str] | None:
    """Return the path that a mark names, and the mark; None where there is none."""
    seen = _seen(folder / MARK)
    if seen is None or not stat.S_ISREG(seen.st_mode):
        return None  # a pipe, which an archive can hold, would keep us waiting for ever
    try:
        with open(folder / MARK, encoding="utf-8", opener=no_link) as file:
            content = json.loads(file.read(LONGEST_MARK))
    except (OSError, UserError, ValueError, RecursionError):
        return None
    fields = cast("dict[str, object]", content) if isinstance(content, dict) else {}
    place, written = fields.get("folder"), fields.get("mark")
    if isinstance(place, str) and isinstance(written, str) and written.isascii():
        return place, written
    return None


def _mark_of(place: Path, secret: bytes) -> str:
    return hmac.new(secret, os.fsencode(place), "sha256").hexdigest()


def _place(folder: Path) -> Path:
    return folder.parent.resolve() / folder.name


def _secret() -> bytes | None:
    """Return the user's secret; None where none was made yet."""
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
    """Make the secret, or return the one that another process has just made."""
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
    """Refuse what is no folder of the user's own."""
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


def _refuse_tracked(folder: Path) -> None:
    """Refuse what came with a repository, or can be changed by its next pull."""
    file = tracked_in(_place(folder))
    if file is not None:
        raise UserError(
            f"{folder} is not used, because git tracks a file of it, {file!r}: whoever writes to "
            f"the repository writes there, and {DANGER}. Take it out of the repository (`git rm -r "
            f"--cached {shlex.quote(str(folder))}`), and restore your own from a backup if a pull "
            "has overwritten it; or set UNITUNE_DIR to another folder."
        )


def _links(folder: Path) -> Iterator[Path]:
    """Yield the symbolic links in a folder."""
    yield from (entry for entry in folder.rglob("*") if entry.is_symlink())


def is_empty(folder: Path) -> bool:
    """Return whether a folder has nothing in it, as a clone never brings one."""
    return next(folder.iterdir(), None) is None


def _seen(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None
