"""State what a vendor accepts of images in training rows."""

from __future__ import annotations

from typing import Literal

from unitune.documents import Spec


class Images(Spec):
    """Rules for images in training rows; the first whose pattern matches the model's name applies.

    An omitted limit is unknown. Only messages from the user may have images, at every vendor.
    """

    pattern: str  # regular expression for the model's name
    methods: tuple[str, ...] = ("sft",)
    types: tuple[str, ...]  # such as png
    modes: tuple[str, ...] | None = None  # colour modes, in Pillow's words
    per_row: int | None = None  # maximum number of images in a row
    rows: int | None = None  # maximum number of training rows with images
    bytes: int | None = None  # maximum size of an image
    references: tuple[Literal["https", "gs", "s3"], ...] = ()  # addresses that the vendor opens
    detail: bool = False  # whether the vendor supports `detail`
    source: str
