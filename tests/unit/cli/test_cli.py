"""The command line over the fake backend: what it prints, where, and how it exits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import change, write_job

from unitune.backends.protocol import WORSE, Event, State, Status
from unitune.evaluate.inference import batch_runner
from unitune.job.job import Job
from unitune.ledger import Ledger
from unitune.testing.fake import FakeBackend
from unitune.workspace.home import home

EXAMPLE = Path(__file__).parents[3] / "examples" / "bank-intents"


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A job for the fake backend, over the first rows of the example."""
    for name, count in (("train", 80), ("test", 40)):
        rows = (EXAMPLE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(rows[:count]), encoding="utf-8")
    data = {"train": "train.jsonl", "test": "test.jsonl"}
    return write_job(tmp_path, data=data, options={"fake": {"steps": 4}})


def test_help_teaches_the_first_command(unitune: Command) -> None:
    outcome = unitune("--help")

    assert outcome.code == 0
    assert "unitune quickstart trains and evaluates a small model" in outcome.out


COMMANDS = ["quickstart", "init", "check", "plan", "run", "compare", "cost", "chat", "doctor"]
COMMANDS += [f"runs {name}" for name in ("show", "watch", "cancel", "pause", "resume")]
COMMANDS += [f"models {name}" for name in ("register", "promote", "rollback", "unalias", "base")]
COMMANDS += ["schema", "data convert", "deployments up"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(unitune: Command, command: str) -> None:
    told = unitune(*command.split(), "--help").out
    assert f"$ unitune {command}" in told
    assert "<bool>" not in told, "a flag takes no value"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["plna"], "No such command 'plna'. Did you mean 'plan'"),
        (["run", "--detahc"], "Possible options: --budget, --detach"),
        (["plan", "a.yaml", "--frob"], "No such option"),
    ],
)
def test_wrong_usage_exits_with_2_and_leads_to_names_that_exist(
    unitune: Command, arguments: list[str], advice: str
) -> None:
    refused = unitune(*arguments)
    assert refused.code == 2
    assert advice in " ".join(refused.err.replace("│", " ").split())


def test_an_error_of_the_users_is_one_message_and_no_traceback(unitune: Command) -> None:
    outcome = unitune("plan", "missing.yaml")

    assert outcome.code == 2
    assert outcome.out == ""
    assert "Error: missing.yaml: no such file." in outcome.err
    assert "Traceback" not in outcome.err


def test_with_json_an_error_is_one_line_of_json_with_its_code(unitune: Command) -> None:
    outcome = unitune("plan", "missing.yaml", "--json")

    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    error = json.loads(line)["error"]
    assert (error["code"], error["exit_code"]) == ("job-error", 2)
    assert error["message"].startswith("missing.yaml: no such file.")


def test_a_bug_of_ours_exits_with_70_and_asks_for_a_report(
    unitune: Command, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("unitune.planning.plan.plan", broken)
    outcome = unitune("plan", str(job_file))

    assert outcome.code == 70
    assert "ZeroDivisionError" in outcome.err
    assert "This is a bug in unitune" in outcome.err


def test_init_writes_a_job_that_can_be_read_and_never_overwrites(unitune: Command) -> None:
    assert unitune("init", "mine").code == 0
    assert Job.load("mine/unitune.yaml").name == "bank-intents"
    assert unitune("init", "mine").code == 0

    Path("mine/unitune.yaml").write_text("name: changed", encoding="utf-8")
    outcome = unitune("init", "mine")

    assert outcome.code == 2
    assert "Nothing was written" in outcome.err
    assert Path("mine/unitune.yaml").read_text(encoding="utf-8") == "name: changed"


def test_init_reads_what_a_spreadsheet_writes_and_says_how(
    unitune: Command, tmp_path: Path
) -> None:
    rows = [f"Wort {at} für alles;{('Ja', ' ja', 'nein')[at % 3]}" for at in range(200)]
    rows[5] = "Wort ohne Antwort;"
    table = "\r\n".join(("sep=;", "Größen;", "text;label", *rows, "Summe;200"))
    (tmp_path / "rows.csv").write_text(table, encoding="cp1252")
    arguments = ("init", "--data", "rows.csv", "--backend", "fake", "--model", "base")
    refused = unitune(*arguments)
    assert refused.code == 2
    assert [
        words for words in ("rows.csv:9:", "unitune init --data rows.csv --drop")
        if words in refused.err
    ] == ["rows.csv:9:", "unitune init --data rows.csv --drop"]  # fmt: skip
    told = " ".join(unitune(*arguments, "--drop").out.split())
    for words in (
        "read as Windows-1252, e.g. 'Größen'",
        "the header was found here; 1 line above it was skipped",
        "a line that looks like a total",
        "1 row cannot be used and was left out",
        "2 labels; 3 spellings, 2 when case and blanks are ignored",
    ):
        assert words in told
    assert unitune("check").code == 0
    assert unitune("plan").code == 0


def test_init_makes_a_job_for_a_file_and_never_overwrites(unitune: Command, tmp_path: Path) -> None:
    rows = "".join(f"{at};word {at * at} is it;{('yes', 'no')[at % 2]}\n" for at in range(200))
    (tmp_path / "rows.csv").write_text(f"id;text;spam\n{rows}", encoding="utf-8")
    arguments = ("init", "--data", "rows.csv", "--backend", "fake", "--model", "base")
    outcome = unitune(*arguments)
    assert outcome.code == 0
    told = " ".join(outcome.out.split())
    assert "a table separated by semicolons: rows mapped by the job from text, spam" in told
    assert "130 for training, 30 for choosing prompts, 40 for the test" in told
    assert "unitune plan show cost, time and memory" in told
    written = Path("unitune.yaml").read_text(encoding="utf-8")
    assert Job.load("unitune.yaml").data.test == 0.2
    assert unitune("plan").code == 0

    outcome = unitune(*arguments)
    assert (outcome.code, "unitune.yaml exists" in outcome.err) == (2, True)
    assert written == Path("unitune.yaml").read_text(encoding="utf-8")
    other = unitune(*arguments, "--assistant", "id", "-o", "b.yaml", "--json")
    assert (other.code, json.loads(other.out)["files"]) == (0, ["b.yaml", "unitune.schema.json"])
    columns = Job.load("b.yaml").data.columns
    assert columns is not None
    assert (columns.user, columns.assistant) == ("text", "id")


def test_a_job_that_could_not_be_planned_is_not_written(unitune: Command, tmp_path: Path) -> None:
    rows = "".join(f'{{"prompt": "q {at}", "chosen": "a", "rejected": "b"}}\n' for at in range(200))
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    outcome = unitune("init", "--data", "rows.jsonl", "--backend", "nebius", "--model", "x/y")
    assert (outcome.code, Path("unitune.yaml").exists()) == (2, False)
    assert "nebius cannot do dpo" in outcome.out
    assert "Nothing was written" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--user", "text"], "--user needs a data file"),
        (["folder", "--data", "rows.csv"], "folder is a folder for the example"),
        (["--data", "rows.csv", "--test", "1.5"], "--test is 1.5. Pass a share between 0 and 1"),
        (["--data", "rows.csv"], "rows.csv: the file does not exist"),
        (["--data", "rows.csv", "--backend", "openai"], "no model is named"),
    ],
)
def test_init_says_what_does_not_go_together(
    unitune: Command, arguments: list[str], says: str
) -> None:
    outcome = unitune("init", *arguments)
    assert outcome.code == 2
    assert says in " ".join(outcome.err.split())


def test_check_names_the_line_and_exits_with_2(unitune: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": [}\n', encoding="utf-8")

    outcome = unitune("check", "rows.jsonl")

    assert outcome.code == 2
    assert "rows.jsonl:1" in outcome.out


def test_check_prints_a_report_of_a_good_file(unitune: Command, job_file: Path) -> None:
    assert unitune("check", str(job_file)).code == 0
    report = json.loads(unitune("check", "train.jsonl", "--json").out)

    assert report["files"][0]["rows"] == 80
    assert report["schema_version"] == 1


def test_plan_in_json_is_one_object(unitune: Command, job_file: Path) -> None:
    plan = json.loads(unitune("plan", str(job_file), "--json").out)

    assert (
        plan["job"],
        plan["train_rows"],
        plan["validation_rows"],
        plan["test_rows"],
    ) == ("demo", 50, 30, 40)


def test_the_job_here_and_the_newest_run_need_no_name(
    unitune: Command, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job_file.parent)
    assert "this project has no run yet" in unitune("runs", "show").err
    older = unitune("run", "--detach").out.strip()
    newer = unitune("run", "--detach", "--allow-duplicate").out.strip()

    assert older != newer
    assert unitune("runs", "watch", "--quiet").code == 0
    assert newer in unitune("runs", "show").out


def test_run_detached_prints_the_id_alone_and_watch_follows_it(
    unitune: Command, job_file: Path
) -> None:
    run = unitune("run", str(job_file), "--detach").out.strip()
    lines = [json.loads(line) for line in unitune("runs", "watch", run, "--json").out.splitlines()]

    assert {line["run"] for line in lines} == {run}
    assert [line["data"]["step"] for line in lines if line["kind"] == "step"] == [1, 2, 3, 4]
    assert json.loads(unitune("runs", "show", run, "--json").out)["state"] == "succeeded"


def test_a_second_run_of_the_same_training_is_refused(unitune: Command, job_file: Path) -> None:
    assert unitune("run", str(job_file), "--quiet").code == 0
    outcome = unitune("run", str(job_file))

    assert outcome.code == 2
    assert "--allow-duplicate" in outcome.err
    assert unitune("run", str(job_file), "--allow-duplicate").code == 0


def test_a_failed_training_exits_with_4_and_its_reason(unitune: Command, job_file: Path) -> None:
    change(job_file, '"steps": 4', '"steps": 4, "fail_at_step": 2')
    outcome = unitune("run", str(job_file))

    assert outcome.code == 4
    assert "has no model. It failed: " in outcome.err


def test_compare_without_a_run_names_the_command_that_makes_one(
    unitune: Command, job_file: Path
) -> None:
    outcome = unitune("compare", str(job_file))

    assert outcome.code == 2
    assert "unitune run" in outcome.err


def test_compare_names_its_report_and_writes_the_others_beside_it(
    unitune: Command, job_file: Path
) -> None:
    unitune("run", str(job_file), "--quiet")
    outcome = unitune("compare", str(job_file), "--output", "evidence")

    assert outcome.code == 0
    assert "evidence/report.html" in outcome.out
    for name in ("rows.jsonl", "verdict.json", "report.html", "summary.md", "junit.xml"):
        assert Path("evidence", name).stat().st_size


def test_compare_in_batches_says_how_far_they_are(
    unitune: Command, job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.setattr(batch_runner, "delays", lambda _: repeat(0.001))
    unitune("run", str(job_file), "--quiet")
    (tmp_path / "vendor" / "batches.json").write_text('{"polls": 3}', encoding="utf-8")
    outcome = unitune("compare", str(job_file), "--batch")

    assert outcome.code == 0
    said = [line for line in outcome.err.splitlines() if "tuned" in line]
    done = [f"batch: tuned, {count} of 40 cases done" for count in (10, 20, 30, 40)]
    assert said == [*done, "test: tuned, 40 cases answered"]
    assert unitune("compare", str(job_file), "--batch", "--quiet").err == ""


def test_compare_in_batches_is_refused_where_there_are_none(
    unitune: Command, job_file: Path
) -> None:
    outcome = unitune("compare", str(job_file), "--batch", "--backend", "local")

    assert outcome.code == 2
    assert "backend 'local' does not support batches" in outcome.err
    assert "--batch" in outcome.err


def test_the_gate_decides_the_exit_code(unitune: Command, job_file: Path) -> None:
    """No one answers right, so nothing can be said of an improvement."""
    unitune("run", str(job_file), "--quiet")
    gated = '"evaluate": {"margin": 0.2, "gate": {"mode": "improve"}}, "options"'
    change(job_file, '"options"', gated)
    verdict = unitune("compare", str(job_file), "--json")

    assert verdict.code == 3
    assert json.loads(verdict.out)["verdict"] == "inconclusive"
    assert json.loads(verdict.out)["doubt"].startswith("No side got")
    assert json.loads(verdict.out)["gate"]["exit_code"] == 3


def test_test_rows_in_train_exit_with_5(unitune: Command, job_file: Path) -> None:
    unitune("run", str(job_file), "--quiet")
    shutil.copy("train.jsonl", "test.jsonl")

    for command in ("check", "plan", "run", "compare"):
        assert unitune(command, str(job_file)).code == 5


def test_cancel_ends_a_run(unitune: Command, job_file: Path) -> None:
    change(job_file, '"steps": 4', '"steps": 4, "seconds_per_step": 60')
    run = unitune("run", str(job_file), "--detach").out.strip()

    assert unitune("runs", "cancel", run).code == 0
    assert unitune("runs", "watch", run).code == 4
    assert json.loads(unitune("runs", "show", run, "--json").out)["state"] == "cancelled"


def test_a_pause_waits_until_the_run_stands(
    unitune: Command, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local worker ends its step first."""
    change(job_file, '"steps": 4', '"steps": 40')
    run = unitune("run", str(job_file), "--detach").out.strip()
    pause = FakeBackend.pause
    polls: list[str] = []

    def after_two_polls(self: FakeBackend, job_id: str, cursor: str) -> Status:
        polls.append(job_id)
        if len(polls) == 2:
            pause(self, job_id)
        return poll(self, job_id, cursor)

    poll = FakeBackend.poll
    monkeypatch.setattr(FakeBackend, "pause", lambda *_: None)
    monkeypatch.setattr(FakeBackend, "poll", after_two_polls)
    paused = unitune("runs", "pause", run)
    assert f"{run} is paused; resume with: unitune runs resume {run}" in paused.out
    assert unitune("runs", "resume", run).code == 0


def test_a_run_whose_worker_was_killed_reads_interrupted(unitune: Command, job_file: Path) -> None:
    run = unitune("run", str(job_file), "--detach").out.strip()
    ledger = Ledger(home())
    raw = "interrupted: its worker is gone (killed, perhaps out of memory); resume continues"
    with ledger.acting(run) as record:
        ledger.write(replace(record, state=State.PAUSED, raw=raw))
    (line,) = [line for line in unitune("runs").out.splitlines() if line.startswith(run)]
    assert "interrupted" in line
    assert "paused" not in line
    assert "paused" not in unitune("runs", "show", run).out


def test_a_run_that_has_made_its_model_worse_says_so(unitune: Command, job_file: Path) -> None:
    assert unitune("run", str(job_file)).code == 0
    run = json.loads(unitune("runs", "--json").out)["runs"][0]["id"]
    ledger = Ledger(home())
    text = "the validation loss is 10.8 after step 4, and was 2.1 before the first step"
    event = Event("warning-9", "warning", 1.0, {"text": text, WORSE: True})
    assert ledger.note(ledger.record(run), event)
    (line,) = [line for line in unitune("runs").out.splitlines() if line.startswith(run)]
    assert "succeeded, worse" in line
    assert "10.8 after step 4" in unitune("runs", "show", run).out
    assert text == json.loads(unitune("runs", "show", run, "--json").out)["warning"]
    notes = json.loads(unitune("compare", str(job_file), "--json").out)["notes"]
    assert [note for note in notes if note.startswith(f"Run {run}: {text}")]


def test_a_paused_run_says_how_to_go_on_and_does(unitune: Command, job_file: Path) -> None:
    change(job_file, '"steps": 4', '"steps": 4, "pause_at_step": 3')
    paused = unitune("run", str(job_file))
    run = json.loads(unitune("runs", "--json").out)["runs"][0]["id"]

    assert paused.code == 4
    assert f"unitune runs resume {run}" in paused.err
    assert unitune("runs", "resume", run).code == 0


def test_doctor_shows_backends_proxy_and_certificates_without_a_password(
    unitune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://jane:secret@proxy.example.com:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/company-ca.pem")
    found = json.loads(unitune("doctor", "--json").out)
    assert {"openai", "local"} <= {backend["name"] for backend in found["backends"]}
    assert found["HTTPS_PROXY"] == "proxy.example.com:3128"
    assert found["SSL_CERT_FILE"] == "/etc/ssl/company-ca.pem"
    assert "secret" not in unitune("doctor").out
