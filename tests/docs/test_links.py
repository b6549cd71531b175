"""What the documents point to is there, such as the tests that hold the threat model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("SECURITY.md", "README.md")


def test_the_tests_that_hold_the_threat_model_are_there() -> None:
    text = (ROOT / "docs/explanation/threat-model.md").read_text("utf-8")
    tests = re.findall(r"`(tests/[\w/.]+)`", text)
    assert tests
    assert [] == [test for test in tests if not (ROOT / test).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8"))
    assert links
    assert [] == [link for link in links if not (file.parent / link).exists()]
