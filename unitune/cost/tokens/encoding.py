"""OpenAI's encodings, counted with tiktoken over rank tables that come with unitune.

tiktoken itself would download the tables on first use; here they are package data, so that a count
opens no connection. An encoding is built once a process. Text never fails to count: what looks like
a special token is text, half of a character counts as its replacement, and a text that tiktoken
could not take in one piece is cut where the cut changes nothing.
"""

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

# Longest text that tiktoken gets at once. On a million white-space characters tiktoken 0.14.0 ends
# with a panic of its regular expressions (StackOverflow), on 450,000 it does not (2026-11-25).
PIECE_CHARACTERS = 100_000
# No token of either encoding holds the end of a word and the space after it, so a text can be cut
# there without a change of its count
_BETWEEN_WORDS = re.compile(r"[A-Za-z](?= [A-Za-z])")
_DATA = importlib.resources.files("unitune.cost.tokens") / "encodings"


class _Recipe(TypedDict):
    sha256: str
    special: dict[str, int]
    pattern: list[str]


def count_tokens(encoding: str, text: str) -> int:
    """Return how many tokens a text is, by o200k_base or cl100k_base."""
    encode = tiktoken_encoding(encoding).encode_ordinary
    return sum(len(encode(piece)) for piece in pieces(text))


def pieces(text: str, most: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a long text between two words into pieces of at most so many characters.

    A stretch of that length without two words is cut where it ends, which may add a token.
    """
    start = 0
    while len(text) - start > most:
        window = text[start : start + most]
        # The last part is searched first: a whole window of prose has thousands of such places.
        for tail in (max(0, most - 1000), 0):
            if places := [match.end() for match in _BETWEEN_WORDS.finditer(window, tail)]:
                break
        cut = places[-1] if places else most
        yield window[:cut]
        start += cut
    yield text[start:]


@cache
def tiktoken_encoding(name: str) -> tiktoken.Encoding:
    """Return tiktoken's encoding, o200k_base or cl100k_base, built from our own table."""
    import tiktoken  # noqa: PLC0415 - heavy, and needed only where something is counted

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
    """Return the file with an encoding's ranks as tiktoken publishes it, uncompressed."""
    return lzma.decompress(_DATA.joinpath(f"{name}.tiktoken.xz").read_bytes())


@cache
def recipes() -> dict[str, _Recipe]:
    """Return what an encoding is made of beside its ranks, by name."""
    text = _DATA.joinpath("encodings.yaml").read_text(encoding="utf-8")
    return cast("dict[str, _Recipe]", yaml.safe_load(text))
