"""The command that adds an extra, or a newer version, to this installation of unitune.

Packages say where they were installed from (`direct_url.json`, PEP 610): a clone, a file, a
repository; without that file it was a package index. A hint names that same place, never an index
that may hold another package of this name, or none.
"""

from __future__ import annotations

import json
import shlex
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "unitune"


def install_command(*extras: str) -> str:
    """Return the command that installs extras, e.g. ``pip install -e '/src/unitune[local]'``.

    Args:
        extras: Their names; none: unitune itself.
    """
    wanted = f"[{','.join(extras)}]" if extras else ""
    option, source = _origin()
    if source is None:
        target = f"{NAME}{wanted}"
    elif source.startswith("/"):
        target = f"{source}{wanted}"
    else:
        target = f"{NAME}{wanted} @ {source}"
    return f"pip install {option}{shlex.quote(target)}"


def upgrade_command() -> str:
    """Return the command that installs a newer version."""
    option, source = _origin()
    if option:
        return f"git -C {shlex.quote(str(source))} pull"
    return install_command().replace("pip install", "pip install -U", 1)


@cache
def _origin() -> tuple[str, str | None]:
    """Return ``-e`` for an editable folder, and where unitune came from; None: an index."""
    try:
        text = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        return "-e ", str(Path(__file__).parents[2])  # run from a clone, never installed
    if not text:
        return "", None
    direct: dict[str, Any] = json.loads(text)
    url = str(direct["url"])
    if "dir_info" in direct:
        folder = unquote(urlsplit(url).path)
        return ("-e " if direct["dir_info"].get("editable") else "", folder)
    if "vcs_info" in direct:
        vcs = direct["vcs_info"]
        url = f"{vcs['vcs']}+{url}@{vcs.get('requested_revision') or vcs['commit_id']}"
    return "", url
