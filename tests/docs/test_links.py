"""What the documents point to is there, such as the tests that hold the threat model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("SECURITY.md", "README.md")


@pytest.mark.parametrize("page", ["docs/explanation/threat-model.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(r"`((?:tests|unitune|docs|providers|local|benchmarks)/[a-z_/.-]+)`", text)
    assert named
    assert [] == [file for file in named if not (ROOT / file).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8"))
    assert links
    assert [] == [link for link in links if not (file.parent / link).exists()]
