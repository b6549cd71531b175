"""What a plan counts for a local training is what the training renders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_model import tiny_tokenizer

from unitune.cost.tokens import Count, TokenCounter, counter_for
from unitune.data.example import Example, Message
from unitune_local.data.rendering import render, render_prompt

TINY = tiny_tokenizer()
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    folder = tmp_path_factory.mktemp("tiny")
    TINY.save_pretrained(folder)
    assert (Path(folder) / "tokenizer.json").is_file()
    return counter_for(str(folder))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_rows_have_the_tokens_that_are_trained_on(
    counter: TokenCounter, pairs: list[tuple[str, str]]
) -> None:
    turns = [
        Message(role=role, content=text)
        for asked, said in pairs
        for role, text in (("user", f"a{asked}"), ("assistant", f"a{said}"))
    ]
    example = Example(messages=tuple(turns))
    count = counter.row(example)

    assert Count.of(sum(len(each.ids) for each in render(TINY, example))) == count.total
    assert Count.of(len(render_prompt(TINY, example.prompt))) == count.prompt
