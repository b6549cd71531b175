"""Help texts are short imperatives or noun phrases, and no document has the worst old habits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from unitune.main import app

ROOT = Path(__file__).parents[3]
MAX_CHARACTERS = 80
# Words that begin a clause without a verb or a noun, such as "Of the adapter."
HEADLESS = re.compile(
    r"(What|Whether|Where|Who|Whose|How|Of|Those|Likewise|Although|Which|When|None|As|By|For|In|On"
    r"|With|From|To|That|Not)\b"
)
WORST = re.compile(
    r"\b(?:(?:go|goes|going|went) on|beside|(?:is|are) none|of which|whoever|likewise|the like"
    r"|dearer|all the same|hangs? on|of ours|stands? (?:in|at|by|beside|there|here)"
    r"|nobody|in its place|a first look|(?:has|have) no more)\b",
    re.IGNORECASE,
)
GENERATED = re.compile(
    r"^<!-- (?:generated|protocols): .*?^<!-- end -->$", re.DOTALL | re.MULTILINE
)
QUOTED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield each command below a command with its full name."""
    for name, child in getattr(command, "commands", {}).items():
        yield f"{path} {name}", child
        yield from commands(f"{path} {name}", child)


COMMANDS = dict(commands("unitune", typer.main.get_command(app)))
SUMMARIES = {place: (each.help or "").partition("\n\n")[0] for place, each in COMMANDS.items()}
HELP_TEXTS = SUMMARIES | {
    f"{place} {parameter.opts[0]}": parameter.help or ""
    for place, each in COMMANDS.items()
    for parameter in each.params
}
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def test_every_help_text_begins_with_a_capital_and_a_verb_or_a_noun() -> None:
    texts = HELP_TEXTS.items()
    wrong = {place: text for place, text in texts if not text[:1].isupper() or HEADLESS.match(text)}
    assert wrong == {}


def test_every_help_text_has_at_most_80_characters() -> None:
    assert {p: len(t) for p, t in HELP_TEXTS.items() if len(t) > MAX_CHARACTERS} == {}


def test_no_help_text_has_the_worst_habits() -> None:
    texts = HELP_TEXTS | {place: each.help or "" for place, each in COMMANDS.items()}
    assert {place: text for place, text in texts.items() if WORST.search(text)} == {}


def test_the_first_help_has_at_most_24_entries() -> None:
    """A newcomer reads them all; whatever comes next goes below a group."""
    assert len([place for place in COMMANDS if place.count(" ") == 1]) <= 24


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_document_has_the_worst_habits(page: Path) -> None:
    """Generated parts and quoted output are those of the code."""
    text = QUOTED.sub("", GENERATED.sub("", page.read_text("utf-8")))
    assert [line for line in text.splitlines() if WORST.search(line)] == []
