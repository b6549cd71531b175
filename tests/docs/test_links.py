"""What the documents point to is there, such as the tests that hold the threat model."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ("distillation", "house-style", "json-extraction", "preference-tuning", "tool-calls")
PAGES = [
    "SECURITY.md",
    "README.md",
    *(f"examples/{name}/README.md" for name in RECIPES),
]


@pytest.mark.parametrize("page", ["docs/explanation/threat-model.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(r"`((?:tests|unitune|docs|providers|local|benchmarks)/[a-z_/.-]+)`", text)
    assert named
    assert [file for file in named if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8"))
    assert links
    assert [link for link in links if not (file.parent / link).exists()] == []


UNKNOWN_TO_THE_INDEX = re.compile(r"[\s\"']unitune(\[[\w,]+\])?[\"'`]?(\s*$|\s[^@])")
EXTRAS = re.compile(r"\[([\w,]+)\]")


def _installs(file: Path) -> list[str]:
    lines = file.read_text("utf-8").splitlines()
    return [line for line in lines if "pip install" in line or line.strip().startswith("extras:")]


def _documents() -> list[Path]:
    return [
        file
        for folder in ("docs", "examples", ".github")
        for file in sorted((ROOT / folder).rglob("*"))
        if file.suffix in {".md", ".yml", ".yaml"}
    ] + [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


INDEX_PAGES = ("README.md", "docs/index.md")
NOT_YET = "is not on the package index yet"


def test_only_the_first_pages_install_from_an_index_that_does_not_have_unitune_yet() -> None:
    """Anyone could register the name, so these pages say so before the first release."""
    commands = [
        (str(file.relative_to(ROOT)), line) for file in _documents() for line in _installs(file)
    ]
    installs = [
        (file, line.partition("pip install")[2].partition("&&")[0]) for file, line in commands
    ]
    unsafe = {file for file, line in installs if UNKNOWN_TO_THE_INDEX.search(line)}
    assert unsafe == {*INDEX_PAGES}
    for page in INDEX_PAGES:
        text = (ROOT / page).read_text("utf-8")
        assert text.index("pip install") < text.index(NOT_YET) < text.index("in a clone instead")


def test_every_extra_that_a_document_names_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {
        name
        for file in _documents()
        for line in _installs(file)
        for group in [*EXTRAS.findall(line), line.partition("extras:")[2]]
        for name in group.replace(" ", "").split(",")
    }
    assert named - {"", *project["optional-dependencies"]} == set()
