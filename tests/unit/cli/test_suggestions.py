"""Commands and options of other tools lead to what there is here."""

from __future__ import annotations

import pytest
from command_line import Command

from unitune.cli.main import app
from unitune.cli.os_errors import COMMANDS


def text(unitune: Command, *arguments: str) -> str:
    refused = unitune(*arguments)
    assert 2 == refused.code
    return " ".join(refused.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("given", "meant"),
    [("train", "run"), ("traim", "run"), ("eval", "compare"), ("lint", "check"), ("plna", "plan")],
)
def test_a_command_that_there_is_not_leads_to_the_one_that_was_meant(
    unitune: Command, given: str, meant: str
) -> None:
    assert f"No such command '{given}'. Did you mean '{meant}'?" in text(unitune, given)


def test_a_command_like_none_gets_no_guess(unitune: Command) -> None:
    assert "No such command 'xyzzy'." in text(unitune, "xyzzy")
    assert "mean" not in text(unitune, "xyzzy")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("run", "--dry-run"), "Instead, `unitune plan FILE` says what would happen"),
        (("run", "--lr", "1"), "Instead, say it in the job file, under `tuning.learning_rate`."),
        (("plan", "--epochs", "3"), "under `tuning.epochs`."),
        (("run", "--detahc"), "Possible options: --budget, --detach"),
    ],
)
def test_an_option_that_there_is_not_leads_to_what_there_is(
    unitune: Command, arguments: tuple[str, ...], advice: str
) -> None:
    assert advice in text(unitune, *arguments)


def test_the_table_has_our_commands() -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands}  # pyright: ignore[reportOptionalMemberAccess]
    assert set() == COMMANDS.keys() - known
    assert set() == known & {other for others in COMMANDS.values() for other in others}
