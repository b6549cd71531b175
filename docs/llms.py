"""Write ``llms.txt``, which lists all pages for language models (https://llmstxt.org, 2026-12-01).

``llms-full.txt``, which has their text, is written when MkDocs builds the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parent
COMMENT = re.compile(r"^<!-- .*? -->\n", re.MULTILINE)


def llms() -> str:
    """Return ``llms.txt``: the pages in the navigation's order, each with its first sentence."""
    site = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"))
    lines = [f"# {site['site_name']}", "", f"> {site['site_description']}", ""]
    lines += ["The text of all pages is in [llms-full.txt](llms-full.txt).", ""]
    for heading, pages in _sections(site["nav"]):
        lines += [f"## {heading}", "", *map(_link, pages), ""]
    return "\n".join(lines)


def llms_full() -> str:
    """Return ``llms-full.txt``: the text of all pages in the order of the navigation."""
    site = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = (page for _, group in _sections(site["nav"]) for page in group)
    texts = ((DOCS / page).read_text(encoding="utf-8") for page in pages)
    return "\n".join(COMMENT.sub("", text).strip() + "\n" for text in texts)


def _sections(nav: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the titles of the navigation with their pages; single pages first, as "Start"."""
    yield "Start", [page for each in nav for page in each.values() if isinstance(page, str)]
    for each in nav:
        for title, part in each.items():
            if isinstance(part, list):
                groups = [group for group in part if isinstance(group, dict)]
                if pages := [page for page in part if isinstance(page, str)]:
                    yield title, pages
                yield from (item for group in groups for item in group.items())


def _link(page: str) -> str:
    text = COMMENT.sub("", (DOCS / page).read_text(encoding="utf-8"))
    title, _, rest = text.removeprefix("# ").partition("\n")
    paragraphs = (" ".join(part.split()) for part in rest.split("\n\n"))
    is_prose = re.compile(r"(?!```)[A-Za-z`\[*]")
    first = next((part for part in paragraphs if is_prose.match(part)), "")
    sentence = re.split(r"(?<=[.:])\s", first)[0]
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", sentence).rstrip(":.")
    address = page.removesuffix("index.md").replace(".md", "/")
    return f"- [{title}]({address or '.'}): {plain}."


def on_post_build(config: Mapping[str, Any]) -> None:
    """Write ``llms-full.txt`` into the site that MkDocs has built."""
    Path(config["site_dir"], "llms-full.txt").write_text(llms_full(), encoding="utf-8")


def main() -> None:
    """Update ``llms.txt``."""
    (DOCS / "llms.txt").write_text(llms(), encoding="utf-8")
