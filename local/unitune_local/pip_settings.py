"""The package indexes, certificates and proxy that pip is configured with.

Read from pip's environment variables and configuration files, because whoever set pip up for a
company network has set it up for us too; pip itself need not be installed. Of pip's settings only
those are read that say where packages come from.

Source: https://pip.pypa.io/en/stable/topics/configuration/, 2026-11-25.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PUBLIC_INDEX = "https://pypi.org/simple"
SECTIONS = ("global", "download", "install")
"""Sections of pip's files that hold for a download, the weakest first."""
SYSTEM_FILES = (Path("/Library/Application Support/pip/pip.conf"), Path("/etc/pip.conf"))


@dataclass(frozen=True, slots=True)
class PipSettings:
    """Where packages come from.

    Args:
        indexes: Simple-API addresses, the first one asked first; they may hold credentials.
        folders: Folders with wheels (``find-links``).
        certificates: File or folder with certificate authorities, if one is set.
        trusted_hosts: Hosts, or host:port, whose certificate is not checked.
        proxy: Address of a proxy, if one is set for pip alone.
    """

    indexes: tuple[str, ...]
    folders: tuple[Path, ...] = ()
    certificates: str | None = None
    trusted_hosts: frozenset[str] = frozenset()
    proxy: str | None = None


def read_pip_settings(environment: Mapping[str, str] = os.environ) -> PipSettings:
    """Return what pip would use here: environment first, then files, then the public index."""
    values = {**_from_files(environment), **_from_environment(environment)}
    indexes = (values.get("index-url", PUBLIC_INDEX), *values.get("extra-index-url", "").split())
    offline = values.get("no-index", "").lower() in ("1", "true", "yes", "on")
    links = [link.removeprefix("file://") for link in values.get("find-links", "").split()]
    return PipSettings(
        indexes=() if offline else tuple(index.strip() for index in indexes),
        folders=tuple(Path(link).expanduser() for link in links if "://" not in link),
        certificates=values.get("cert")
        or environment.get("REQUESTS_CA_BUNDLE")
        or environment.get("CURL_CA_BUNDLE"),
        trusted_hosts=frozenset(values.get("trusted-host", "").split()),
        proxy=values.get("proxy") or None,
    )


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_") and value
    }


def _from_files(environment: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for path in _files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip says what is wrong with its own files
        for section in SECTIONS:
            if parser.has_section(section):
                values |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    return values


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield pip's configuration files, the weakest first."""
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path.home()
    for folder in reversed(environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep)):
        yield Path(folder) / "pip/pip.conf"
    yield from SYSTEM_FILES
    yield home / ".pip/pip.conf"
    yield Path(environment.get("XDG_CONFIG_HOME", home / ".config")) / "pip/pip.conf"
    yield home / "Library/Application Support/pip/pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if named:
        yield Path(named)
