"""What a job lets pass: secrets and personal data on their way in."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.rows import write_rows

from unitune.data.check import check_file, read_job
from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.data.privacy import personal
from unitune.data.privacy.redaction import Redaction
from unitune.errors import DataError, MissingExtra
from unitune.evaluate.compare import compare
from unitune.evaluate.inference.sources import answer_line
from unitune.evaluate.readiness import check
from unitune.findings import grouped
from unitune.job.contenders import Instructed, Recorded
from unitune.job.job import Data, Evaluate, Job
from unitune.planning.plan import plan
from unitune.planning.preflight import preflight
from unitune.run.run import launch

TOKEN = "hf_" + "jCBaQngSHiHDRYOcsMcifUcysGyaiybUWz"
MAIL, PHONE = "jane@firma.de", "+49 30 123456"


def turns(question: str, answer: str = "A") -> dict[str, Any]:
    contents = {"user": question, "assistant": answer}
    return {"messages": [{"role": role, "content": text} for role, text in contents.items()]}


def write(path: Path, *texts: str) -> None:
    rows = (turns(text, f"A {at}") for at, text in enumerate(texts))
    write_rows(path, rows)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    write(tmp_path / "train.jsonl", "Q 0", f"Q 1 {MAIL}", f"Q 2 {PHONE} {MAIL}", "Q 3 joe@firma.de")
    write(tmp_path / "dev.jsonl", "D 0 joe@firma.de", "D 1")
    write(tmp_path / "test.jsonl", "T 0 ann@firma.de", f"T 1 {MAIL}")
    return tmp_path


def job(**data: Any) -> Job:
    files: dict[str, Any] = {
        "train": "train.jsonl",
        "validation": "dev.jsonl",
        "test": "test.jsonl",
    }
    return Job(name="private", model="base", backend="fake", data=Data(**files | data))


def questions(rows: Dataset) -> list[str]:
    return [row.messages[0].text for row in rows]


def about(given: Job) -> list[tuple[str, str, int | None]]:
    report = read_job(given).report
    return [(each.severity, each.code, each.line) for each in report.findings]


def test_a_secret_stops_plan_and_launch_in_the_same_words_without_itself(folder: Path) -> None:
    write(folder / "train.jsonl", "Q 0", f"my token: {TOKEN}")
    (finding,) = plan(job(personal_data="allow")).errors
    assert str(finding) == (
        "train.jsonl:2: 'messages[0] (user)' appears to hold a secret: "
        "huggingface-access-token (37 characters, beginning with 'hf_'). Remove it and revoke "
        "it, because it was in a file. If it is not a secret, set `data.secrets: warn`."
    )
    with pytest.raises(DataError) as refused:
        launch(job(personal_data="allow"))
    assert str(finding) == str(refused.value)
    assert TOKEN[3:6] not in json.dumps(read_job(job()).report.model_dump())
    assert not (folder / "vendor").exists()


def test_a_secret_is_looked_for_in_every_text_of_a_row(folder: Path) -> None:
    function = {"name": "f", "arguments": json.dumps({"key": TOKEN})}
    called = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    for places in (
        {"messages": [*turns("Q")["messages"][:1], called]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": TOKEN}}]},
        {"note": {"deep": [TOKEN]}},
    ):
        write_rows(folder / "row.jsonl", [turns("Q") | places])
        assert [each.code for each in check_file("row.jsonl").errors] == ["secret"], places


def test_policies_say_what_becomes_of_each(folder: Path) -> None:
    write(folder / "train.jsonl", f"Q 0 {TOKEN} {MAIL}", "Q 1")
    quiet = {"validation": None, "test": None}
    secret, mail = ("error", "secret", 1), ("warning", "personal-data", 1)
    assert {secret, mail} <= set(about(job(**quiet)))
    assert {("warning", "secret", 1), ("error", "personal-data", 1)} <= set(
        about(job(secrets="warn", personal_data="refuse", **quiet))
    )
    silent = about(job(secrets="allow", personal_data="allow", **quiet))
    assert not {"secret", "personal-data"} & {code for _, code, _ in silent}


def test_findings_of_one_cause_are_one_line(folder: Path) -> None:
    mails = (turns(f"Q {at} jane{at}@firma.de") for at in range(40))
    rows = (*mails, turns("Q", "A joe@firma.de"), turns("Q 8.8.8.8"))
    write_rows(folder / "train.jsonl", rows)
    report = check_file("train.jsonl")
    groups = grouped(each for each in report.findings if each.code == "personal-data")
    assert [(group.size, group.finding.line) for group in groups] == [(41, 1), (1, 42)]


def test_a_redacted_job_is_read_as_its_copy_with_one_map(folder: Path) -> None:
    before = (folder / "train.jsonl").read_bytes()
    read = read_job(job(personal_data="redact"))
    assert read.redaction is not None
    assert questions(read.splits.train) == [
        "Q 0",
        "Q 1 <EMAIL_1>",
        "Q 2 <PHONE_1> <EMAIL_1>",
        "Q 3 <EMAIL_2>",
    ]
    assert read.splits.test is not None
    assert questions(read.splits.validation) == ["D 0 <EMAIL_2>", "D 1"]
    assert questions(read.splits.test) == ["T 0 <EMAIL_3>", "T 1 <EMAIL_1>"]
    assert read.redaction.values == {
        "<EMAIL_1>": MAIL, "<PHONE_1>": PHONE, "<EMAIL_2>": "joe@firma.de",
        "<EMAIL_3>": "ann@firma.de",
    }  # fmt: skip
    notes = [(each.file, each.message) for each in read.report.findings if each.code == "redacted"]
    assert (
        "train.jsonl",
        "personal data in 3 rows was replaced: an e-mail address 3 times, a phone number once.",
    ) in notes
    assert before == (folder / "train.jsonl").read_bytes()


def test_a_redacted_training_is_the_same_whatever_the_test_is(folder: Path) -> None:
    redacted = job(personal_data="redact")
    first = read_job(redacted).splits.train.fingerprint
    assert first == read_job(redacted).splits.train.fingerprint
    write(folder / "test.jsonl", *(f"T {at} new{at}@firma.de" for at in range(5)))
    assert first == read_job(redacted).splits.train.fingerprint
    assert first != read_job(job()).splits.train.fingerprint


def test_what_is_uploaded_is_the_copy_and_the_map_stays(folder: Path) -> None:
    run = launch(job(personal_data="redact"))
    sent = b"".join(path.read_bytes() for path in (folder / "vendor").rglob("*") if path.is_file())
    assert MAIL.encode() not in sent
    assert b"<EMAIL_1>" in (run.folder / "train.jsonl").read_bytes()
    kept = run.folder / "redaction.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert json.loads(kept.read_text("utf-8"))["values"]["<EMAIL_1>"] == MAIL
    assert not list((folder / "vendor").rglob("redaction.json"))


def test_a_redacted_job_is_judged_as_it_is_trained(folder: Path) -> None:
    """Recorded answers, and instructions of the job, have the same placeholders."""
    rows = [turns(f"T {at} ann{at}@firma.de", f"ann{at}@firma.de") for at in range(6)]
    write_rows(folder / "test.jsonl", (row | {"id": f"c{at}"} for at, row in enumerate(rows)))
    answers = [(f"c{at}", f"ann{at or 9}@firma.de") for at in range(6)]
    for name in ("old", "new"):
        text = "".join(answer_line(*each) for each in answers[:: 1 if name == "old" else -1])
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    contenders = [
        Recorded(name="old", answers="old.jsonl", role="baseline"),
        Recorded(name="new", answers="new.jsonl", role="candidate"),
        Instructed(role="reference", instructions=f"You are {MAIL}."),
    ]
    evaluate = Evaluate(contenders=tuple(contenders), instructions="Ask ann1@firma.de.")
    resolved = preflight(job(personal_data="redact").model_copy(update={"evaluate": evaluate}))
    assert resolved.job.evaluate.instructions == "Ask <EMAIL_4>."
    assert resolved.job.evaluate.contenders[2].model_dump()["instructions"] == "You are <EMAIL_1>."
    judged = evaluate.model_copy(update={"contenders": tuple(contenders[:2])})
    comparison = compare(
        job(train=None, validation=None, personal_data="redact").model_copy(
            update={"evaluate": judged}
        )
    )
    assert [each.score for each in comparison.contenders] == [5 / 6, 5 / 6]
    report = (folder / ".unitune").rglob("*")
    assert not [path for path in report if path.is_file() and b"ann1@firma" in path.read_bytes()]


@pytest.mark.usefixtures("folder")
def test_without_phonenumbers_a_copy_is_refused_and_a_look_says_what_it_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(personal, "finds_phones", lambda: False)
    with pytest.raises(MissingExtra, match=r"redact` needs phonenumbers .* Install with: "):
        launch(job(personal_data="redact"))
    notes = [each for each in read_job(job()).report.findings if each.code == "missing-extra"]
    assert [(each.severity, each.file) for each in notes] == [("note", "train.jsonl")]
    assert "1 rows have digits that may be some" in notes[0].message


def call(arguments: str) -> dict[str, Any]:
    function = {"name": "send", "arguments": arguments}
    tool_calls = [{"id": "1", "type": "function", "function": function}]
    return {
        **turns("Q"),
        "messages": [*turns("Q")["messages"][:1], {"role": "assistant", "tool_calls": tool_calls}],
    }


def with_tool(parameter: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {parameter: {"type": "string"}}}
    return {
        **turns("Q"),
        "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
    }


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "name of a custom key": lambda text: {**turns("Q"), text: "x"},
    "name of a nested key": lambda text: {**turns("Q"), "meta": {text: "x"}},
    "name of a tool's parameter": with_tool,
    "JSON in JSON in JSON": lambda text: call(
        json.dumps({"q": json.dumps({"r": json.dumps({"s": text})})})
    ),
    "key of arguments": lambda text: call(json.dumps({text: 1})),
    "escapes": lambda text: call(f'{{"q": "{escaped(text)}"}}'),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("code", "text"), [("secret", TOKEN), ("personal-data", MAIL)])
def test_names_and_nested_json_are_looked_at_and_never_shown(
    tmp_path: Path, place: str, code: str, text: str
) -> None:
    report = check(str(write_rows(tmp_path / "train.jsonl", [PLACES[place](text)])))
    assert code in {finding.code for finding in report.findings}
    assert text not in report.model_dump_json()


@pytest.mark.parametrize("place", PLACES)
def test_personal_data_in_names_and_nested_json_is_redacted(place: str) -> None:
    row = Example.model_validate(PLACES[place](MAIL))
    redaction = Redaction()
    redacted = redaction.redact_row(row)
    assert MAIL not in redacted.line
    assert escaped("@")[1:] not in redacted.line
    assert redaction.replaced == {"EMAIL": 1}


@pytest.mark.parametrize(
    "text",
    [
        "jane.doe\uff20firma.de",
        "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000",
        "4111.1111.1111.1111",
    ],
)
def test_wide_signs_fixed_blanks_and_dots_hide_nothing(text: str) -> None:
    redacted = Redaction().redact(f"it is {text} here")
    assert redacted.startswith("it is <")
    assert redacted.endswith("_1> here")
