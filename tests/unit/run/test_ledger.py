from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from support.records import a_deployment, a_record

from unitune.backends.protocol import Event, State, Upload
from unitune.errors import DuplicateRunError, LockTimeout
from unitune.ledger import Ledger, Standing
from unitune.models import TunedModel


@pytest.fixture
def ledger(tmp_path: Path, store: str) -> Ledger:
    del store
    return Ledger(tmp_path / ".unitune")


def test_a_record_comes_back_as_it_was_written(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    model = TunedModel(backend="fake", name="x", base="tiny")
    written = ledger.write(replace(record, state=State.SUCCEEDED, model=model, job_id="j"))
    assert written == ledger.record(record.id)
    assert (2, State.SUCCEEDED, model) == (written.version, written.state, written.model)


def test_standings_are_what_the_records_say_in_their_order(ledger: Ledger) -> None:
    assert ledger.standings() == []
    for fingerprint in ("f" * 64, "0" * 64):
        ledger.add(a_record(fingerprint))
    ledger.write(replace(ledger.records()[0], state=State.RUNNING, job_id="j"))
    expected = [Standing(one.id, one.backend, one.job_id, one.state) for one in ledger.records()]
    assert [(one.job_id, one.state) for one in expected] == [
        ("j", State.RUNNING),
        (None, State.PLANNED),
    ]
    assert expected == ledger.standings()


def test_of_two_that_read_the_same_record_only_one_can_write(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    ledger.write(replace(record, state=State.CANCELLED))
    with pytest.raises(LockTimeout, match=record.id):
        ledger.write(replace(record, state=State.UPLOADING), [Event("k", "message", 0.0)])
    assert State.CANCELLED is ledger.record(record.id).state
    assert ledger.events(record.id, 1) == []


def test_the_same_event_is_recorded_once_in_each_attempt(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    one, two = Event("one", "step", 1.0, {"loss": 0.5}), Event("two", "step", 2.0)
    record = ledger.write(record, [one, one])
    record = ledger.write(record, [one, two])
    ledger.write(replace(record, attempt=2), [one])
    assert [seen.event for seen in ledger.events(record.id, 1)] == [one, two]
    assert [seen.event for seen in ledger.events(record.id, 2)] == [one]


def test_events_after_a_place_are_those_not_seen(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    ledger.write(record, [Event(key, "step", 0.0) for key in "abc"])
    first, *others = ledger.events(record.id, 1)
    assert others == ledger.events(record.id, 1, after=first.id)


def test_only_a_change_of_place_leaves_a_transition(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    record = ledger.write(replace(record, state=State.RUNNING, raw="busy"))
    record = ledger.write(replace(record, cursor="7"))
    ledger.write(replace(record, raw="busier"))
    places = [(seen.state, seen.raw) for seen in ledger.transitions(record.id)]
    assert places == [(State.PLANNED, ""), (State.RUNNING, "busy"), (State.RUNNING, "busier")]


@pytest.mark.parametrize("state", list(State))
def test_every_run_but_a_failed_or_cancelled_one_is_a_twin(ledger: Ledger, state: State) -> None:
    first = a_record()
    ledger.add(first)
    ledger.write(replace(first, state=state))
    if state in (State.FAILED, State.CANCELLED):
        ledger.add(a_record())
    else:
        with pytest.raises(DuplicateRunError, match=first.id) as refusal:
            ledger.add(a_record())
        assert first.id == refusal.value.run_id
    ledger.add(a_record(), again=True)


def test_an_upload_is_replaced_by_a_later_one_of_its_name(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    assert ledger.uploads(record.id) == {}
    ledger.add_upload(record, "train.jsonl", Upload("old", "0"))
    newer = Upload("new", "1")
    ledger.add_upload(record, "train.jsonl", newer)
    assert ledger.uploads(record.id) == {"train.jsonl": newer}


def test_runs_are_found_by_what_they_handed_over(ledger: Ledger) -> None:
    one, two, other = (a_record(str(number) * 64) for number in range(3))
    for record, ref in ((one, "same"), (two, "same"), (other, "different")):
        ledger.add(record)
        ledger.add_upload(record, "train.jsonl", Upload(ref, "0"))
    assert sorted([one.id, two.id]) == ledger.runs_with_upload("same")
    assert ledger.runs_with_upload("other") == []


def test_a_key_that_is_too_long_for_its_column_is_still_another_one(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    ends = [Event("k" * 300 + end, "message", 0.0) for end in "ab"]
    record = ledger.write(record, ends)
    ledger.write(record, ends)
    keys = [seen.event.key for seen in ledger.events(record.id, 1)]
    assert (2, {200}) == (len(set(keys)), {len(key) for key in keys})
    assert len(keys) == 2


def test_a_deleted_run_leaves_its_deployment_and_nothing_else(ledger: Ledger) -> None:
    record, other = a_record(), a_record("0" * 64)
    for each in (record, other):
        ledger.add(each)
        ledger.add_upload(each, "train.jsonl", Upload("ref", "0"))
    record = ledger.write(record, [Event("k", "message", 0.0)])
    ledger.add_deployment(a_deployment(run_id=record.id), lambda _: None)
    ledger.delete(record)
    assert [left.id for left in ledger.records()] == [other.id]
    assert (
        ledger.events(record.id, 1),
        ledger.transitions(record.id),
        ledger.uploads(record.id),
    ) == ([], [], {})
    assert [left.run_id for left in ledger.deployments()] == [None]


def test_a_run_that_has_changed_is_not_deleted(ledger: Ledger) -> None:
    record = a_record()
    ledger.add(record)
    ledger.write(replace(record, state=State.CANCELLED))
    with pytest.raises(LockTimeout, match=record.id):
        ledger.delete(record)
    assert State.CANCELLED is ledger.record(record.id).state


def test_of_two_that_read_the_same_deployment_only_one_can_write(ledger: Ledger) -> None:
    ledger.add(a_record())
    deployment = a_deployment(state="starting", usd_per_hour=Decimal("1.50"))
    ledger.add_deployment(deployment, lambda _: None)
    written = ledger.write_deployment(replace(deployment, state="ready"))
    with pytest.raises(LockTimeout, match=deployment.id):
        ledger.write_deployment(replace(deployment, state="gone"))
    assert written == ledger.deployment(deployment.id)


def test_an_upload_of_no_run_is_refused(ledger: Ledger) -> None:
    ledger.add(a_record())
    with pytest.raises(LockTimeout, match="taken run"):
        ledger.add_upload(a_record(), "train.jsonl", Upload("r", "0"))


def test_a_secret_that_a_vendor_repeats_is_not_written_down(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_API_KEY", "sk-REAL-SECRET")
    record = a_record()
    ledger.add(record)
    words = "the job failed, sent by Bearer sk-REAL-SECRET"
    said = Event("e1", "message", 1.0, {"text": words, "step": 1})
    written = ledger.write(replace(record, state=State.FAILED, error=words), [said])
    ledger.note(written, replace(said, key="e2"))
    clean = "the job failed, sent by Bearer ***"
    assert clean == written.error == ledger.record(record.id).error
    events = [seen.event.data for seen in ledger.events(record.id, record.attempt)]
    assert events == 2 * [{"text": clean, "step": 1}]
