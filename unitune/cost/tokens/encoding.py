"""Count tokens with tiktoken and the rank tables shipped with unitune, so nothing is downloaded."""

from __future__ import annotations

import importlib.resources
import lzma
import re
from binascii import a2b_base64
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, TypedDict, cast

import yaml

if TYPE_CHECKING:
    import tiktoken

# Longest text passed to tiktoken at once. tiktoken 0.14.0 panics in its regular expressions
# (StackOverflow) on a million white-space characters, but not on 450,000 (2026-11-25).
PIECE_CHARACTERS = 100_000
# No token of either encoding spans the end of a word and the following space, so cutting there does
# not change the count
_BETWEEN_WORDS = re.compile(r"[A-Za-z](?= [A-Za-z])")
_DATA = importlib.resources.files("unitune.cost.tokens") / "encodings"


class _Recipe(TypedDict):
    sha256: str
    special: dict[str, int]
    pattern: list[str]


def count_tokens(encoding: str, text: str) -> int:
    """Return the number of tokens of any text in o200k_base or cl100k_base; never fails."""
    encode = tiktoken_encoding(encoding).encode_ordinary
    return sum(len(encode(piece)) for piece in pieces(text))


def pieces(text: str, most: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a long text between words, or else anywhere, into pieces of at most `most` characters."""
    start = 0
    while len(text) - start > most:
        window = text[start : start + most]
        # Search the end first: a whole window of prose has thousands of candidates.
        for tail in (max(0, most - 1000), 0):
            if places := [match.end() for match in _BETWEEN_WORDS.finditer(window, tail)]:
                break
        cut = places[-1] if places else most
        yield window[:cut]
        start += cut
    yield text[start:]


@cache
def tiktoken_encoding(name: str) -> tiktoken.Encoding:
    """Return tiktoken's o200k_base or cl100k_base, built from the shipped table."""
    import tiktoken  # noqa: PLC0415 - slow to import

    recipe = recipes()[name]
    fields = rank_table(name).split()
    ranks = dict(zip(map(a2b_base64, fields[::2]), map(int, fields[1::2]), strict=True))
    return tiktoken.Encoding(
        name,
        pat_str="|".join(recipe["pattern"]),
        mergeable_ranks=ranks,
        special_tokens=recipe["special"],
    )


def rank_table(name: str) -> bytes:
    """Return an encoding's uncompressed rank file as published by tiktoken."""
    return lzma.decompress(_DATA.joinpath(f"{name}.tiktoken.xz").read_bytes())


@cache
def recipes() -> dict[str, _Recipe]:
    """Return the patterns, special tokens and hashes of the encodings, by name."""
    text = _DATA.joinpath("encodings.yaml").read_text(encoding="utf-8")
    return cast("dict[str, _Recipe]", yaml.safe_load(text))
