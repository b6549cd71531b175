"""Find and create the user's state folder and a project's ``.unitune``.

The state folder has the ledger. Files in ``.unitune`` count only if the state folder refers to
them. ``UNITUNE_DIR`` names one folder for both.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from platformdirs import user_state_path

from unitune.errors import UserError
from unitune.files.filesystem import (
    content_of,
    private_file,
    private_folder,
    refuse_strangers,
    replacing,
)
from unitune.files.system import is_own
from unitune.workspace.user_settings import variable

# File system types of Linux whose locks SQLite cannot rely on. 9p and virtiofs are not among them:
# containers use them for the root of a single machine. Source: "How To Corrupt An SQLite
# Database File", section 2.1, https://sqlite.org/howtocorrupt.html (2026-11-25).
NETWORK_FILE_SYSTEMS = re.compile(
    r"afs|beegfs|ceph|cifs|fuse\.(glusterfs|sshfs)|glusterfs|gpfs|lustre|ncpfs|nfs4?|pvfs2|smb3|smbfs"
)
NAME = ".unitune"
PROJECT = "project"  # file in ``.unitune`` with the project's id, which identifies a moved project
PROJECT_ID = re.compile(r"[0-9a-f]{32}")
EVALUATION = "evaluation"  # folder of a run with the answers to its test cases, and the reports
COMPARISONS = "comparisons"  # folder of a project with a folder per finished comparison
IGNORE = ".gitignore"
MOUNTS = Path("/proc/self/mountinfo")


def home() -> Path:
    """Return the user's state folder; it may not exist yet.

    Raises:
        UserError: ``UNITUNE_DIR`` names a file, the user has no home folder, or somebody else may
            have written the ledger.

    Source: XDG Base Directory Specification 0.8: relative paths are invalid and to be ignored.
    """
    if chosen := _chosen():
        return chosen
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    folder = named / "unitune" if named.is_absolute() else user_state_path("unitune", False)
    if not folder.is_absolute():
        raise UserError(
            f"{folder} is not an absolute path. Set HOME, XDG_STATE_HOME or UNITUNE_DIR."
        )
    for path in (folder, folder / "ledger.db"):
        if path.exists():
            refuse_strangers(path, "Set UNITUNE_DIR to a folder of your own.")
    return folder


def artifacts() -> Path:
    """Return the project's folder for artifacts and reports; it may not exist yet.

    It is the nearest ``.unitune`` from the current folder upwards. One of another user is skipped
    in a parent folder: otherwise anyone could stop the users of a shared ``/tmp``.

    Raises:
        UserError: ``UNITUNE_DIR`` names a file, or ``.unitune`` is a symbolic link or another
            user's.
    """
    if chosen := _chosen():
        return chosen
    here = Path.cwd()
    for folder in (parent / NAME for parent in (here, *here.parents)):
        if not folder.is_dir() and not folder.is_symlink():
            continue
        is_users = is_own(folder.lstat())
        if not is_users and folder.parent != here:
            _warn_of_other_user(folder)
            continue
        if folder.is_symlink() or not is_users:
            why = "is a symbolic link" if folder.is_symlink() else "belongs to another user"
            raise UserError(f"{folder} {why}. Remove it, or set UNITUNE_DIR to your own folder.")
        return folder
    return here / NAME


def _chosen() -> Path | None:
    folder = Path(variable("UNITUNE_DIR")).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"UNITUNE_DIR is {folder}, which is not a folder.")
    return folder if variable("UNITUNE_DIR") else None


@cache  # once for each folder
def _warn_of_other_user(folder: Path) -> None:
    logging.getLogger("unitune").warning("%r belongs to another user and is not used.", str(folder))


def ledger_url() -> str | None:
    """Return ``UNITUNE_LEDGER``, the database that machines share; None for the user's own file."""
    return variable("UNITUNE_LEDGER") or None


def make_home(folder: Path) -> None:
    """Create a folder that only the user may enter; UserError on a network file system."""
    refuse_network(folder)
    private_folder(folder)
    private_file(folder / IGNORE, "*\n")


def artifact_folder(*names: str) -> Path:
    """Create a folder in the project's ``.unitune``, and return it.

    Raises:
        UserError: A folder on the way is a symbolic link, as a clone or an archive can bring.
    """
    folder = artifacts()
    make_home(folder)
    if not variable("UNITUNE_DIR"):
        folder.chmod(0o700)  # an existing folder may have other permissions
    if project_id(folder) is None:
        _make_project_id(folder)
    for name in names:
        folder /= name
        if folder.is_symlink():
            raise UserError(
                f"{folder} is a symbolic link, and nothing is written to it. Remove it."
            )
        private_folder(folder)
    return folder


def make_folder(folder: Path) -> None:
    """Create a folder: a private one in ``.unitune`` (`artifact_folder`), any other elsewhere."""
    root = Path(variable("UNITUNE_DIR") or artifacts()).absolute()
    if folder.is_relative_to(root):
        artifact_folder(*folder.relative_to(root).parts)
    else:
        folder.mkdir(parents=True, exist_ok=True)


def project_id(folder: Path) -> str | None:
    """Return the id in a ``.unitune`` folder, which is not a proof; None without a valid one."""
    file = folder / PROJECT
    if file.is_symlink() or not file.is_file():
        return None
    with suppress(OSError):
        text = content_of(file, most_bytes=32).decode("ascii", "replace")
        return text if PROJECT_ID.fullmatch(text) else None
    return None


def _make_project_id(folder: Path) -> None:
    """Write a random id, unless another process has just written one."""
    draft, id_ = folder / f".{PROJECT}.{secrets.token_hex(8)}", secrets.token_hex(16)
    private_file(draft, id_)
    with suppress(OSError):
        os.link(draft, folder / PROJECT)
    draft.unlink()
    if project_id(folder) is None:
        write_project_id(folder, id_)


def write_project_id(folder: Path, id_: str) -> None:
    """Write the id of a project, which identifies it after a move."""
    with replacing(folder / PROJECT) as file:
        file.write(id_)


def refuse_network(folder: Path) -> None:
    """Raise UserError if a folder is on a network file system; only Linux can be asked."""
    if not sys.platform.startswith("linux"):
        return
    kind = file_system(folder.resolve(), MOUNTS.read_text(encoding="utf-8"))
    if NETWORK_FILE_SYSTEMS.fullmatch(kind):
        raise UserError(
            f"{folder} is on a network file system ({kind}), which could damage the ledger. "
            "Set UNITUNE_DIR to a folder on a local disk."
        )


def file_system(path: Path, mountinfo: str) -> str:
    """Return the file system type of a resolved path, given ``/proc/self/mountinfo``.

    Source: proc_pid_mountinfo(5): the mount point is the fifth field, with blanks written as octal
    escapes; the type is the first after the lone dash. A later mount hides an earlier one.
    """
    deepest, kind = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), before.split()[4]))
        if path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, kind = len(point.parts), after.split()[0]
    return kind
