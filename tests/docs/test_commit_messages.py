"""The commit-msg hook accepts subjects in the form of `.gitmessage` and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
(HOOK,) = (hook for hook in CONFIG["repos"][0]["hooks"] if hook["id"] == "subject")
FLAGS = re.MULTILINE | re.DOTALL  # as pygrep compiles a pattern with --multiline


def accepted(message: str) -> bool:
    return re.search(HOOK["entry"], message, FLAGS) is not None


@pytest.mark.parametrize(
    "message",
    [
        "compare: embed PairedResult in Comparison\n",
        "data: deduplicate refused rows\n\nA row was counted twice; and that is a body.\n",
        "docs: explain checking rows from other tools\n# Please enter the commit message\n",
        f"cli: {'x' * 67}\n",
        "Merge branch 'main' into docs\n",
        'Revert "compare: embed PairedResult in Comparison"\n',
    ],
)
def test_messages_in_the_right_form_are_accepted(message: str) -> None:
    assert accepted(message)


@pytest.mark.parametrize(
    "message",
    [
        "Embed PairedResult in Comparison\n",
        "compare: Embed PairedResult\n",
        "compare: embed PairedResult.\n",
        "compare: embed PairedResult; and split the rows\n",
        f"cli: {'x' * 68}\n",
        "compare: embed PairedResult\nThe body begins without an empty line.\n",
        "area without a colon\n\ncompare: embed PairedResult\n",
    ],
)
def test_messages_in_another_form_are_refused(message: str) -> None:
    assert not accepted(message)


def test_the_template_shows_the_form() -> None:
    template = (ROOT / ".gitmessage").read_text("utf-8")
    assert accepted(template)
    assert "at most 72 characters" in template.splitlines()[0]
