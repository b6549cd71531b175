from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.rows import findings_in, job_on, rows_in

from unitune.data.check import read_job
from unitune.data.dataset import Row
from unitune.data.load import load
from unitune.findings import Finding
from unitune.job.job import Columns, Data, Template

COLUMNS = Data(train="t", columns=Columns(user="text", assistant="label"))
WITH_SYSTEM = Data(train="t", columns=Columns(user="text", assistant="label", system="rule"))
TEMPLATE = Data(
    train="t", template=Template(user="{{ subject }}: {{ body | upper }}", assistant="{{ label }}")
)


def write(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def findings(path: Path, data: Data | None = COLUMNS) -> list[Finding]:
    return findings_in(path, data)


def rows(path: Path, data: Data | None = COLUMNS) -> list[Row]:
    return rows_in(path, data)


def texts(row: Row) -> list[str]:
    return [message.text for message in row.example.messages]


def test_a_table_is_read_by_its_columns_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path, 'label,text\r\nbilling,"Where, please, is ""it""?"\r\n')
    (row,) = load(path, COLUMNS).rows
    assert texts(row) == ['Where, please, is "it"?', "billing"]
    assert [message.role for message in row.example.messages] == ["user", "assistant"]


def test_a_row_stands_on_the_line_where_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path, 'text,label\n"one\ntwo\n\nthree",a\nfour,b\n')
    assert [row.line for row in rows(path)] == [2, 6]
    assert texts(rows(path)[0]) == ["one\ntwo\n\nthree", "a"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_what_separates_columns_is_seen(tmp_path: Path, name: str, delimiter: str) -> None:
    """As the csv module, and so Excel and pandas, write it."""
    path = tmp_path / name
    values = [["text", "label"], ["a, b; c\td|e", "x"], ['"q"\nr', "y"]]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(values)
    assert values[1:] == [texts(row) for row in rows(path)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text;label\na, b, c;x\nd;y\n", [["a, b, c", "x"], ["d", "y"]]),
        ("sep=;\r\ntext;label\r\na;x\r\n", [["a", "x"]]),  # Excel's own line
        ("sep=|\ntext|label\na|x\n", [["a", "x"]]),
        ("text,label,a;b\nq,x,1;2\n", [["q", "x"]]),
        ('text;label;"a,b"\nq,r;x;\n', [["q,r", "x"]]),
    ],
)
def test_the_header_and_the_rows_show_the_delimiter(
    tmp_path: Path, content: str, expected: list[list[str]]
) -> None:
    assert expected == [texts(row) for row in rows(write(tmp_path, content))]


def test_a_blank_system_cell_is_no_system_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, "rule,text,label\nBe brief.,q,a\n ,q,a\n")
    assert [texts(row) for row in rows(path, WITH_SYSTEM)] == [["Be brief.", "q", "a"], ["q", "a"]]


def test_columns_that_are_not_mapped_are_own_keys_and_id_names_the_row(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "id,text,label,email,day\n7,q,a,x@example.org,1\n8,r,b,,2\n")
    (found,) = findings(path)
    assert (found.severity, found.code) == ("note", "columns-left-out")
    assert "'email', 'day'" in found.message
    assert [row.example.case_id for row in rows(path)] == ["7", "8"]
    own = [{"email": "x@example.org", "day": "1"}, {"email": "", "day": "2"}]
    assert own == [row.example.model_extra for row in rows(path)]


def test_columns_that_are_not_mapped_are_said_once(tmp_path: Path) -> None:
    content = "".join(f"question {at},yes,{at}@example.org\n" for at in range(60))
    write(tmp_path, f"text,label,email\n{content}")
    columns = {"user": "text", "assistant": "label"}
    job = job_on(tmp_path, {"train": "rows.csv", "columns": columns})
    told = [each.code for each in read_job(job).report.findings if "email" in each.message]
    assert told == ["columns-left-out"]


def test_columns_that_are_not_mapped_reach_no_grader(tmp_path: Path) -> None:
    """Graders run at the vendor: what the job does not name stays here."""
    path = write(tmp_path, "id,text,label,email\n7,q,a,x@example.org\n")
    (row,) = rows_in(path, COLUMNS, "rft")
    assert (row.example.id, row.example.model_extra) == ("7", {})


def test_another_table_without_a_mapping_is_one_error_that_shows_how_to_map(
    tmp_path: Path,
) -> None:
    (found,) = findings(write(tmp_path, "text,label\nq,a\nr,b\n"), None)
    assert (found.severity, found.code, found.line) == ("error", "missing-column", 1)
    assert "'text', 'label'" in found.message
    assert "data: {columns:" in found.fix


@pytest.mark.parametrize("data", [COLUMNS, TEMPLATE])
def test_a_wrong_column_name_is_told_once_with_the_nearest(tmp_path: Path, data: Data) -> None:
    path = write(tmp_path, "txt,subject,bodi,lable\n" + "q,s,b,a\n" * 3)
    (found,) = findings(path, data)
    assert (found.severity, found.code, found.line) == ("error", "missing-column", 1)
    nearest = "'txt'" if data is COLUMNS else "'bodi'"
    assert f"Did you mean {nearest}?" in found.message


@pytest.mark.parametrize(
    ("content", "code", "line", "says"),
    [
        ("text,label\nq\nr,b\n", "column-count", 2, "1 value, but the header names 2"),
        ("text,label\nq,a,x\nr,b\n", "column-count", 2, "3 values"),
        ('text,label\nq,"a\nr,b\n', "broken-row", 2, "never closed"),
        ('text,label\n"q"x,a\nr,b\n', "broken-row", 2, "between a closing quote"),
        ("text,label\nq\rx,a\nr,b\n", "broken-row", 2, "carriage return"),
        ("text,label\n" + "q" * 140_000 + ",a\nr,b\n", "broken-row", 2, "131,072 characters"),
        ("text,label\nq,\nr,b\n", "empty-answer", 2, "is empty"),
        ("text,label\n,a\nr,b\n", "empty-message", 2, "is empty"),
        (b"text,label\nq\xe9,a\nr,b\n", "encoding", 2, "0xE9 at offset 12"),
        (b'text,label\n"q\n\xe9",a\nr,b\n', "encoding", 3, "0xE9 at offset 14"),
        ("text,label\nq\0,a\nr,b\n", "nul-byte", 2, "offset 12"),
    ],
)
def test_a_bad_row_is_one_error_and_the_next_row_is_read(
    tmp_path: Path, content: str | bytes, code: str, line: int, says: str
) -> None:
    path = write(tmp_path, content)
    (found,) = findings(path)
    assert ("error", code, line) == (found.severity, found.code, found.line)
    assert says in found.message
    assert [texts(row) for row in rows(path)] == [["r", "b"]]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("", "empty-file", "no rows"),
        ("text,label\n", "empty-file", "no rows"),
        ("text,label,text\nq,a,b\n", "repeated-column", "'text' more than once"),
        (b"text,l\x81bel\nq,a\n", "encoding", "0x81 at offset 6"),
        ("text,label\nq,a\n".encode("utf-16-le"), "encoding", "UTF-16"),
    ],
)
def test_a_table_that_cannot_be_read_at_all_is_one_error(
    tmp_path: Path, content: str | bytes, code: str, says: str
) -> None:
    (found,) = findings(write(tmp_path, content))
    assert ("error", code) == (found.severity, found.code)
    assert says in found.message


def test_a_quote_that_is_never_closed_hides_no_row_in_a_long_file(tmp_path: Path) -> None:
    body = "".join(f"question {index},label {index}\n" for index in range(20_000))
    path = write(tmp_path, f'text,label\nbad,"a\n{body}')
    (found,) = findings(path)
    assert (found.code, found.line) == ("broken-row", 2)
    assert len(rows(path)) == 20_000


def test_blank_lines_of_a_table_are_one_note(tmp_path: Path) -> None:
    (found,) = findings(write(tmp_path, "\ntext,label\n\nq,a\n"))
    assert (found.severity, found.code, found.line) == ("note", "blank-lines", 1)
    assert "2 blank lines" in found.message


def test_a_template_is_rendered_over_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "subject,body,label\nLate,where is it,delivery\n")
    assert [texts(row) for row in rows(path, TEMPLATE)] == [["Late: WHERE IS IT", "delivery"]]


def test_a_template_may_do_without_a_column_when_it_says_so(tmp_path: Path) -> None:
    data = Data(
        train="t",
        template=Template(user="{{ note | default('none') }} {{ text }}", assistant="{{ label }}"),
    )
    path = write(tmp_path, "text,label\nq,a\n")
    assert [texts(row) for row in rows(path, data)] == [["none q", "a"]]


def test_a_template_that_is_no_template_is_one_error(tmp_path: Path) -> None:
    data = Data(train="t", template=Template(user="a\n{{ text", assistant="{{ label }}"))
    (found,) = findings(write(tmp_path, "text,label\nq,a\n"), data)
    assert (found.severity, found.code) == ("error", "broken-template")
    assert "data.template.user, line 2" in found.message


@pytest.mark.parametrize(
    "source",
    ["{{ 1 // (text | int) }}", "{{ text.__class__.__mro__ }}", "{{ text }}{% include 'x' %}"],
)
def test_whatever_a_template_does_is_an_error_of_its_row(tmp_path: Path, source: str) -> None:
    data = Data(train="t", template=Template(user=source, assistant="{{ label }}"))
    (found,) = findings(write(tmp_path, "text,label\n0,a\n"), data)
    assert (found.severity, found.code, found.line) == ("error", "template-failed", 2)


LOOPS = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}{{ text }}"
)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (LOOPS, "longer than 1 s"),
        ("{{ '%2000000000s' % text }}", "memory"),
        ("{{ 'a' * 9**9 }}", ""),
    ],
    ids=["time", "memory", "constant"],
)
def test_a_template_has_a_limit_of_time_and_memory(tmp_path: Path, source: str, words: str) -> None:
    data = Data(train="t", template=Template(user=source, assistant="{{ label }}"))
    path = write(tmp_path, "text,label\n" + "0,a\n" * 30)
    found = findings(path, data)
    assert {each.code for each in found} == {"template-failed"}
    assert words in found[0].message


def test_flat_json_is_mapped_like_a_table(tmp_path: Path) -> None:
    lines = '{"text": "q", "label": "a", "day": 1}\n{"text": 5, "label": "a"}\n{"text": "q"}\n'
    path = write(tmp_path, lines, "rows.jsonl")
    assert [texts(row) for row in rows(path)] == [["q", "a"]]
    assert [(found.code, found.line) for found in findings(path)] == [
        ("not-a-text", 2),
        ("missing-column", 3),
        ("columns-left-out", None),
    ]


def test_rows_with_messages_or_a_prompt_pass_a_mapping_by(tmp_path: Path) -> None:
    lines = (
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],'
        ' "label": "kept"}\n{"prompt": "r", "completion": "b"}\n'
    )
    path = write(tmp_path, lines, "rows.jsonl")
    assert [texts(row) for row in rows(path)] == [["q", "a"], ["r", "b"]]
    assert rows(path)[0].example.model_extra == {"label": "kept"}
    assert findings(path) == []


def test_a_template_takes_any_json_value(tmp_path: Path) -> None:
    path = write(tmp_path, '{"subject": 1, "body": ["x"], "label": true}', "rows.jsonl")
    assert [texts(row) for row in rows(path, TEMPLATE)] == [["1: ['X']", "True"]]


def codes(path: Path, data: Data | None = COLUMNS) -> list[tuple[str, str, int | None]]:
    return [(each.severity, each.code, each.line) for each in findings(path, data)]


@pytest.mark.parametrize("pad", ["", ",,"])
def test_a_header_is_found_below_title_lines(tmp_path: Path, pad: str) -> None:
    content = (
        f"Software catalogue{pad}\nas of 2026{pad}\n{pad}\ntext,label,size\nq,a,1\nr,b,2\ns,a,3\n"
    )
    path = write(tmp_path, content)
    assert [texts(row) for row in rows(path)] == [["q", "a"], ["r", "b"], ["s", "a"]]
    assert ("note", "title-lines", 4) in codes(path)


def test_an_index_without_a_name_is_no_title(tmp_path: Path) -> None:
    path = write(tmp_path, ",text,label\n0,q,a\n1,r,b\n")
    assert [texts(row) for row in rows(path)] == [["q", "a"], ["r", "b"]]
    assert codes(path) == []


@pytest.mark.parametrize("total", ["Total,,491", 'Summe:,,"12,5"', "Total,491,\nAverage,3,"])
def test_totals_at_the_end_are_left_out_with_a_note(tmp_path: Path, total: str) -> None:
    path = write(tmp_path, f"text,label,size\nq,a,1\nTotal,b,2\n{total}\n")
    assert [texts(row) for row in rows(path)] == [["q", "a"], ["Total", "b"]]
    assert ("note", "total-lines", 4) in codes(path)


def test_windows_1252_is_read_with_a_note_that_shows_a_word(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("sep=;\r\ntext;label\r\nzu klein für mich;Größe\r\n", encoding="cp1252")
    assert [texts(row) for row in rows(path)] == [["zu klein für mich", "Größe"]]
    (found,) = findings(path)
    assert (found.severity, found.code, found.line) == ("note", "windows-1252", 3)
    assert "'für'" in found.message


CYRILLIC = "".join(map(chr, range(0x434, 0x43F)))


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (f"text,label\n{CYRILLIC},{CYRILLIC}\n", "cp1251"),
        ("text,label\nzu klein für mich und viele andere,Grösse\n", "mac-roman"),
        ("text,label\nmam książkę i ołówek w domu,żółty\n", "cp1250"),
    ],
)
def test_another_encoding_is_not_taken_for_windows_1252(
    tmp_path: Path, content: str, encoding: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content.encode(encoding))
    assert ("error", "encoding") in {each[:2] for each in codes(path)}


def test_a_damaged_character_in_utf_8_stays_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\nGröße,a\n".encode() + b"kleine Gr\xf6sse hier,a\n")
    assert codes(path) == [("error", "encoding", 3)]


def test_a_file_that_is_not_text_is_one_error(tmp_path: Path) -> None:
    for content in (bytes(range(256)) * 8, b"\xd0\xcf\x11\xe0" + bytes(600)):
        (found,) = findings(write(tmp_path, content))
        assert (found.severity, found.code) == ("error", "not-text")


def test_rows_that_cannot_be_used_are_left_out_and_counted_if_the_job_says_so(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "text,label\nq,a\nr,\n,b\ns,\n")
    data = COLUMNS.model_copy(update={"unusable": "drop"})
    assert [texts(row) for row in rows(path, data)] == [["q", "a"]]
    (found,) = findings(path, data)
    assert (found.severity, found.code) == ("note", "rows-left-out")
    assert "3 rows" in found.message
    assert "empty-answer (2, first in line 3)" in found.message
    nothing = write(tmp_path, "text,label\nr,\n")
    assert codes(nothing, data) == [("error", "empty-answer", 2)]


def test_an_answer_is_read_as_the_label_that_it_spells_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\nq,Games\nr, GAMES \ns,n/a\n")
    data = COLUMNS.model_copy(update={"labels": ("games",)})
    assert [texts(row)[1] for row in rows(path, data)] == ["games", "games", "n/a"]
