"""Hints name where unitune came from, as PEP 610 has it written down, and never another place.

The documents are those of https://packaging.python.org/en/latest/specifications/direct-url-data-structure/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

import unitune
from unitune.workspace import install
from unitune.workspace.install import install_command, upgrade_command

ROOT = Path(unitune.__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    install._origin.cache_clear()
    yield
    install._origin.cache_clear()


@pytest.mark.parametrize(
    ("direct", "command", "upgrade"),
    [
        (
            {"url": "file:///src/my%20clone", "dir_info": {"editable": True}},
            "pip install -e '/src/my clone[local,data]'",
            "git -C '/src/my clone' pull",
        ),
        (
            {"url": "file:///src/unitune", "dir_info": {}},
            "pip install '/src/unitune[local,data]'",
            "pip install -U /src/unitune",
        ),
        (
            {
                "url": "https://example.com/unitune.git",
                "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": "7921be1537"},
            },
            "pip install 'unitune[local,data] @ git+https://example.com/unitune.git@main'",
            "pip install -U 'unitune @ git+https://example.com/unitune.git@main'",
        ),
        (
            {"url": "file:///tmp/unitune-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'unitune[local,data] @ file:///tmp/unitune-0.1.0-py3-none-any.whl'",
            "pip install -U 'unitune @ file:///tmp/unitune-0.1.0-py3-none-any.whl'",
        ),
        (None, "pip install 'unitune[local,data]'", "pip install -U unitune"),
    ],
)
def test_a_hint_names_the_place_that_it_came_from(
    monkeypatch: pytest.MonkeyPatch, direct: object, command: str, upgrade: str
) -> None:
    text = None if direct is None else json.dumps(direct)
    found = SimpleNamespace(read_text=lambda _: text)
    monkeypatch.setattr(install, "distribution", lambda _: found)
    assert (command, upgrade) == (install_command("local", "data"), upgrade_command())


def test_a_clone_that_was_never_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr(install, "distribution", absent)
    assert install_command("local") == f"pip install -e '{ROOT}[local]'"


def test_nothing_else_names_an_index() -> None:
    """No text of the code, the workflows or the examples says ``pip install unitune`` itself.

    README does (tests/docs/test_links.py).
    """
    files = [
        file
        for place in ("unitune", "providers", "local", ".github", "examples")
        for file in (ROOT / place).rglob("*")
        if file.suffix in (".py", ".md", ".yml", ".yaml") and file.name != "install.py"
    ]
    assert len(files) > 100
    named = re.compile(r"pip install(?: -\S+)* ['\"]?unitune(?! @ \$UNITUNE)")
    assert [str(file) for file in files if named.search(file.read_text(encoding="utf-8"))] == []
