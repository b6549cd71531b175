"""The skill does what it says, in the form of Agent Skills; ``llms.txt`` lists every page."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml
from docs.test_pages import DOCS, PAGES, ROOT, Walk, walk, walk_through

from unitune.main import app
from unitune.mcp.command import mcp

LLMS = runpy.run_path(str(DOCS / "llms.py"))
SKILL = ROOT / "skills" / "unitune" / "SKILL.md"
__all__ = ["walk"]


@pytest.mark.parametrize("page", ["skills/unitune/SKILL.md"])
def test_each_command_of_the_skill_does_what_it_says(page: str, walk: Walk) -> None:
    walk_through(ROOT / page, walk)


def test_the_skill_has_the_form_of_agent_skills() -> None:
    """The folder's name, at most 1,024 characters (agentskills.io/specification, 2026-12-01)."""
    _, front, body = SKILL.read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["name"] == SKILL.parent.name
    assert re.fullmatch(r"[a-z0-9-]{1,64}", fields["name"])
    assert 0 < len(fields["description"]) <= 1024
    assert {*fields} <= {"name", "description", "license", "compatibility", "metadata"}
    assert len(body.splitlines()) < 200


def test_llms_txt_lists_every_page_as_it_is() -> None:
    """`python docs/generate.py` would change nothing."""
    text = (DOCS / "llms.txt").read_text(encoding="utf-8")
    assert text == LLMS["llms"]()
    linked = set(re.findall(r"^- \[[^]]+\]\(([^)]+)\): .+", text, re.MULTILINE))
    assert linked == {page.replace("index.md", ".").replace(".md", "/") for page in PAGES}


def test_the_full_text_has_every_page() -> None:
    full = LLMS["llms_full"]()
    for page in PAGES:
        first = re.search(r"^# .+", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert first is not None
        assert first[0] in full
    assert "<!-- test" not in full


def test_the_configuration_of_agents_names_a_command_that_exists() -> None:
    page = (DOCS / "how-to" / "work-with-coding-agents.md").read_text(encoding="utf-8")
    configured = [json.loads(text) for text in re.findall(r'^\{"mcpServers.*', page, re.MULTILINE)]
    servers = [each["mcpServers"]["unitune"] for each in configured]
    assert [each["command"] for each in servers] == ["unitune", "unitune"]
    assert [each["args"][0] for each in servers] == [mcp.__name__] * 2
    assert mcp in [each.callback for each in app.registered_commands]


def test_paths_named_for_contributors_exist() -> None:
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./-]+/[\w./-]*)`", text) + re.findall(r"\]\(([^)]+)\)", text)
    assert [name for name in named if not Path(ROOT, name).exists()] == []
