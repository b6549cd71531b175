"""Which tokenizer a model has."""

from __future__ import annotations

import json
from math import ceil, floor
from pathlib import Path

import pytest

from unitune.cost.tokens import Count, counter_for
from unitune.cost.tokens.counter import LATIN, SCRIPTS, UNSEEN, Multiple, families, family_of
from unitune.data.example import Example, Message

from .conftest import text_tokens


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o",
        "gpt-4o-mini-2024-07-18",
        "gpt-4.1-mini",
        "ft:gpt-4.1-2025-04-14:my-org::abc123",
        "ft:gpt-4o-mini-2024-07-18:my-org:name:abc123",
        "ft:o4-mini-2025-04-16:my-org::abc123",
        "gpt-4o-mini-2024-07-18.ft-0123456789abcdef",
        "openai/gpt-4.1",
        "gpt-5",
        "gpt-5.1",
        "gpt-5.6-mini",
        "o3",
        "gpt-oss-20b",
        "openai/gpt-oss-120b",
        "accounts/fireworks/models/gpt-oss-20b",
    ],
)
def test_newer_models_have_o200k_base(model: str) -> None:
    """tiktoken's own table takes ft:gpt-4.1 for a gpt-4, and refuses ft:o4-mini."""
    family = family_of(model)
    assert family
    assert (family.encoding, family.assumed) == ("o200k_base", "")


@pytest.mark.parametrize(
    "model", ["gpt-4", "gpt-4-0613", "gpt-3.5-turbo", "ft:gpt-3.5-turbo:x", "gpt-35-turbo"]
)
def test_older_models_have_cl100k_base(model: str) -> None:
    family = family_of(model)
    assert family
    assert family.encoding == "cl100k_base"


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-6.1-sol"])
def test_models_whose_encoding_is_not_told_are_ranges_that_say_so(model: str) -> None:
    counter = counter_for(model)
    known = text_tokens(counter_for("gpt-5"), "A text of several words. " * 40)
    count = text_tokens(counter, "A text of several words. " * 40)

    assert known.expected == count.expected
    assert (count.low, count.high) == (known.low * 9 // 10, -(-known.high * 11 // 10))
    assert "OpenAI has not published which encoding it has" in counter.assumptions[0]


UNPUBLISHED = [
    ("claude-sonnet-5-5", "Anthropic publishes no tokenizer"),
    ("us.anthropic.claude-haiku-4-5-v1:0", "Anthropic publishes no tokenizer"),
    ("mistralai/Mistral-7B-Instruct-v0.2", "a small one of 32,000 entries"),
    ("amazon.nova-lite-v1:0", "Amazon publishes no tokenizer"),
    ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "Amazon publishes"),
]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        *UNPUBLISHED,
        ("gemini-3.5-flash", "the tokenizer of gemini-3.5-flash is not on this machine"),
        ("publishers/google/models/gemini-2.5-pro", "is not on this machine"),
        ("Qwen/Qwen3-8B", "the tokenizer of Qwen/Qwen3-8B is not on this machine"),
        ("somebody/gpt-4o-distilled", "is not on this machine"),
        ("gpt-4.2", "is not on this machine"),
        ("~nobody/model", "is not on this machine"),
    ],
)
def test_models_whose_tokenizer_is_not_here_are_counted_with_o200k_base(
    model: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of unseen and small vocabularies the range is wider."""
    most, shown = (1.35 * 1.4, "1.89") if (model, reason) in UNPUBLISHED else (1.35, "1.35")
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    counter = counter_for(model)
    known = text_tokens(counter_for("gpt-5"), "a word " * 100).expected

    assert reason in counter.assumptions[0]
    assert f"0.83 to {shown} times" in counter.assumptions[0]
    count = text_tokens(counter, "a word " * 100)
    assert count == Count(floor(known * 0.83), round(known * 1.05), ceil(known * most))


MEASURED: dict[str, dict[str, float]] = json.loads(
    (Path(__file__).parent / "measured_ratios.json").read_text()
)
"""Tokens of texts by other vocabularies, as multiples of o200k_base: benchmarks/token_ranges.py."""
SAMPLES = {
    **dict.fromkeys(("ru", "sr", "uk"), "\u0416"),
    "ko": "가",
    "el": "\u03c9",
    "he": "א",
    "fa": "آ",
    **dict.fromkeys(("ja", "zh_CN"), "中"),
    **dict.fromkeys(("as", "gu", "hi", "kn", "mr", "pa", "ta", "te", "th"), "ก"),
}
"""A letter of each language that is not written in Latin script."""


def multiple(language: str) -> Multiple:
    letter = SAMPLES.get(language, "a")
    return next((range_ for script, range_ in SCRIPTS if script.match(letter)), LATIN)


@pytest.mark.parametrize("vocabulary", MEASURED)
def test_the_range_holds_what_was_measured_of_a_vocabulary(vocabulary: str) -> None:
    small = UNSEEN if vocabulary.startswith("mistral") else 1
    outside = {
        language: times
        for language, times in MEASURED[vocabulary].items()
        if not multiple(language).low <= times <= multiple(language).high * small
    }
    assert outside == {}


def test_qwens_own_count_of_plain_english_is_in_the_range() -> None:
    """900 rows: 146,089 tokens of o200k_base, 149,616 by Qwen's own vocabulary (2026-11-30)."""
    assert LATIN.low <= 149_616 / 146_089 <= LATIN.high


def test_vocabularies_with_a_token_for_each_digit_are_in_the_range() -> None:
    """Qwen, Gemma and Gemini make 2.58 times as many tokens of long numbers as o200k_base."""
    text = " ".join(str(10**11 + 7919 * at) for at in range(100))
    assert text_tokens(counter_for("Qwen/Qwen3-8B"), text).high >= sum(map(str.isdigit, text))


def test_each_script_of_a_text_has_its_own_range() -> None:
    counter = counter_for("Qwen/Qwen3-8B")
    latin, tamil = text_tokens(counter, "only words " * 50), text_tokens(counter, "தமிழ் " * 50)
    both = text_tokens(counter, "only words " * 50 + "தமிழ் " * 50)
    assert latin.high / latin.low < 1.7
    assert tamil.high / tamil.low > 5
    assert latin.high < both.high <= latin.high + tamil.high + 1


def test_an_alias_of_the_same_weights_tells_where_the_name_does_not() -> None:
    assert "another vocabulary" in counter_for("house-model").basis
    assert counter_for("house-model", aliases=("gpt-4o",)).basis.startswith("o200k_base")


def test_every_family_has_an_encoding_or_a_reason() -> None:
    for family in families():
        assert bool(family.encoding) != bool(family.hidden)


def test_harmony_leaves_its_system_message_out_of_the_low_count_alone() -> None:
    """gpt-oss: 61 tokens of system message, 2 more in an answer for its channel."""
    turns = (Message(role="user", content="Hi"), Message(role="assistant", content="Hello"))
    row = Example(messages=turns)
    chat, harmony = counter_for("gpt-4o").row(row), counter_for("gpt-oss-20b").row(row)

    assert chat.total.low + 2 == harmony.total.low
    assert harmony.total.low + 61 == harmony.total.expected
    assert harmony.total.expected + 2 == harmony.total.high
    assert chat.answer == harmony.answer
