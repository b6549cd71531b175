"""Secrets in texts, held against gitleaks' own samples of its rules."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import pytest

from unitune.data.privacy import secrets
from unitune.data.privacy.secrets import find_secrets

SAMPLES = json.loads(Path(__file__).with_name("gitleaks_samples.json").read_text(encoding="utf-8"))
RULES = secrets._rules()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(("rule", "head", "tail"), SAMPLES["secrets"])
def test_what_gitleaks_finds_is_found(rule: str, head: str, tail: str) -> None:
    assert find_secrets(head + tail), rule


@pytest.mark.parametrize(("rule", "head", "tail"), SAMPLES["none"])
def test_what_gitleaks_lets_pass_passes_its_rule(rule: str, head: str, tail: str) -> None:
    assert rule not in {secret.rule for secret in find_secrets(head + tail)}


def test_every_rule_about_text_can_be_read_by_python_as_go_reads_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patterns = [rule._pattern for rule in RULES.rules if not rule.path]  # pyright: ignore[reportPrivateUsage]
    assert 217 == len(patterns)


@pytest.mark.parametrize(
    ("go", "matching", "others"),
    [
        ("a(?i)b|c", ["ab", "aB", "c", "C"], ["AB"]),
        ("(x(?i)y)z", ["xYz"], ["xyZ", "Xyz"]),
        ("[[:alnum:]]{2}", ["a9"], ["[:", "a:"]),
        (r"[(|]\z", ["|", "("], ["z"]),
    ],
)
def test_flags_of_go_hold_to_the_end_of_their_group(
    go: str, matching: list[str], others: list[str]
) -> None:
    """Source: https://github.com/google/re2/wiki/Syntax, "set flags within current group"."""
    pattern = secrets._compiled(go)  # pyright: ignore[reportPrivateUsage]
    assert matching == [text for text in (*matching, *others) if pattern.fullmatch(text)]


def test_only_a_prefix_that_all_of_the_kind_share_is_shown() -> None:
    (token,) = find_secrets("use hf_" + "jCBaQngSHiHDRYOcsMcifUcysGyaiybUWz" + " here")
    assert ("huggingface-access-token", 4, 41, "hf_") == token
    (password,) = find_secrets('password = "' + "hV7xkP2qLw9zR4t" + '"')
    assert ("generic-api-key", "") == (password.rule, password.prefix)


@pytest.mark.parametrize(
    "text",
    [
        "sk-...",
        "sk-YOUR_API_KEY",
        'api_key = os.environ["OPENAI_API_KEY"]',
        "hf_" + "x" * 34,
        "AKIAIOSFODNN7EXAMPLE",
        "password: ********",
        "commit 09242ce9c8a60d9b051fc2d166f9e849b88c7ac0",
    ],
)
def test_stand_ins_are_none(text: str) -> None:
    assert [] == find_secrets(text)


@pytest.mark.parametrize("text", ["curl ", "curl\r", "okta", "key = ", "-----begin "])
def test_a_long_text_takes_time_in_proportion(text: str) -> None:
    """RE2 promises it for any expression; Python's engine takes the square of it for some."""

    def seconds(times: int) -> float:
        begin = time.process_time()
        find_secrets(text * times + "a1b2c3d4e5f6")
        return time.process_time() - begin

    assert seconds(8_000) < 8 * seconds(2_000) + 0.2
