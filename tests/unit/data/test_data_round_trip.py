from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message, TextPart, digest, digest_all
from unitune.data.load import load, read
from unitune.data.questions import is_blank
from unitune.data.shapes import RESERVED
from unitune.findings import Finding
from unitune.job.job import Columns, Data, Template


def is_seen(text: str) -> bool:
    """Return whether a text is more than white space and invisible characters."""
    return not is_blank(text)


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
TEXT = ANY_TEXT.filter(is_seen)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(ANY_TEXT, JSON, max_size=3), min_size=1, max_size=2).map(tuple)
PARTS = st.lists(st.builds(TextPart, type=st.just("text"), text=TEXT), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round-trip")


def turn(role: str) -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        role=st.just(role),
        content=TEXT | PARTS.map(tuple),
        name=st.none() | ANY_TEXT,
        weight=st.sampled_from([None, 0, 1]) if role == "assistant" else st.none(),
    )


@st.composite
def an_example(draw: st.DrawFn) -> Example:
    before = draw(
        st.lists(st.sampled_from(["system", "developer", "assistant", "tool"]), max_size=2)
    )
    turns = [*map(turn, before), turn("user"), turn("assistant")]
    extra: dict[str, Any] = draw(
        st.dictionaries(
            ANY_TEXT.filter(lambda key: key not in {*Example.model_fields, *RESERVED}),
            JSON,
            max_size=3,
        )
    )
    known = {
        "messages": tuple(draw(one) for one in turns),
        "tools": draw(st.none() | OBJECTS),
        "weight": draw(st.floats(min_value=0, allow_infinity=False)),
        "id": draw(st.none() | ANY_TEXT),
        "expected": draw(st.none() | TEXT),
    }
    return Example.model_validate({**extra, **known})


@given(examples=st.lists(an_example(), min_size=1, max_size=4))
def test_any_valid_example_survives_json_lines(folder: Path, examples: list[Example]) -> None:
    written = Dataset("rows.jsonl", tuple(Row(i, e) for i, e in enumerate(examples, start=1)))
    path = folder / written.name
    path.write_bytes(written.jsonl.encode())
    found = [item for item in read(path) if isinstance(item, Finding)]
    assert {item.code for item in found} <= {"unknown-call", "call-without-id"}
    assert written == load(path)
    assert written.fingerprint == load(path).fingerprint


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(
    rows=st.lists(st.tuples(CELLS.filter(is_seen), CELLS.filter(is_seen)), min_size=1),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
@example(rows=[("0", "\x1f\x1b"), ("0", "\x1f\x1b")], suffix=".csv")
def test_any_text_survives_a_quoted_table(
    folder: Path, rows: list[tuple[str, str]], suffix: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="," if suffix == ".csv" else "\t", quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "label"])
    writer.writerows(rows)
    path = folder / f"cells{suffix}"
    path.write_bytes(text.getvalue().encode())
    data = Data(train="t", columns=Columns(user="text", assistant="label"))
    read_back = [(e.messages[0].text, e.messages[1].text) for e in load(path, data)]
    assert rows == read_back


MAPPINGS = [
    None,
    Data(train="t", columns=Columns(user="text", assistant="label")),
    Data(train="t", template=Template(user="{{ text }}", assistant="{{ label.x }}")),
]
# Bytes that look like data reach deeper than noise does.
SHARDS = st.sampled_from(
    [
        *(b'{"', b'"}', b'":', b"[", b"]", b"{", b"}", b",", b"\t", b'"', b'""', b"\\", b"\n"),
        *(b"\r", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"1e999"),
        *(b"NaN", b'{"messages": [', b'{"prompt": "a", "completion": "b"}', b"text,label\n"),
        *(b'"role": "user"', b'"content": ', b'[{"type": "image_url"}]', b"null", b"a,b\n"),
    ]
)


@given(
    content=st.binary(max_size=200) | st.lists(SHARDS, max_size=20).map(b"".join),
    suffix=st.sampled_from([".jsonl", ".csv", ".tsv"]),
    data=st.sampled_from(MAPPINGS),
)
def test_no_content_makes_reading_raise_and_none_passes_without_a_word(
    folder: Path, content: bytes, suffix: str, data: Data | None
) -> None:
    path = folder / f"bytes{suffix}"
    path.write_bytes(content)
    found = list(read(path, data))
    assert found
    for item in found:
        if isinstance(item, Finding):
            assert str(path) == item.file
            assert item.message.endswith((".", "?")), item.message
        else:
            assert item.example.answer
            assert len(item.example.input_key) == 64


@given(text=ANY_TEXT)
def test_an_input_is_the_same_whole_or_in_parts(text: str) -> None:
    half = len(text) // 2
    parts = (TextPart(type="text", text=text[:half]), TextPart(type="text", text=text[half:]))
    whole = Example(messages=(Message(role="user", content=text),))
    pieces = Example(messages=(Message(role="user", content=parts),))
    assert whole.input_key == pieces.input_key


@given(values=st.lists(JSON, max_size=4))
def test_a_list_has_one_digest_whether_it_is_hashed_whole_or_item_by_item(
    values: list[Any],
) -> None:
    assert digest(values) == digest_all(iter(values))
