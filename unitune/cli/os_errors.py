"""Errors of the operating system (a full disk, a folder that may not be written) as ours.

`explained` turns an OSError that reached the command line into an error with the path and what to
do: exit code 2 where the path is one that the user gave, else 4. A full disk is always 4.

For a command or an option that there is not, `command_for` and `advice_for` say what was probably
meant: words of TRL, axolotl, LLaMA-Factory, promptfoo, Terraform, git and pytest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from unitune.errors import BackendError, UnituneError, UserError, nearest

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ELSEWHERE = "UNITUNE_DIR names the folder of unitune's own files"
_NOT_WRITABLE = f"Name a place that you may write to; {ELSEWHERE}."
_NO_FOLDER = f"A folder is needed there; move the file away, or name another. {ELSEWHERE}."
REMEDIES = {
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _NOT_WRITABLE,
    errno.ENOENT: "Check the name, and make its folder first.",
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EISDIR: "Name a file, not a folder.",
}


def explained(error: OSError | UnituneError, arguments: Sequence[str]) -> UnituneError:
    """Return an error of the machine as one that says where and what to do."""
    if isinstance(error, UnituneError):
        return error
    name = cast("object", error.filename2 or error.filename)  # of a copy, the target is the second
    path = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    why = error.strerror or str(error) or type(error).__name__
    given = [os.environ.get("UNITUNE_DIR", ""), *arguments]  # or what stands in such a folder
    if error.errno in FULL:
        return BackendError(
            f"{path or 'a file'} cannot be written: {why}. Free some space, then run the same "
            f"command again; what was written is kept. {ELSEWHERE}, if another disk has more room."
        )
    if _current_folder_is_gone():
        return UserError("the current folder is not there any more. Change to another folder.")
    if not path and error.errno == errno.ENOENT:  # of `tempfile`: no name, and its own sentence
        return BackendError(f"{why}. Free some space there, or let TMPDIR name a folder with room.")
    is_given = path and any(
        Path(path).absolute().is_relative_to(Path(argument).absolute())
        for argument in filter(None, given)
    )
    kind = UserError if is_given else BackendError
    return kind(f"{path or 'a file'}: {why}. {REMEDIES.get(error.errno or 0, '')}".strip())


def first(error: Exception) -> OSError | UnituneError | None:
    """Return what ended a group of tasks that ran at once, or the error itself; None: a bug."""
    if isinstance(error, ExceptionGroup):
        inner = cast("ExceptionGroup[Exception]", error).exceptions
        return next(filter(None, map(first, inner)), None)
    return error if isinstance(error, OSError | UnituneError) else None


def _current_folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


COMMANDS = {
    "run": ("train", "finetune", "fine-tune", "fit", "sft", "dpo", "tune", "launch", "start"),
    "compare": ("eval", "evaluate", "evaluation", "test", "judge", "benchmark", "score"),
    "check": ("validate", "lint"),
    "plan": ("estimate", "preview", "forecast", "diff"),
    "runs": ("list", "ls", "jobs", "history"),
    "show": ("status", "describe", "info"),
    "watch": ("logs", "follow", "tail"),
    "cancel": ("stop", "kill", "abort"),
    "delete": ("rm", "remove", "destroy"),
    "chat": ("predict", "infer", "generate", "inference", "ask", "talk"),
    "download": ("pull", "fetch"),
    "deploy": ("host", "endpoint"),
    "serve": ("server", "api"),
    "export": ("merge", "fuse", "save"),
    "init": ("new", "create", "template"),
    "ui": ("view", "dashboard", "open", "studio"),
    "doctor": ("env", "version", "config"),
}
"""By our command, those of other tools."""
OPTIONS = {
    "--dry-run": "`unitune plan FILE` says what would happen and cost, and starts nothing",
    "--config": "name the job file alone, as in `unitune run unitune.yaml`",
    "--file": "name the job file alone, as in `unitune run unitune.yaml`",
    "--verbose": "give no --quiet",
    "--output-dir": "name the folder with `-o`",
}
"""By an option of other tools, what there is instead."""


def command_for(name: str, known: Iterable[str]) -> str | None:
    """Return the command that was meant by one that there is not."""
    words = {other: ours for ours, others in COMMANDS.items() for other in others}
    words |= {ours: ours for ours in known}
    near = nearest(name.lower(), words)
    return words[near] if near else None


def advice_for(option: str) -> str | None:
    """Return what there is instead of an option that there is not."""
    from unitune.job.job import Job, other_tools
    from unitune.workspace.validation import dotted_keys

    if option in OPTIONS:
        return OPTIONS[option]
    key = option.lstrip("-").replace("-", "_")
    where = {**dotted_keys(Job), **other_tools()}.get(key)
    return f"say it in the job file, under `{where}`" if where else None
