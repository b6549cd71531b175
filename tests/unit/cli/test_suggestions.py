"""Misspelt commands and options lead to the ones that exist."""

from __future__ import annotations

import pytest
from support.command_line import Command


def text(unitune: Command, *arguments: str) -> str:
    refused = unitune(*arguments)
    assert refused.code == 2
    return " ".join(refused.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("plna",), "No such command 'plna'. Did you mean 'plan'"),
        (("run", "--detahc"), "Possible options: --budget, --detach"),
    ],
)
def test_a_misspelt_name_leads_to_the_one_that_exists(
    unitune: Command, arguments: tuple[str, ...], advice: str
) -> None:
    assert advice in text(unitune, *arguments)


@pytest.mark.parametrize(
    "arguments", [("run\x1b[2J",), ("run", "--x\x1b[2J"), ("run", "--x\u202e")]
)
def test_a_usage_error_sends_no_control_characters_to_the_terminal(
    unitune: Command, arguments: tuple[str, ...]
) -> None:
    shown = text(unitune, *arguments)
    assert not {"\x1b", "\u202e"} & set(shown)
