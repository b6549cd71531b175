"""Tokens of images are those of the vendors' published examples."""

from __future__ import annotations

import pytest
from support.images import claimed_png, padded_png, png, row, uri

from unitune.cost.tokens import counter_for
from unitune.cost.tokens.count import Count
from unitune.cost.tokens.counter import ApproximateCounter
from unitune.cost.tokens.images import ImageCounter, most_image_tokens, rule_of
from unitune.data.example import Example
from unitune.data.images import ImageUrl
from unitune.evaluate.inference.budget import most_tokens
from unitune.models import Request


def image(width: int, height: int, detail: str | None = None) -> ImageUrl:
    return ImageUrl(url=uri(claimed_png(width, height)), detail=detail)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        # developers.openai.com/api/docs/guides/images-vision, Calculating costs, the examples of
        # both rules (as copied in openai-image-token-counter 1.0.0, token_config.mdx, 2025-10)
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("ft:gpt-4o-2024-08-06:acme::x", (1024, 1024), "high", 765),
        ("gpt-4.1", (1024, 1024), "high", 765),
        ("o3", (1024, 1024), "high", 75 + 4 * 150),
        ("gpt-5-2025-08-07", (1024, 1024), "high", 70 + 4 * 140),
        ("gpt-4o-mini", (1024, 1024), "low", 2833),
        ("gpt-4.1-mini", (1024, 1024), None, 1659),  # 1,024 patches x 1.62
        ("gpt-4.1-mini", (1800, 2400), None, 2353),  # 1,452 patches x 1.62
        ("o4-mini", (1800, 2400), None, 2498),
        # ai.google.dev/gemini-api/docs/tokens; docs.cloud.google.com, Image understanding: six
        # tiles of 960 x 540
        ("gemini-2.0-flash", (384, 384), None, 258),
        ("publishers/google/models/gemini-2.5-flash", (960, 540), None, 6 * 258),
    ],
)
def test_published_examples(
    model: str, size: tuple[int, int], detail: str | None, tokens: int
) -> None:
    counter = counter_for(model)
    assert isinstance(counter, ImageCounter)
    assert counter.rule.count(image(*size, detail)) == Count.of(tokens)


@pytest.mark.parametrize(
    ("size", "tokens"),
    # docs.aws.amazon.com/nova/latest/userguide/modalities-image: estimates for five sizes
    [((900, 450), 800), ((900, 900), 1300), ((1400, 900), 1800), ((1800, 900), 2400),
     ((1300, 1300), 2600)],
)  # fmt: skip
def test_novas_estimates_are_within_the_range(size: tuple[int, int], tokens: int) -> None:
    count = rule_of("amazon.nova-lite-v1:0").count(image(*size))
    assert count.low <= tokens <= count.high


def test_what_is_not_published_is_a_range() -> None:
    auto = rule_of("gpt-4o").count(image(640, 480))
    assert auto == Count(85, 425, 765)
    assert rule_of("gemini-3.5-flash").count(image(640, 480)) == Count(224, 1120, 1120)
    unseen = rule_of("gpt-4o").count(ImageUrl(url="https://example.com/a.png"))
    assert unseen.low < unseen.expected < unseen.high
    wide = rule_of("qwen/qwen3-vl-8b-instruct").count(image(640, 480))
    assert wide.high > 10 * wide.low


def test_a_row_has_its_texts_tokens_and_its_images() -> None:
    pictured = Example.model_validate(row(uri(png()), detail="low"))
    plain = Example.model_validate(
        {"messages": [{"role": "user", "content": "Which colour is this?"}, pictured.messages[1]]}
    )
    counter = counter_for("gpt-4o")
    with_image, without = counter.row(pictured), counter.row(plain)
    added = rule_of("gpt-4o").count(pictured.images[0])
    assert with_image.prompt == without.prompt + added
    assert with_image.total == without.total + added
    assert with_image.answer == without.answer
    assert isinstance(counter_for("some/model"), ImageCounter)
    assert isinstance(counter_for("some/model").own, ApproximateCounter)  # type: ignore[attr-defined]


def test_the_most_of_a_request_has_the_images_tokens_and_not_their_bytes() -> None:
    large = ImageUrl(url=uri(padded_png(3_000_000)))
    turn = Example.model_validate(row(large.url)).messages[:1]
    most = most_tokens(Request(messages=turn, max_tokens=10)).prompt_tokens
    assert most_image_tokens(large) < most < most_image_tokens(large) + 1000
