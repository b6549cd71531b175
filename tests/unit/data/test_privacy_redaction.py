"""Redaction: one placeholder for one value, and back again byte by byte."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from unitune.data.example import Example
from unitune.data.privacy.personal import find_personal_data
from unitune.data.privacy.redaction import Redaction
from unitune.data.questions import is_blank
from unitune.errors import DataError

PIECES = (
    *("jane@firma.de", "joe.b@mail.co.uk", "+49 30 123456", "(212) 736-5000", "8.8.8.8"),
    *("4111 1111 1111 1111", "GB82 WEST 1234 5698 7654 32", "2606:4700:4700::1111"),
    *("<EMAIL_1>", "<PHONE_", "<EMAIL_", "1>", "<", ">", "_1", "<CARD_0>", "\\n", '"', "\n", "@"),
)
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=8).map("".join)
SOLID = TEXTS.filter(lambda text: not is_blank(text))
ROWS = st.builds(
    lambda user, answer, own, arguments: {
        "messages": [
            {"role": "user", "content": user},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            {"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]},
        ],
        "ticket": own,
    },
    *(SOLID, SOLID, st.lists(TEXTS, max_size=2) | TEXTS, st.builds(json.dumps, TEXTS)),
)


@given(texts=st.lists(TEXTS, max_size=4))
def test_there_and_back_gives_the_very_texts(texts: list[str]) -> None:
    redaction = Redaction()
    redacted = [redaction.redact(text) for text in texts]
    assert texts == [redaction.restore(text) for text in redacted]


@given(rows=st.lists(ROWS, min_size=1, max_size=3))
def test_there_and_back_gives_the_very_rows(rows: list[dict[str, JsonValue]]) -> None:
    redaction, examples = Redaction(), [Example.model_validate(row) for row in rows]
    redacted = [Example.model_validate_json(redaction.redact_row(each).line) for each in examples]
    read_again = Redaction.model_validate_json(redaction.text)
    restored = [read_again.restore_row(each) for each in redacted]
    assert [decoded(each) for each in examples] == [decoded(each) for each in restored]


def decoded(example: Example) -> list[object]:
    """Return a row with its arguments as values: an escape that hides data is not written again."""
    content: Any = example.content
    function = content["messages"][-1]["tool_calls"][0]["function"]
    return [json.loads(function.pop("arguments")), content]


@given(texts=st.lists(TEXTS, max_size=4))
def test_what_is_found_is_in_no_copy(texts: list[str]) -> None:
    redaction = Redaction()
    for text in texts:
        values = [text[each.start : each.end] for each in find_personal_data(text)]
        rest = redaction.redact(text)
        for placeholder in redaction.values:
            rest = rest.replace(placeholder, " ")
        assert not [value for value in values if value in rest and text.count(value) == 1]


def test_one_value_has_one_placeholder_in_all_rows() -> None:
    redaction = Redaction()
    assert redaction.redact("a@x.de, b@x.de") == "<EMAIL_1>, <EMAIL_2>"
    assert redaction.redact("b@x.de, c@x.de") == "<EMAIL_2>, <EMAIL_3>"
    assert redaction.replaced == {"EMAIL": 4}


def test_arguments_of_tools_stay_json() -> None:
    arguments = json.dumps({"text": "write\njane@firma.de\n+49 30 123456"})
    redacted = Redaction().redact(arguments)
    assert json.loads(redacted) == {"text": "write\n<EMAIL_1>\n<PHONE_1>"}


def test_a_map_is_for_the_user_alone_and_is_gone_on_with(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "map.json"
    redaction = Redaction(region="DE")
    redaction.redact("a@x.de")
    redaction.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Redaction.load(path)
    assert (again.region, again.redact("b@x.de a@x.de")) == ("DE", "<EMAIL_2> <EMAIL_1>")


@pytest.mark.parametrize("content", ["", "{}}", '{"values": {"<EMAIL_1>": 3}}', '{"other": 1}'])
def test_what_is_no_map_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"map\.json is not a redaction map"):
        Redaction.load(path)
    with pytest.raises(DataError, match=r"no\.json: the map cannot be read: No such file"):
        Redaction.load(tmp_path / "no.json")
