"""The audit log: written with what it records, and a change of any byte is found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from crash.forks import Fork
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from support.command_line import Command

from unitune.errors import DataError, DuplicateRunError, Mismatch
from unitune.ledger import Ledger
from unitune.ledger.audit import BEGINNING, AuditEntry, check_chain, export_lines, read_export
from unitune.registry.versions import promote
from unitune.run.run import find_run, launch
from unitune.workspace.home import home

from .conftest import MakeJob, Priced, change_ledger


@pytest.fixture
def log(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The actions of a run that was launched, promoted without a gate, and of one deleted."""
    return act(make_job, monkeypatch)


def act(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("UNITUNE_USER", "mary")
    first = launch(make_job({})).wait()
    promote(first, "production", without_gate="the first")
    monkeypatch.setenv("UNITUNE_USER", "john")
    launch(make_job({"steps": 2})).wait().delete(force=True)
    return [entry.action for entry in Ledger(home()).audit_log()]


def test_who_did_what_is_on_record_also_what_was_deleted(
    make_job: MakeJob, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store
    log = act(make_job, monkeypatch)
    ends = ["run.queued", "run.running", "run.succeeded"]
    expected = ["run.launched", *ends, "version.registered", "alias.promote"]
    expected += ["run.launched", *ends, "run.deleted"]
    shown = [each for each in log if each not in ("run.uploading", "run.submitting")]
    assert expected == shown
    entries = Ledger(home()).audit_log()
    assert [each.who for each in entries if each.action == "run.launched"] == ["mary", "john"]
    launched, promoted, deleted = (
        next(each for each in entries if each.action == action)
        for action in ("run.launched", "alias.promote", "run.deleted")
    )
    assert "train.jsonl" in str(launched.data["job"])
    assert (promoted.subject, promoted.data["reason"]) == ("demo@production", "the first")
    assert deleted.data["base_model"] == "tiny"


def test_a_launch_has_its_data_and_prices_and_a_settled_run_its_cost(priced: Priced) -> None:
    run = launch(priced("50")).wait()
    entries = {entry.action: entry for entry in Ledger(home()).audit_log()}
    approval = entries["run.launched"].data["approval"]
    assert isinstance(approval, dict)
    content = (run.folder / "train.jsonl").read_bytes()
    assert hashlib.sha256(content).hexdigest() in str(approval["files"])
    assert "1000" in json.dumps(approval["estimate"])
    assert entries["run.settled"].data["outcome"]


def test_the_hash_is_that_of_the_json_without_it(log: list[str]) -> None:
    """As anyone can compute it who has an export, without this package."""
    assert log
    entries = Ledger(home()).audit_log()
    previous = BEGINNING
    for entry in entries:
        content = {
            "number": entry.number,
            "time": entry.time,
            "who": entry.who,
            "action": entry.action,
            "subject": entry.subject,
            "data": entry.data,
            "previous": previous,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(text.encode()).hexdigest()
        assert previous == entry.sha256


def test_launches_at_once_make_one_chain(make_job: MakeJob, store: str) -> None:
    assert store
    jobs = [make_job({"steps": number}) for number in range(1, 6)]
    forks = [Fork(lambda job=job: launch(job).id) for job in jobs]
    runs = {fork.result() for fork in forks}
    log = check_chain(Ledger(home()).audit_log(), "the ledger")
    assert [entry.number for entry in log] == [*range(1, len(log) + 1)]
    assert runs == {entry.subject for entry in log}


def exported() -> bytes:
    """Return the export of a log of four entries."""
    entries: list[AuditEntry] = []
    for number, action in enumerate(("run.launched", "run.running", "run.failed", "run.deleted")):
        previous = entries[-1].sha256 if entries else BEGINNING
        data: dict[str, JsonValue] = {"job": "ä: 1", "usd": 0.1 + number, "model": None}
        entry = AuditEntry(number + 1, 1.5e9 + number, "mary", action, "r1", data, previous)
        entries.append(entry.hashed())
    return "".join(export_lines(entries)).encode()


def _check(content: bytes) -> None:
    check_chain(read_export(content, "audit.jsonl"), "audit.jsonl")


def test_an_export_is_checked_and_shown(log: list[str], unitune: Command, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    written = unitune("runs", "audit", "--output", str(file))
    newest = [*read_export(file.read_bytes(), str(file))][-1].sha256
    assert written.code == 0
    assert f"{file}: {len(log)} entries" in written.out
    assert newest in written.out
    assert file.read_text() == unitune("runs", "audit", "--json").out
    checked = unitune("runs", "audit", "--verify", str(file))
    assert checked.code == 0, checked.err
    assert "all unchanged and in the ledger" in checked.out
    shown = unitune("runs", "audit").out
    assert all(action in shown for action in log)
    assert (
        unitune("runs", "audit", "--since", "2999-01-01").out.strip() == "The audit log is empty."
    )
    assert unitune("runs", "audit", "--verify", str(file), "--json").code == 2


@given(st.data())
def test_any_changed_byte_of_an_export_is_found(data: st.DataObject) -> None:
    content = exported()
    _check(content)
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    with pytest.raises((Mismatch, DataError)):
        _check(content[:place] + bytes([byte]) + content[place + 1 :])


@given(st.data())
def test_an_export_that_is_cut_off_anywhere_is_found(data: st.DataObject) -> None:
    content = exported()
    with pytest.raises((Mismatch, DataError)):
        _check(content[: data.draw(st.integers(0, len(content) - 1))])


def test_lines_that_are_left_out_or_put_in_are_found() -> None:
    one, two, three, four, end = exported().splitlines(keepends=True)
    for wrong in ((one, two, four, end), (one, two, two, three, four, end), (one, three, two, end)):
        with pytest.raises(Mismatch):
            _check(b"".join(wrong))
    newer = (two, three, four, end.replace(b"4", b"3"))
    _check(b"".join(newer))  # as --since has it


def test_a_ledger_that_was_changed_is_found_by_an_older_export(
    log: list[str], unitune: Command, tmp_path: Path
) -> None:
    """Also where whoever changed it has computed all hashes anew."""
    file = tmp_path / "audit.jsonl"
    unitune("runs", "audit", "--output", str(file))
    change_ledger("update audit_log set who = 'nobody' where number = 3")
    broken = unitune("runs", "audit")
    assert (broken.code, broken.out) == (5, "")
    assert "entry 3 was changed" in broken.err
    change_ledger("delete from audit_log where number = ?", len(log))
    change_ledger("update audit_log set who = 'mary' where number = 3")
    assert unitune("runs", "audit").code == 0  # the chain itself holds: it only ends earlier
    gone = unitune("runs", "audit", "--verify", str(file))
    assert (gone.code, f"entry {len(log)} (run.deleted) is missing" in gone.err) == (5, True)


def test_a_run_that_is_not_written_down_is_not_in_the_log(make_job: MakeJob) -> None:
    """One transaction: an error in it leaves neither."""
    run = launch(make_job({})).wait()
    before = Ledger(home()).audit_log()
    with pytest.raises(DuplicateRunError):
        launch(make_job({}))
    assert before == Ledger(home()).audit_log()
    assert run.id == find_run().id


def test_a_day_that_is_not_a_date_is_refused_with_an_example(unitune: Command) -> None:
    refused = unitune("runs", "audit", "--since", "yesterday")
    assert refused.code == 2
    assert "'yesterday' is not a day such as 2026-11-01" in " ".join(refused.err.split())
    assert "Value error" not in refused.err


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_an_export_is_not_written_over_a_folder(unitune: Command, folder: str) -> None:
    refused = unitune("runs", "audit", "--output", folder)
    assert (refused.code, "Is a directory" in refused.err) == (2, True)
