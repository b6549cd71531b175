"""Which tokenizer a model has."""

from __future__ import annotations

import pytest

from unitune.cost.tokens import counter_for
from unitune.cost.tokens.counter import families, family_of
from unitune.data.example import Example, Message


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
    assert ("o200k_base", "") == (family.encoding, family.assumed)


@pytest.mark.parametrize(
    "model", ["gpt-4", "gpt-4-0613", "gpt-3.5-turbo", "ft:gpt-3.5-turbo:x", "gpt-35-turbo"]
)
def test_older_models_have_cl100k_base(model: str) -> None:
    family = family_of(model)
    assert family
    assert "cl100k_base" == family.encoding


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-6.1-sol"])
def test_models_whose_encoding_is_not_told_are_ranges_that_say_so(model: str) -> None:
    counter = counter_for(model)
    known = counter_for("gpt-5").text("A text of several words. " * 40)
    count = counter.text("A text of several words. " * 40)

    assert known.expected == count.expected
    assert (count.low, count.high) == (known.low * 9 // 10, -(-known.high * 11 // 10))
    assert "OpenAI has not published which encoding it has" in counter.assumptions[0]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("claude-sonnet-5-5", "Anthropic publishes no tokenizer"),
        ("us.anthropic.claude-haiku-4-5-v1:0", "Anthropic publishes no tokenizer"),
        ("gemini-3.5-flash", "Google publishes no tokenizer"),
        ("publishers/google/models/gemini-2.5-pro", "Google publishes no tokenizer"),
        ("amazon.nova-lite-v1:0", "Amazon publishes no tokenizer"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "Amazon publishes"),
        ("Qwen/Qwen3-8B", "the tokenizer of Qwen/Qwen3-8B is not on this machine"),
        ("somebody/gpt-4o-distilled", "is not on this machine"),
        ("gpt-4.2", "is not on this machine"),
        ("~nobody/model", "is not on this machine"),
    ],
)
def test_models_without_a_tokenizer_here_are_counted_in_characters(
    model: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    counter = counter_for(model)

    assert "characters" == counter.basis
    assert reason in counter.assumptions[0]
    count = counter.text("x" * 900)
    assert (200, 237, 360) == (count.low, count.expected, count.high)  # 4.5, 3.8 and 2.5 to one


def test_characters_beyond_ascii_are_taken_for_more_tokens() -> None:
    counter = counter_for("claude-sonnet-5-5")
    narrow, wide = counter.text("x" * 60), counter.text("漢" * 60)
    assert (24, 40, 100) == (wide.low, wide.expected, wide.high)
    assert narrow.high < wide.high


def test_an_alias_of_the_same_weights_tells_where_the_name_does_not() -> None:
    assert "characters" == counter_for("house-model").basis
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
