"""The shipped rank tables are tiktoken's, and every text can be counted with them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.cost.tokens import Count, counter_for
from unitune.cost.tokens.by_encoding import (
    PIECE_CHARACTERS,
    count_tokens,
    pieces,
    rank_table,
    recipes,
    tiktoken_encoding,
)

from .conftest import text_tokens

NAMES = sorted(recipes())
WORDS = st.from_regex(r"[A-Za-z]{1,12}( [A-Za-z]{1,12}){2,6}", fullmatch=True)


@pytest.mark.parametrize("name", NAMES)
def test_table_pattern_and_special_tokens_are_those_of_tiktoken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = pytest.importorskip("tiktoken_ext.openai_public")
    expected: dict[str, str] = {}

    def instead_of_a_download(_url: str, expected_hash: str) -> dict[bytes, int]:
        expected["hash"] = expected_hash
        return {}

    monkeypatch.setattr(public, "load_tiktoken_bpe", instead_of_a_download)
    theirs: dict[str, Any] = getattr(public, name)()
    ours = recipes()[name]

    assert expected["hash"] == ours["sha256"]
    assert expected["hash"] == hashlib.sha256(rank_table(name)).hexdigest()
    assert theirs["pat_str"] == "|".join(ours["pattern"])
    assert theirs["special_tokens"] == ours["special"]


def test_counting_opens_no_connection_and_loads_tiktoken_only_then(
    guarded_environment: dict[str, str],
) -> None:

    code = (
        "import sys\n"
        "from unitune.cost.tokens import counter_for\n"
        "from unitune.cost.tokens.by_encoding import count_tokens\n"
        "assert 'tiktoken' not in sys.modules\n"
        "print(count_tokens('o200k_base', 'tiktoken is great!'))\n"
        "assert 'requests' not in sys.modules, 'the loader that downloads was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**guarded_environment, "TIKTOKEN_CACHE_DIR": "/nowhere"},
    )
    assert done.stdout == "6\n"


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text())
def test_counts_are_the_lengths_of_tiktokens_lists(name: str, text: str) -> None:
    assert len(tiktoken_encoding(name).encode_ordinary(text)) == count_tokens(name, text)


@given(
    st.text(
        alphabet=st.one_of(
            st.characters(), st.characters(categories=["Cs"]), st.sampled_from("\ufeff\x85\0")
        )
    )
    | st.sampled_from(["<|endoftext|>", "<|im_start|>", "<|fim_prefix|>", "<|endofprompt|>"])
)
def test_no_text_fails_to_count(text: str) -> None:
    for model in ("gpt-4o", "gpt-4", "gpt-6-luna", "claude-sonnet-5-5"):
        count = text_tokens(counter_for(model), text)
        assert count.low <= count.expected <= count.high
        assert (count.high > 0) == (text != "")


def test_half_of_a_character_counts_as_its_replacement() -> None:
    counter = counter_for("gpt-4o")
    assert text_tokens(counter, "x\ufffdy") == text_tokens(counter, "x\ud800y")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["", "x"])
def test_a_million_blanks_are_counted(name: str, end: str) -> None:
    """Without cuts tiktoken panics here, with an error that `except Exception` lets through."""
    blanks = 1_000_000
    tokens = count_tokens(name, " " * blanks + end)
    part = count_tokens(name, " " * PIECE_CHARACTERS)
    assert abs(blanks // PIECE_CHARACTERS * part - tokens) <= 2


@given(st.lists(st.tuples(WORDS, st.text(max_size=20)), min_size=5))
def test_cutting_between_words_changes_no_count(parts: list[tuple[str, str]]) -> None:
    text = "".join(words + other for words, other in parts)
    cut = list(pieces(text, most=120))

    assert text == "".join(cut)
    for name in NAMES:
        assert count_tokens(name, text) == sum(count_tokens(name, piece) for piece in cut)


@given(st.text(), st.integers(1, 20))
def test_pieces_are_the_text_and_none_is_too_long(text: str, most: int) -> None:
    cut = list(pieces(text, most))

    assert text == "".join(cut)
    assert most >= max(map(len, cut))


def test_counts_add_up_and_tell_whether_they_are_exact() -> None:
    assert Count(1, 2, 3) + Count.of(4) == Count(5, 6, 7)
    assert Count.of(4).exact
    assert not Count(1, 2, 3).exact
