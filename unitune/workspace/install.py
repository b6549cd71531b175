"""Build the commands that install extras or a newer version of unitune.

They use the origin of this installation (`direct_url.json`, PEP 610): a clone, a file, a repository
or, without that file, a package index.
"""

from __future__ import annotations

import json
import shlex
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "unitune"


def install_command(*extras: str) -> str:
    """Return the command that installs unitune with extras."""
    wanted = f"[{','.join(extras)}]" if extras else ""
    option, source = _origin()
    if source is None:
        target = f"{NAME}{wanted}"
    elif Path(source).is_absolute():
        target = f"{source}{wanted}"
    else:
        target = f"{NAME}{wanted} @ {source}"
    return f"pip install {option}{shlex.quote(target)}"


def requirement(*extras: str) -> str | None:
    """Return what another machine installs to have this version with extras; None for a folder."""
    _, source = _origin()
    if source is not None and (Path(source).is_absolute() or source.startswith("file:")):
        return None
    wanted = f"{NAME}[{','.join(extras)}]"
    return f"{wanted}=={version(NAME)}" if source is None else f"{wanted} @ {source}"


def upgrade_command() -> str:
    """Return the command that installs a newer version."""
    option, source = _origin()
    if option:
        return f"git -C {shlex.quote(str(source))} pull"
    return install_command().replace("pip install", "pip install -U", 1)


@cache
def _origin() -> tuple[str, str | None]:
    """Return ``-e `` for an editable installation, and its origin; None for a package index."""
    try:
        text = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        return "-e ", str(Path(__file__).parents[2])  # run from a clone without installation
    if not text:
        return "", None
    direct: dict[str, Any] = json.loads(text)
    url = str(direct["url"])
    if "dir_info" in direct:
        folder = url2pathname(urlsplit(url).path)
        return ("-e " if direct["dir_info"].get("editable") else "", folder)
    if "vcs_info" in direct:
        vcs = direct["vcs_info"]
        url = f"{vcs['vcs']}+{url}@{vcs.get('requested_revision') or vcs['commit_id']}"
    return "", url
