from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from support.rows import findings_in, rows_in

from unitune.data import records
from unitune.data.dataset import Row
from unitune.data.load import load, read
from unitune.errors import DataError
from unitune.findings import Finding

GOOD = '{"prompt": "ping", "completion": "pong"}'


def write(folder: Path, content: str | bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def chat(*messages: str) -> str:
    return f'{{"messages": [{", ".join(messages)}]}}'


USER = '{"role": "user", "content": "hello"}'
ANSWER = '{"role": "assistant", "content": "hi"}'


# A line that cannot be used, and its finding: the code, and a part of the message or the fix
BAD: list[tuple[str | bytes, str, str]] = [
    ('{"prompt": "a"', "broken-json", "at column 15"),
    ("{'prompt': 'a'}", "broken-json", "names and strings in double quotes"),
    ('{"prompt": "a", "completion": NaN}', "broken-json", "NaN is not a JSON value"),
    ('{"prompt": "a", "completion": "b", "x": 1e999}', "broken-json", "1e999 is too large"),
    ('{"prompt": "a", "x": ' + "9" * 5000 + "}", "broken-json", "5,000 digits"),
    ('{"x": ' + "[" * 101 + "]" * 101 + "}", "too-deep", "more than 100 levels deep"),
    ('{"x": ' + "[" * 9000 + "]" * 9000 + "}", "too-deep", "more than 100 levels deep"),
    (r'{"prompt": "\ud83d", "completion": "b"}', "unpaired-surrogate", r"\ud83d is half"),
    (r'{"prompt": "a", "completion": "b", "\udc00": 1}', "unpaired-surrogate", r"\udc00"),
    (b'{"prompt": "caf\xe9", "completion": "b"}', "encoding", "0xE9 at offset 15"),
    ('{"prompt": "a\0", "completion": "b"}', "nul-byte", "offset 13"),
    ("7", "not-an-object", "is 7, not an object"),
    ("null", "not-an-object", "is null, not an object"),
    ("[1, 2]", "not-an-object", "is [1, 2], not an object"),
    ("{}", "unknown-shape", "but has nothing"),
    ('{"text": "a", "label": "b"}', "unknown-shape", "'text', 'label'"),
    ('{"message": []}', "unknown-shape", "Did you mean 'messages'"),
    ('{"messages": []}', "wrong-value", "a list of 1 or more entries"),
    ('{"messages": {}}', "wrong-value", "messages is {}"),
    ('{"messages": null}', "wrong-value", "messages is None"),
    (chat("5", ANSWER), "wrong-value", "messages[0] is 5"),
    (chat('{"role": "human", "content": "a"}', ANSWER), "wrong-value", "mean 'user'"),
    (chat('{"role": "User", "content": "a"}', ANSWER), "wrong-value", "mean 'user'"),
    (chat('{"role": "asistant", "content": "a"}', ANSWER), "wrong-value", "mean 'assistant'"),
    (chat('{"role": null, "content": "a"}', ANSWER), "wrong-value", "messages[0].role is None"),
    (chat('{"content": "a"}', ANSWER), "missing-key", "messages[0] has no 'role'"),
    (chat('{"role": "user", "content": 5}', ANSWER), "wrong-value", "content is 5"),
    (chat('{"role": "user", "content": {}}', ANSWER), "wrong-value", "content is {}"),
    (chat('{"role": "user", "contnt": "a"}', ANSWER), "unknown-key", "mean 'content'"),
    (chat(USER, '{"role": "assistant", "content": "a", "weight": 2}'), "wrong-value", "is 2"),
    (chat(USER, '{"role": "assistant", "content": "a", "weight": true}'), "wrong-value", "true"),
    ('{"prompt": "a", "completion": "b", "weight": true}', "wrong-value", "true"),
    ('{"prompt": "a", "completion": "\u200b\ufeff"}', "empty-answer", "is empty"),
    (
        chat('{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}', ANSWER),
        "missing-key",
        "messages[0].content[0].image_url has no 'url'",
    ),
    (
        chat('{"role": "user", "content": [{"type": "image", "source": {}}]}', ANSWER),
        "unsupported-part",
        "messages[0].content[0] is of type 'image'",
    ),
    (
        chat('{"role": "user", "content": [{"type": "input_audio", "data": ""}]}', ANSWER),
        "unsupported-part",
        "Allowed types are",
    ),
    (
        chat('{"role": "user", "content": [{"type": "txt", "text": "a"}]}', ANSWER),
        "wrong-value",
        "content[0].type is 'txt'",
    ),
    (chat('{"role": "user", "content": [{"type": "text"}]}', ANSWER), "missing-key", "no 'text'"),
    (chat(USER), "missing-answer", "from 'user'"),
    (chat(USER, '{"role": "assistant", "content": " \\n"}'), "empty-answer", "is empty"),
    (chat(USER, '{"role": "assistant"}'), "empty-answer", "is empty"),
    (chat(USER, ANSWER)[:-1] + ', "expected": ""}', "empty-answer", "is empty"),
    (chat('{"role": "user", "content": ""}', ANSWER), "empty-message", "messages[0]"),
    (chat(ANSWER), "missing-question", "without a question"),
    ('{"prompt": "a"}', "missing-answer", "as `completion`"),
    ('{"prompt": "a", "completion": null}', "missing-answer", "as `completion`"),
    ('{"prompt": 5, "completion": "b"}', "not-a-text", "'prompt' is 5"),
    ('{"prompt": "a", "completion": true}', "not-a-text", "'completion' is True"),
    ('{"prompt": "a", "completion": "b", "id": [4]}', "wrong-value", "id is [4]"),
    ('{"prompt": "a", "completion": "b", "weight": -1}', "wrong-value", "weight is -1"),
    ('{"prompt": "a", "completion": "b", "expected": [1]}', "wrong-value", "expected is [1]"),
    ('{"prompt": "a", "completion": "b", "tools": {}}', "wrong-value", "tools is {}"),
]


@pytest.mark.parametrize(
    ("line", "code", "says"), BAD, ids=[f"{code}: {says}" for _, code, says in BAD]
)
def test_a_bad_line_is_one_error_with_its_line_and_hides_no_other_row(
    tmp_path: Path, line: str | bytes, code: str, says: str
) -> None:
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path, b"\n".join([GOOD.encode(), line, GOOD.encode()]))
    # Offsets in messages are those of the file: the table counts from the line's beginning.
    if "offset" in says:
        before, _, offset = says.partition("offset ")
        says = f"{before}offset {int(offset) + len(GOOD) + 1}"
    errors = findings_in(path)
    assert [row.line for row in rows_in(path)] == [1, 3]
    assert [(item.severity, item.code, item.file, item.line) for item in errors] == [
        ("error", code, str(path), 2)
    ]
    assert says in f"{errors[0].message} {errors[0].fix}"
    assert errors[0].fix


def test_every_problem_of_one_row_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, chat('{"from": "human", "value": "a"}', '{"role": "bot", "content": 5}'))
    assert [(found.code, found.message) for found in findings_in(path)] == [
        ("missing-key", "messages[0] has no 'role'."),
        ("unknown-key", "messages[0] has an unknown key 'from'. Did you mean 'role'?"),
        (
            "unknown-key",
            "messages[0] has an unknown key 'value'. Did you mean 'content'?",
        ),
        ("wrong-value", "messages[1].role is 'bot'. Did you mean 'assistant'?"),
        ("wrong-value", "messages[1].content is 5."),
    ]


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    path = write(tmp_path, f'{{"prompt": "a", "completion": "b", "id": {list(range(999))}}}')
    assert len(findings_in(path)[0].message) < 100


def test_a_repeated_key_is_a_warning_and_the_row_is_used(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "a", "prompt": "b", "completion": "c"}')
    repeated, row = read(path)
    assert isinstance(repeated, Finding)
    assert (repeated.severity, repeated.code, repeated.line) == ("warning", "repeated-key", 1)
    assert "'prompt'" in repeated.message
    assert isinstance(row, Row)
    assert row.example.messages[0].text == "b"


def test_an_empty_system_prompt_is_a_warning_and_an_empty_tool_result_is_none(
    tmp_path: Path,
) -> None:
    call = '{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}'
    result = '{"role": "tool", "content": "", "tool_call_id": "1"}'
    path = write(tmp_path, chat('{"role": "system", "content": ""}', USER, call, result, ANSWER))
    assert [(found.severity, found.code) for found in findings_in(path)] == [
        ("warning", "empty-message"),
        ("warning", "no-tools"),
    ]
    assert len(load(path)) == 1


def test_an_answer_may_be_a_tool_call_or_stand_in_expected(tmp_path: Path) -> None:
    call = '{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}'
    lines = [chat(USER, call), chat(USER)[:-1] + ', "expected": "hi"}']
    rows = load(write(tmp_path, "\n".join(lines))).rows
    assert [row.example.answer for row in rows] == ["", "hi"]


def test_a_prompt_needs_no_completion_when_the_answer_is_expected(tmp_path: Path) -> None:
    (row,) = load(write(tmp_path, '{"prompt": "a", "expected": "b"}')).rows
    assert (row.example.messages[-1].role, row.example.answer) == ("user", "b")


def test_prompt_and_completion_may_be_lists_of_messages_and_other_keys_are_kept(
    tmp_path: Path,
) -> None:
    pair = f'{{"prompt": [{USER}], "completion": [{ANSWER}], "grade": null, "copy": 1}}'
    (row,) = load(write(tmp_path, pair)).rows
    assert [message.role for message in row.example.messages] == ["user", "assistant"]
    assert row.example.model_extra == {"grade": None, "copy": 1}


def test_blank_lines_are_one_note_with_their_count(tmp_path: Path) -> None:
    path = write(tmp_path, f"{GOOD}\n\n  \n{GOOD}\n\n")
    (found,) = findings_in(path)
    assert (found.severity, found.code, found.line) == ("note", "blank-lines", 2)
    assert "3 blank lines were skipped" in found.message


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: str) -> None:
    errors = [found for found in findings_in(write(tmp_path, content)) if found.severity == "error"]
    assert [found.code for found in errors] == ["empty-file"]


def test_a_byte_order_mark_is_a_note_and_line_one_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + GOOD.encode() + b"\n\xff")
    mark, row, bad = read(path)
    assert isinstance(mark, Finding)
    assert (mark.severity, mark.code, mark.line) == ("note", "byte-order-mark", 1)
    assert isinstance(row, Row)
    assert isinstance(bad, Finding)
    assert f"offset {3 + len(GOOD) + 1} " in bad.message


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_another_encoding_without_a_mark_is_one_error_that_says_how_to_convert(
    tmp_path: Path, codec: str
) -> None:
    (found,) = findings_in(write(tmp_path, f"{GOOD}\n{GOOD}".encode(codec)))
    assert (found.severity, found.code, found.line) == ("error", "encoding", 1)
    assert "iconv -f UTF-16" in found.fix


def test_a_first_line_in_utf_16_hides_no_other_line(tmp_path: Path) -> None:
    lines = f"{GOOD}\n".encode("utf-16-le")[:-1] + f"{GOOD}\n".encode() * 40
    path = write(tmp_path, lines)
    assert len(rows_in(path)) == 40
    assert [found.code for found in findings_in(path)] == ["nul-byte"]


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "a\u2028b\x85c", "completion": "d"}\r\n')
    assert [example.messages[0].text for example in load(path)] == ["a\u2028b\x85c"]


def test_a_missing_file_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "train.jsonl")
    (found,) = findings_in(tmp_path / "trian.jsonl")
    assert (found.severity, found.code) == ("error", "missing-file")
    assert "'train.jsonl'" in found.fix


def test_a_directory_is_an_error_that_lists_its_data_files(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "train.jsonl")
    (found,) = findings_in(tmp_path)
    assert (found.severity, found.code) == ("error", "not-a-file")
    assert "train.jsonl" in found.fix


def test_an_unknown_suffix_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    (found,) = findings_in(write(tmp_path, "text,label", "rows.md"))
    assert (found.severity, found.code) == ("error", "unknown-format")
    assert ".jsonl, .ndjson, .json, .csv, .tsv" in found.fix


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
@pytest.mark.parametrize("letter", [" ", "a"])
def test_a_line_without_end_is_an_error_after_which_nothing_is_read(
    name: str, letter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 100)
    rows = {
        "rows.jsonl": '{"prompt": "a", "completion": "b"}\n',
        "rows.csv": "prompt,completion\na,b\n",
    }[name]
    path = write(tmp_path, f"{rows}{letter * 101}\n{rows}", name)
    assert len(rows_in(path)) == 1
    told = [(each.code, each.line) for each in findings_in(path)]
    assert told == [("line-too-long", rows.count("\n") + 1)]


def test_a_file_that_the_system_refuses_is_an_error(tmp_path: Path) -> None:
    (found,) = findings_in(tmp_path / f"{'x' * 300}.jsonl")
    assert (found.severity, found.code) == ("error", "unreadable-file")


def test_reading_needs_no_more_memory_for_a_longer_file(tmp_path: Path) -> None:
    text = "long " * 400
    path = write(tmp_path, f'{{"prompt": "{text}", "completion": "b"}}\n' * 2000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(path)) == 2000
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 4
    finally:
        tracemalloc.stop()


def test_load_raises_all_findings_and_shows_the_first_five(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join([GOOD, "", *["bad"] * 7]))
    with pytest.raises(DataError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: 7 errors")
    assert [line for line in range(1, 10) if f"rows.jsonl:{line}: " in text] == [3, 4, 5, 6, 7]
    assert f"and 2 more; run `unitune check` on {path}" in text
    assert len(caught.value.findings) == 8


def test_load_goes_on_over_warnings_and_notes(tmp_path: Path) -> None:
    path = write(tmp_path, f'\n{{"prompt": "a", "prompt": "a", "completion": "b"}}\n{GOOD}')
    dataset = load(path)
    assert (dataset.name, [row.line for row in dataset.rows]) == ("rows.jsonl", [2, 3])
