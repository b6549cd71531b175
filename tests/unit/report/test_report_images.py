"""Reports show embedded images as thumbnails, within a budget, and open no address."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from support.images import asked, png, uri
from support.sample_comparison import sample_comparison

from unitune.data.example import Message
from unitune.evaluate.documents.results import Comparison
from unitune.report.cases import Thumbnails
from unitune.report.files import html_page, markdown_summary
from unitune.ui.comparisons import Chosen, browse

IMG = re.compile(r"<img[^>]*>")


def pictured(url: str, **image: str) -> Comparison:
    """Return a comparison whose first case has an image."""
    comparison = sample_comparison()
    turn = Message(**asked(url, "What is this?", **image))  # pyright: ignore[reportArgumentType]
    first, *others = comparison.cases
    return comparison.model_copy(update={"cases": (replace(first, messages=(turn,)), *others)})


def test_an_image_is_shown_from_the_page_itself() -> None:
    page = html_page(pictured(uri(png()), name='cat"><script>.png'))
    (shown,) = IMG.findall(page)
    assert f'src="{uri(png())}"' in shown
    assert 'alt="[image: cat&#34;&gt;&lt;script&gt;.png, 64\u00d748]"' in shown
    assert "<script>.png" not in page
    assert "img-src data:" in page


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/cat.png",
        "javascript:alert(1)",
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,PHN2Zy8+",
        'data:image/png;base64,AAAA" onerror="alert(1)',
        "data:image/png;base64,AAAA",
        "cat.png",
    ],
)
def test_nothing_else_becomes_an_image(url: str) -> None:
    comparison = pictured(url)
    page = html_page(comparison)
    assert IMG.findall(page) == []
    assert "What is this? [image: " in page
    found: Any = browse(comparison, Chosen(), {})
    assert found.cases[0].question.images == ()


def test_a_page_has_as_many_bytes_of_images_as_its_budget() -> None:
    turn = Message(**asked(uri(png())))
    room = len(uri(png()))
    thumbnails = Thumbnails(budget=2 * room + 1)
    assert [len(thumbnails.of([turn])) for _ in range(4)] == [1, 1, 0, 0]


def test_texts_name_the_image() -> None:
    comparison = pictured(uri(png()), name="cat.png")
    assert comparison.rows()[0]["question"] == "What is this? [image: cat.png, 64\u00d748]"
    assert "data:image" not in markdown_summary(comparison)
    found: Any = browse(comparison, Chosen(), {})
    (image,) = found.cases[0].question.images
    assert image.text == "[image: cat.png, 64\u00d748]"
