"""Where unitune keeps its ledger and the files of its runs: the folder ``.unitune``, by default.

Reading never makes the folder. One that is not named by ``UNITUNE_DIR`` is used only where
`unitune.workspace.trust` knows it for the user's own.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from unitune.errors import UserError
from unitune.workspace import trust
from unitune.workspace.filesystem import private_file, private_folder

# File system types of Linux whose locks SQLite cannot rely on. Not among them: 9p and virtiofs,
# which containers use for the root of one single machine. Source: "How To Corrupt An SQLite
# Database File", section 2.1, https://sqlite.org/howtocorrupt.html (2026-11-25).
NETWORK_FILE_SYSTEMS = re.compile(
    r"afs|beegfs|ceph|cifs|fuse\.(glusterfs|sshfs)|glusterfs|gpfs|lustre|ncpfs|nfs4?|pvfs2|smb3|smbfs"
)
EVALUATION = "evaluation"  # in the folder of a run: the answers to its test cases, and the reports
COMPARISONS = "comparisons"  # in the home: the history of finished comparisons, a folder each
IGNORE = ".gitignore"
MOUNTS = Path("/proc/self/mountinfo")


def home() -> Path:
    """Return the folder of the ledger, whether it exists or not.

    ``UNITUNE_DIR`` when set, else the nearest ``.unitune`` in the current folder or its parents,
    else ``.unitune`` in the current folder. One of another user in a parent is skipped with a
    warning: who may write there, as in a shared ``/tmp``, could otherwise stop whoever works below.

    Raises:
        UserError: ``UNITUNE_DIR`` names a file, or the nearest ``.unitune`` is not the user's own.
    """
    if chosen := os.environ.get("UNITUNE_DIR"):
        folder = Path(chosen).absolute()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"UNITUNE_DIR names {folder}, which is no folder. Name a folder.")
        return folder
    here = Path.cwd()
    for folder in (parent / trust.NAME for parent in (here, *here.parents)):
        if not folder.is_dir() and not folder.is_symlink():
            continue
        if folder.parent != here and trust.belongs_to_another(folder):
            _warn_of_other_user(folder)
            continue
        trust.refuse_strangers(folder)
        return folder
    return here / trust.NAME


@cache  # once for each folder
def _warn_of_other_user(folder: Path) -> None:
    logging.getLogger("unitune").warning("%r belongs to another user and is not used.", str(folder))


def ledger_url() -> str | None:
    """Return the database that machines share, ``UNITUNE_LEDGER``; None: a file in the home."""
    return os.environ.get("UNITUNE_LEDGER") or None


def make_home(folder: Path) -> None:
    """Make the folder, for the user alone, marked as the user's own (`unitune.workspace.trust`).

    It is kept out of version control, because it holds copies of training data.

    Raises:
        UserError: It lies on a network file system, or cannot be marked.
    """
    refuse_network(folder)
    if os.environ.get("UNITUNE_DIR"):  # the user's choice needs no mark
        folder.parent.mkdir(parents=True, exist_ok=True)
        private_folder(folder)
        private_file(folder / IGNORE, "*\n")
    elif not folder.exists() or trust.is_empty(folder):
        _make_marked(folder)


def _make_marked(folder: Path) -> None:
    """Make the folder beside its place and move it there: it is never seen without its mark."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    except OSError as error:  # about the folder that is wanted, not the draft's random name
        raise OSError(error.errno, error.strerror, str(folder)) from error
    try:
        trust.mark(draft, folder.parent.resolve() / folder.name)
        private_file(draft / IGNORE, "*\n")
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another process has just made it.
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_network(folder: Path) -> None:
    """Raise UserError when a folder lies on a network file system.

    Only Linux tells; elsewhere the folder is taken as it is.
    """
    if not sys.platform.startswith("linux"):
        return
    kind = file_system(folder.resolve(), MOUNTS.read_text(encoding="utf-8"))
    if NETWORK_FILE_SYSTEMS.fullmatch(kind):
        raise UserError(
            f"{folder} lies on a network file system ({kind}), where the ledger could be damaged. "
            "Set UNITUNE_DIR to a folder on a local disk."
        )


def file_system(path: Path, mountinfo: str) -> str:
    """Return the type of the file system that an absolute path lies on.

    Args:
        path: Absolute and resolved.
        mountinfo: Text in the format of ``/proc/self/mountinfo``.

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
