"""What a terminal obeys is replaced, and nothing else of a text."""

from __future__ import annotations

import unicodedata

import pytest

from unitune.security.redaction import MARK, one_line, printable

# Source: https://trojansource.codes, table 1.
TROJAN_SOURCE = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u202c\u2069"


@pytest.mark.parametrize("character", [*map(chr, range(0x100))])
def test_of_the_first_256_characters_control_codes_are_replaced(character: str) -> None:
    is_control = unicodedata.category(character) == "Cc" and character not in "\t\n"
    assert (MARK if is_control else character) == printable(character)


def test_what_reorders_a_line_is_replaced() -> None:
    assert MARK * len(TROJAN_SOURCE) == printable(TROJAN_SOURCE)


def test_texts_of_the_world_stay() -> None:
    text = "naïve  «café» 日本語 עברית می‌خواهم 👩‍🚀 \u200f\u00a0"
    assert text == printable(text) == one_line(text)


def test_a_text_of_one_line_stays_on_it() -> None:
    assert one_line("a\nb\tc") == f"a{MARK}b{MARK}c"
    assert printable("a\nb\tc") == "a\nb\tc"
