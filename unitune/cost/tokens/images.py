"""Count the tokens of images by the rule that a model's vendor publishes (`images.yaml`)."""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, floor, sqrt
from typing import Literal

import yaml
from pydantic import TypeAdapter

from unitune.cost.tokens.count import Count, RowCount, TokenCounter
from unitune.data.example import Example
from unitune.data.images import BadImage, ImageUrl
from unitune.documents import Spec

TILE, LARGEST, SHORTER = 512, 2048, 768  # of the rule tiles, in pixels
PATCH = 32
GEMINI_SMALL, GEMINI_TOKENS, GEMINI_TILES = 384, 258, (256, 768)
# A reference is opened by the vendor alone, so its size may be any of these
Size = tuple[int, int]
Sizes = tuple[Size, Size, Size]
SMALLEST, USUAL, GREATEST = (256, 256), (1024, 768), (8192, 3072)


class ImageRule(Spec):
    """Rule for the tokens of an image."""

    pattern: str
    rule: Literal["tiles", "patches", "gemini-tiles", "fixed", "area"]
    base: int = 0
    each: int = 0
    factor: float = 1
    most: int | None = None
    low: float = 1
    high: float = 1
    source: str

    def count(self, image: ImageUrl) -> Count:
        """Return the tokens of an image."""
        sizes, detail = _sizes(image), image.detail
        low, expected, high = (self._tokens(*size, detail) for size in sizes)
        if self.rule == "tiles" and detail != "low":
            width, height = sizes[2]
            scale = max(1, SHORTER / min(width, height))
            high = self._tokens(ceil(width * scale), ceil(height * scale), detail)
            low = low if detail == "high" else self.base  # auto may choose low
        return Count(floor(low * self.low), expected, ceil(high * self.high))

    def _tokens(self, width: int, height: int, detail: str | None) -> int:
        match self.rule:
            case "tiles":
                tiles = 0 if detail == "low" else _tiles(width, height)
                return self.base + self.each * tiles
            case "patches":
                return ceil(_patches(width, height, self.most or 0) * self.factor)
            case "gemini-tiles":
                return GEMINI_TOKENS * _gemini_tiles(width, height)
            case "fixed":
                return self.each
            case "area":
                tokens = ceil(width * height / self.each)
                return min(tokens, self.most) if self.most else tokens


def _sizes(image: ImageUrl) -> Sizes:
    """Return the smallest, usual and greatest size that an image may have."""
    try:
        header = image.image
    except BadImage:
        header = None
    known = header and (header.width, header.height)
    return (known, known, known) if known else (SMALLEST, USUAL, GREATEST)


def _tiles(width: float, height: float) -> int:
    scale = min(1, LARGEST / max(width, height))
    scale *= min(1, SHORTER / (min(width, height) * scale))
    return ceil(round(width * scale, 6) / TILE) * ceil(round(height * scale, 6) / TILE)


def _patches(width: int, height: int, most: int) -> int:
    patches = ceil(width / PATCH) * ceil(height / PATCH)
    if patches <= most:
        return patches
    scale = sqrt(PATCH**2 * most / (width * height))
    across, down = width * scale / PATCH, height * scale / PATCH
    scale = min(floor(across) / across, floor(down) / down)
    return ceil(round(across * scale, 6)) * ceil(round(down * scale, 6))


def _gemini_tiles(width: int, height: int) -> int:
    if max(width, height) <= GEMINI_SMALL:
        return 1
    least, most = GEMINI_TILES
    side = min(max(floor(min(width, height) / 1.5), least), most)
    return ceil(width / side) * ceil(height / side)


@cache
def _rules() -> tuple[ImageRule, ...]:
    file = importlib.resources.files("unitune.cost.tokens") / "images.yaml"
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[ImageRule, ...]).validate_python(known)


def rule_of(name: str) -> ImageRule:
    """Return the rule of a model by its name in lower case, without prefixes."""
    return next(rule for rule in _rules() if re.match(rule.pattern, name))


def most_image_tokens(image: ImageUrl) -> int:
    """Return the tokens of an image by the rule that gives most."""
    return max(rule.count(image).high for rule in _rules())


@dataclass(frozen=True, slots=True)
class ImageCounter:
    """Counter that adds the tokens of images to another's count of the texts."""

    own: TokenCounter
    rule: ImageRule

    @property
    def basis(self) -> str:
        return self.own.basis

    @property
    def assumptions(self) -> tuple[str, ...]:
        return self.own.assumptions

    def row(self, example: Example) -> RowCount:
        row = self.own.row(example)
        if not example.images:
            return row
        images = sum((self.rule.count(image) for image in example.images), Count())
        return replace(row, prompt=row.prompt + images, total=row.total + images)
