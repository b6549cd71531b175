"""`unitune data convert`: rows out, whole or not at all, and everything else on standard error."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
from support.command_line import Command, ran

ROW = {
    "messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": "b"}],
}
WIRE = {"prompt": "é", "completion": "b"}
EXTRA = {**ROW, "weight": 2.0}


@pytest.fixture
def convert(unitune: Command) -> Command:
    return partial(unitune, "data", "convert")


def write(*rows: object, name: str = "rows.jsonl") -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_rows_go_to_standard_output_and_nothing_else_does(convert: Command) -> None:
    write(ROW, ROW)
    outcome = convert("rows.jsonl", "--to", "bedrock-prompt")
    assert (outcome.code, outcome.err) == (0, "")
    assert [json.loads(line) for line in outcome.out.splitlines()] == [WIRE, WIRE]
    assert "é" in outcome.out


def test_rows_go_to_a_file_and_back_again(convert: Command) -> None:
    write(ROW, ROW)
    there = convert("rows.jsonl", "--to", "vertex-sft", "-o", "vertex.jsonl")
    back = convert("vertex.jsonl", "--from", "vertex-sft", "--output", "back.jsonl")
    assert (there.code, back.code, there.out + back.out) == (0, 0, "")
    assert "Wrote 2 rows to vertex.jsonl." in there.err
    assert [json.loads(line) for line in Path("back.jsonl").read_text().splitlines()] == [ROW, ROW]


def test_a_refused_row_is_told_with_line_and_reason_and_nothing_is_written(
    convert: Command,
) -> None:
    write(ROW, EXTRA, "broken")
    old = '{"prompt": "old"}'
    Path("out.jsonl").write_text(old, encoding="utf-8")
    outcome = convert("rows.jsonl", "--to", "openai-chat", "-o", "out.jsonl")
    assert (2, "", old) == (outcome.code, outcome.out, Path("out.jsonl").read_text())
    assert (
        "rows.jsonl:2 openai-chat cannot represent this row: the row has the weight 2"
        in outcome.err
    )
    assert "rows.jsonl:3" in outcome.err
    assert "2 of 3 rows cannot be converted; nothing was written." in outcome.err
    assert sorted(path.name for path in Path().iterdir()) == ["out.jsonl", "rows.jsonl"]
    assert convert("rows.jsonl", "--to", "openai-chat").out == ""


def test_the_first_twenty_refused_rows_are_named_and_the_others_counted(convert: Command) -> None:
    write(*[EXTRA] * 23)
    err = convert("rows.jsonl", "--to", "openai-chat").err
    assert "rows.jsonl:20 " in err
    assert "rows.jsonl:21 " not in err
    assert "and 3 more" in err


def test_refused_rows_are_dropped_when_the_user_says_so(convert: Command) -> None:
    write(ROW, EXTRA, "broken")
    outcome = convert("rows.jsonl", "--to", "openai-chat", "--drop")
    assert (outcome.code, [json.loads(line) for line in outcome.out.splitlines()]) == (0, [ROW])
    assert "Left out 2 of 3 rows." in outcome.err


def test_any_file_becomes_canonical_rows(convert: Command) -> None:
    table = "question;answer;language\né;b;cs\n"
    Path("rows.csv").write_text(table, encoding="utf-8")
    assert json.loads(convert("rows.csv").out) == {**ROW, "language": "cs"}


def test_rows_go_from_one_format_into_another(convert: Command) -> None:
    turns = [{"from": "human", "value": "é"}, {"from": "gpt", "value": "b"}]
    Path("rows.json").write_text(json.dumps([{"conversations": turns, "id": 1}]), encoding="utf-8")
    outcome = convert("rows.json", "--to", "alpaca")
    assert json.loads(outcome.out) == {"instruction": "é", "input": "", "output": "b"}
    assert "1 row had `id`" in outcome.err
    wire = [{"instruction": "é", "input": "", "output": "b"}]
    Path("alpaca.json").write_text(json.dumps(wire), encoding="utf-8")
    there = convert("alpaca.json", "--from", "alpaca", "--to", "sharegpt").out
    assert json.loads(there) == {"conversations": turns}


def test_own_keys_of_a_vendors_rows_stay(convert: Command) -> None:
    write({**WIRE, "id": 7, "language": "cs"}, name="wire.jsonl")
    back = convert("wire.jsonl", "--from", "bedrock-prompt")
    assert json.loads(back.out) == {**ROW, "id": "7", "language": "cs"}
    write({**WIRE, "images": ["a.png"]}, name="images.jsonl")
    assert "'images'" in convert("images.jsonl", "--from", "bedrock-prompt").err


def test_what_is_for_judging_is_left_out_and_told(convert: Command) -> None:
    write({**ROW, "id": "1"}, {**ROW, "id": "2", "expected": "c", "language": "cs"})
    outcome = convert("rows.jsonl", "--to", "openai-chat")
    assert (
        outcome.code,
        [json.loads(line) for line in outcome.out.splitlines()],
    ) == (0, [ROW, ROW])
    assert "2 rows had `id`" in outcome.err
    assert "1 row had `expected`" in outcome.err
    assert "1 row had `language`, which no training reads: left out." in outcome.err


@pytest.mark.parametrize("arguments", [["--drop"], []])
def test_a_file_without_a_row_to_convert_is_an_error(
    convert: Command, arguments: list[str]
) -> None:
    write(EXTRA, name="extra.jsonl")
    write("", name="empty.jsonl")
    for name in ("extra.jsonl", "empty.jsonl", "missing.jsonl"):
        outcome = convert(name, "--to", "openai-chat", "-o", "out.jsonl", *arguments)
        assert (outcome.code, Path("out.jsonl").exists()) == (2, False)
    assert convert("empty.jsonl", "--from", "openai-chat").code == 2


def test_the_formats_are_listed_with_a_line_about_each(convert: Command) -> None:
    listed = convert("--list")
    assert (listed.code, listed.err) == (0, "")
    assert "vertex-sft         Gemini contents on Vertex, for supervised tuning" in listed.out


def test_an_unknown_format_names_the_nearest_and_lists_all(convert: Command) -> None:
    write(ROW)
    outcome = convert("rows.jsonl", "--to", "vertx-sft")
    assert (outcome.code, outcome.out) == (2, "")
    assert "Did you mean 'vertex-sft'?" in outcome.err
    assert "Gemini contents on Vertex" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [[], ["--to", "openai-chat"], ["--from", "openai-chat"]],
)
def test_a_file_must_be_named(convert: Command, arguments: list[str]) -> None:
    outcome = convert(*arguments)
    assert outcome.code == 2
    assert "--to FORMAT" in outcome.err


def test_the_input_is_never_written_over_and_a_missing_folder_is_told(convert: Command) -> None:
    write(ROW)
    same = convert("rows.jsonl", "--to", "openai-chat", "-o", "./rows.jsonl")
    nowhere = convert("rows.jsonl", "--to", "openai-chat", "-o", "no/out.jsonl")
    assert (same.code, nowhere.code) == (2, 2)
    assert "rows.jsonl is an input of the command" in same.err
    assert "no/out.jsonl: No such file or directory" in nowhere.err
    assert convert("rows.jsonl", "--to", "openai-chat", "-o", "/dev/null").code == 0


def test_a_reader_that_has_enough_ends_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text((json.dumps(ROW) + "\n") * 3000, encoding="utf-8")
    run = "import typer; from unitune.cli.convert import convert; typer.run(convert)"
    command = f'"{sys.executable}" -c "{run}" rows.jsonl --to openai-chat | head -n 1'
    done = ran(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (141, "")
    assert json.loads(done.stdout) == ROW


MAILS = (
    {"prompt": "I am jane@firma.de.", "completion": "+49 30 123456 is busy."},
    {"prompt": "Who?", "completion": "jane@firma.de and joe@firma.de", "ticket": "a@x.de"},
)


def test_personal_data_goes_and_comes_back_byte_by_byte(convert: Command) -> None:
    write(*MAILS)
    plain = convert("rows.jsonl").out
    there = convert("rows.jsonl", "--redact", "map.json", "-o", "copy.jsonl")
    assert "an e-mail address 4 times, a phone number once. The map is in map.json" in there.err
    assert "firma" not in Path("copy.jsonl").read_text(encoding="utf-8")
    assert Path("map.json").stat().st_mode & 0o777 == 0o600
    back = convert("copy.jsonl", "--restore", "map.json")
    assert (0, plain) == (back.code, back.out)


def test_a_second_file_goes_on_with_the_map_and_its_country(convert: Command) -> None:
    write(MAILS[0])
    convert("rows.jsonl", "--redact", "map.json", "--phone-region", "DE")
    write({"prompt": "030 1234567, jane@firma.de", "completion": "ok"})
    (row,) = convert("rows.jsonl", "--redact", "map.json").out.splitlines()
    assert json.loads(row)["messages"][0]["content"] == "<PHONE_2>, <EMAIL_1>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--redact", "a.json", "--restore", "b.json"], "either --redact or --restore"),
        (["--redact", "a.json", "--phone-region", "de"], "--phone-region de is not an ISO"),
        (["--redact", "rows.jsonl"], "rows.jsonl is not a redaction map"),
        (["--restore", "no.json"], "no.json: the map cannot be read"),
        (["--redact", "a.json", "-o", "a.json"], "a.json is the map"),
    ],
)
def test_a_map_that_cannot_be_is_named(
    convert: Command, arguments: list[str], message: str
) -> None:
    write(MAILS[0])
    outcome = convert("rows.jsonl", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert [path.name for path in Path().iterdir()] == ["rows.jsonl"]
