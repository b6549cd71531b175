"""Test cases answered in batches: each batch paid for once, each answer in the same rows."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.own_rows import write_own
from support.told import PROMPTED

from unitune.backends import exactly_once, registry, retry
from unitune.backends.capabilities import BatchStatus
from unitune.errors import (
    BackendError,
    Interrupted,
    Mismatch,
    MissingExtra,
    Unreachable,
    Unsupported,
    UserError,
)
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.records import Record
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference import batch_runner
from unitune.evaluate.inference.batches import Batch, Change, open_batches
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.evaluate.inference.journal import line_of, read_record
from unitune.job.job import Job
from unitune.models import Request, TunedModel
from unitune.run.run import launch
from unitune.testing import FakeBackend, fake_vendor
from unitune.workspace.home import home

THREE = {"contenders": ["zero-shot", "instructed", "tuned"], "instructions": "TOLD"}
SETTLE_SECONDS = 120.0
TOO_OFTEN = BackendError("too often.", status=429, retry_after=7)


@dataclass
class Clock:
    """A clock that goes on only where somebody sleeps."""

    now: float = 1_800_000_000.0
    slept: list[float] = field(default_factory=list[float])
    asleep: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        self.asleep()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (retry, batch_runner, exactly_once, fake_vendor):
        monkeypatch.setattr(module, "time", made)
    return made


@dataclass
class Vendor:
    """The fake's folder, and the calls that came to it.

    Args:
        folder: The vendor's.
        calls: Verbs in order.
        spoilt: What comes of the next calls of a verb instead of an answer.
    """

    folder: Path
    calls: list[str] = field(default_factory=list[str])
    spoilt: dict[str, list[Exception]] = field(default_factory=dict[str, list[Exception]])

    def plays(self, **script: Any) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "batches.json").write_text(json.dumps(script))

    def answers(self, **answers: Any) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "untuned.json").write_text(json.dumps(answers))

    @property
    def batches(self) -> list[Path]:
        return sorted(self.folder.glob("batches/*/batch.json"))

    @property
    def sizes(self) -> list[int]:
        return sorted(json.loads(file.read_text())["size"] for file in self.batches)

    def asked(self, verb: str) -> int:
        return self.calls.count(verb)


VERBS = ("submit_batch", "find_batch", "poll_batch", "fetch_batch", "cancel_batch", "chat")


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    made = Vendor(tmp_path / "vendor")

    def watched(verb: str) -> Callable[..., object]:
        act = getattr(FakeBackend, verb)

        def call(self: FakeBackend, *arguments: object) -> object:
            made.calls.append(verb)
            if errors := made.spoilt.get(verb):
                raise errors.pop(0)
            return act(self, *arguments)

        return call

    for verb in VERBS:
        monkeypatch.setattr(FakeBackend, verb, watched(verb))
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def two(make_job: Any) -> Job:
    return make_job(PROMPTED)


@pytest.fixture
def three(make_job: Any) -> Job:
    """Three contenders; the tuned one knows all test answers but the first ten."""
    job = make_job(THREE)
    script = {"steps": 2, "tuned": {"replies": {f"test {at}": "yes" for at in range(10, 60)}}}
    job = job.model_copy(update={"options": {"fake": script}})
    launch(job).wait(0)
    return job


def rows(out: Path) -> list[Record]:
    lines = (out / "rows.jsonl").read_text().splitlines()
    return [read_record(line) for line in lines]


def bare(found: Comparison) -> dict[str, object]:
    """What a comparison says, but for when it was made and when its answers were."""
    return found.model_dump(exclude={"created", "id", "notes"})


def lines(out: Path) -> list[Batch | Change]:
    with open_batches(out / "batches.jsonl"):
        pass  # it can be read
    found = [json.loads(line) for line in (out / "batches.jsonl").read_text().splitlines()]
    return [(Batch if "cases" in line else Change).model_validate(line) for line in found]


def same_both_ways(job: Job, out: Path) -> Comparison:
    """Compare with batches, and one by one in another folder."""
    one_by_one = compare(job, out=out.with_name("single"))
    batched = compare(job, out=out, batch=True)
    assert bare(one_by_one) == bare(batched)
    assert set(rows(out.with_name("single"))) == set(rows(out))
    return batched


def decide(error: BaseException, batch_id: str = "") -> Path:
    """Write the line that an error proposes to the file that it names."""
    line, _, file = str(error).partition("echo '")[2].partition("' >> ")
    with Path(file).open("a") as growing:
        growing.write(line.replace("ITS_ID", batch_id) + "\n")
    return Path(file)


def ends(out: Path) -> list[str]:
    return [line.end for line in lines(out) if line.end is not None]


def test_a_judge_is_asked_in_a_batch_of_its_own(make_job: Any, vendor: Vendor, out: Path) -> None:
    judge = {"type": "judge", "backend": "fake", "model": "judge", "compare": "better"}
    same_both_ways(make_job(PROMPTED | {"scorers": ["exact", judge]}), out)
    assert vendor.sizes == [60, 60, 100]  # 20 pairs are asked twice before


def test_batched_answers_are_those_of_asking_one_by_one(
    three: Job, vendor: Vendor, out: Path
) -> None:
    batched = same_both_ways(three, out)
    assert vendor.asked("submit_batch") == 3, "none where they are asked one by one"
    assert vendor.sizes == [60, 60, 60]
    assert {"better", 50} == {batched.verdict, batched.gained}


def test_changed_questions_are_in_the_batch_of_their_contender(
    make_job: Any, vendor: Vendor, out: Path
) -> None:
    batched = same_both_ways(make_job({**PROMPTED, "robustness": ["case", "whitespace"]}), out)
    assert [each.name for each in batched.measured] == ["stable_case", "stable_whitespace"]
    assert vendor.sizes == [180, 180]


def test_all_batches_are_handed_in_before_any_is_waited_for(
    three: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    """So three contenders cost one wait: eight polls each, at pauses that grow to a minute."""
    vendor.plays(polls=8)
    started = clock.now
    compare(three, out=out, batch=True)
    assert [call for call in vendor.calls if call != "chat"][:3] == ["submit_batch"] * 3
    assert vendor.asked("poll_batch") == 3 * 9
    assert pytest.approx(clock.now - started) == 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60


def test_dev_is_asked_one_by_one(make_job: Any, vendor: Vendor, out: Path) -> None:
    job = make_job({"contenders": ["zero-shot", {"type": "few-shot", "role": "candidate"}]})
    compare(job, out=out, batch=True)
    assert vendor.sizes == [60, 60]
    assert len((out / "dev.jsonl").read_text().splitlines()) == 6 * 20


def test_recorded_contenders_answer_as_ever(
    make_job: Any, vendor: Vendor, out: Path, tmp_path: Path
) -> None:
    lines = [json.dumps({"case": f"c{at}", "answer": "yes"}) for at in range(60)]
    (tmp_path / "old.jsonl").write_text("\n".join(lines))
    recorded = {"type": "recorded", "answers": "old.jsonl"}
    job = make_job({"contenders": [recorded, {"type": "zero-shot", "role": "candidate"}]})
    cases = [
        {"id": f"c{at}", "messages": [{"role": "user", "content": f"q{at}"}], "expected": "yes"}
        for at in range(60)
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, cases)))
    found = compare(job, out=out, batch=True)
    assert vendor.sizes == [60]
    assert {one.name: one.score for one in found.contenders} == {"recorded": 1.0, "zero-shot": 0.0}


def test_what_is_answered_is_in_no_batch_and_the_other_way_round(
    two: Job, vendor: Vendor, out: Path
) -> None:
    compare(two, out=out)
    first = rows(out)
    compare(two, out=out, batch=True)
    assert vendor.batches == []
    kept = first[:50]
    write_own(out / "rows.jsonl", "".join(f"{line_of(row)}\n" for row in kept))
    compare(two, out=out, batch=True)
    assert sum(vendor.sizes) == 120 - 50
    compare(two, out=out)
    assert len(rows(out)) == 120


def test_requests_that_failed_or_were_not_reached_are_rows_and_alone_in_the_next_batch(
    two: Job, vendor: Vendor, out: Path
) -> None:
    vendor.answers(errors={"test 3": "content filter", "test 4": "too long"})
    vendor.plays(missing=["test 5"])
    found = compare(two, out=out, batch=True)
    assert [contender.errors for contender in found.contenders] == [3, 3]
    wrong = {row.error for row in rows(out) if row.error}
    told = "the batch ended without an answer to this request"
    assert wrong == {"content filter", "too long", told}
    vendor.plays()
    found = compare(two, out=out, batch=True)
    assert [contender.errors for contender in found.contenders] == [2, 2]
    assert vendor.sizes == [3, 3, 60, 60]


@pytest.mark.usefixtures("vendor")
def test_request_ids_are_the_key_and_a_number_and_keys_fit_every_vendor(
    two: Job, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}
    original = FakeBackend.submit_batch

    def watched(
        self: FakeBackend, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        seen[key] = list(requests)
        return original(self, key, model, requests)

    monkeypatch.setattr(FakeBackend, "submit_batch", watched)
    compare(two, out=out, batch=True)
    assert len(seen) == 2
    for key, requests in seen.items():
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert len(key) <= 26
        assert [f"{key}-{at}" for at in range(1, 61)] == requests


SILENCES = ["lose answer", "server error", "lose request"]


@pytest.mark.parametrize("silence", SILENCES)
@pytest.mark.parametrize("late_seconds", [0, 30, SETTLE_SECONDS])
def test_a_call_without_a_clear_answer_is_looked_for_and_makes_one_batch(
    silence: str, late_seconds: float, two: Job, vendor: Vendor, out: Path
) -> None:
    vendor.plays(submits=[silence], shown_after_seconds=late_seconds)
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60]
    lost = silence == "lose request"
    assert vendor.asked("submit_batch") == 2 + lost
    assert sum(isinstance(line, Batch) for line in lines(out)) == 2, "the same key again"
    assert ends(out) == ["collected"] * 2


@pytest.mark.parametrize("silence", [Unreachable("gone."), BackendError("down.", status=503)])
def test_it_is_looked_for_no_longer_than_the_settle_time(
    silence: BackendError, two: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    vendor.spoilt["submit_batch"] = [silence] * 2
    started = clock.now
    with pytest.raises(Unreachable, match=r"(gone|down)\. Nothing is lost: run the same command"):
        compare(two, out=out, batch=True)
    assert pytest.approx(clock.now - started) == 2 * SETTLE_SECONDS
    assert vendor.asked("submit_batch") == 2
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60]
    assert sum(isinstance(line, Batch) for line in lines(out)) == 2


def test_a_search_without_an_answer_is_no_search(two: Job, vendor: Vendor, out: Path) -> None:
    """The list fails all through the settle time: nobody knows, so nothing is sent again."""
    vendor.plays(submits=["lose answer"])
    vendor.spoilt["find_batch"] = [Unreachable("gone.")] * 100
    with pytest.raises(Unreachable, match="Nothing is lost"):
        compare(two, out=out, batch=True)
    assert vendor.asked("submit_batch") == 1
    vendor.spoilt.clear()
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60]


@pytest.mark.parametrize(
    "refusal",
    [
        BackendError("no such model.", status=400),
        BackendError("wrong key.", status=401),
        Unsupported("tools cannot be in a batch."),
    ],
)
def test_a_refusal_is_told_and_not_searched_for(
    refusal: Exception, two: Job, vendor: Vendor, out: Path
) -> None:
    vendor.spoilt["submit_batch"] = [refusal]
    with pytest.raises(type(refusal), match=str(refusal)):
        compare(two, out=out, batch=True)
    assert vendor.asked("find_batch") == 0
    assert ends(out) == ["refused"]
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60]


def test_asked_too_often_it_waits_as_the_vendor_wishes(
    two: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    vendor.spoilt |= {"submit_batch": [TOO_OFTEN], "poll_batch": [TOO_OFTEN]}
    started = clock.now
    compare(two, out=out, batch=True)
    assert pytest.approx(clock.now - started) == 14
    assert vendor.sizes == [60, 60]
    assert vendor.calls[: vendor.calls.index("fetch_batch")].count("find_batch") == 1


def test_several_batches_of_one_key_are_refused_until_the_user_says_which(
    two: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    """Both calls of the first contender have made a batch that no list showed in time."""
    vendor.plays(submits=["lose answer", "lose answer"], shown_after_seconds=1000)
    with pytest.raises(Unreachable):
        compare(two, out=out, batch=True)
    clock.now += 1000
    assert vendor.sizes == [60, 60]
    with pytest.raises(UserError, match="several batches at fake may have the key") as caught:
        compare(two, out=out, batch=True)
    ids = [str(file.parent) for file in vendor.batches]
    assert all(batch_id in str(caught.value) for batch_id in ids)
    assert decide(caught.value, ids[0]) == home() / "batch-decisions.jsonl"
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60, 60]


def test_a_batch_that_failed_is_told_and_made_anew_by_the_next_call(
    two: Job, vendor: Vendor, out: Path
) -> None:
    vendor.plays(fails="the enqueued token limit is reached")
    with pytest.raises(BackendError) as caught:
        compare(two, out=out, batch=True)
    assert "zero-shot at fake failed: the enqueued token limit is reached." in str(caught.value)
    assert "None of its 60 questions was answered" in str(caught.value)
    assert "without --batch, one by one" in str(caught.value)
    assert ends(out) == ["failed", "failed"]
    vendor.plays()
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60] * 4


def test_when_one_has_failed_the_others_go_on_and_are_collected_by_the_next_call(
    two: Job, vendor: Vendor, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor.plays(polls=3)
    original = FakeBackend.poll_batch
    unlucky: list[str] = []

    def first_fails(self: FakeBackend, batch_id: str) -> BatchStatus:
        unlucky.append(batch_id)
        if batch_id == unlucky[0]:
            return BatchStatus("failed", "failed", error="bad luck.")
        return original(self, batch_id)

    monkeypatch.setattr(FakeBackend, "poll_batch", first_fails)
    with pytest.raises(
        BackendError, match=r"bad luck\. None.*resumes and collects the other batches\."
    ):
        compare(two, out=out, batch=True)
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60] * 3


def test_polling_bears_a_vendor_that_is_away_for_hours(
    two: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    vendor.spoilt |= {"poll_batch": [Unreachable("gone.")] * 400}
    vendor.spoilt |= {"fetch_batch": [BackendError("down.", status=500)]}
    started = clock.now
    compare(two, out=out, batch=True)
    assert clock.now - started > 3 * 3600
    assert vendor.sizes == [60, 60]


def test_a_batch_that_is_gone_is_the_users_to_give_up(two: Job, vendor: Vendor, out: Path) -> None:
    """Another account would be told the same, so nothing is paid for again unasked."""
    vendor.spoilt["poll_batch"] = [BackendError("there is no such batch.", status=404)]
    with pytest.raises(BackendError, match="no longer exists") as caught:
        compare(two, out=out, batch=True)
    decide(caught.value)
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60, 60]


def test_progress_says_how_many_requests_are_done(two: Job, vendor: Vendor, out: Path) -> None:
    vendor.plays(polls=2)
    told: list[EvaluationProgress] = []
    compare(two, out=out, batch=True, progress=told.append)
    batched = [
        asked.done for asked in told if (asked.phase, asked.contender) == ("batch", "zero-shot")
    ]
    assert sorted(set(batched)) == [20, 40, 60]
    assert EvaluationProgress("zero-shot", "test", "the row's own messages", 60, 60) in told[-2:]
    assert {asked.total for asked in told} == {60}


def test_stopped_by_the_user_the_batches_go_on_and_are_collected_later(
    two: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    vendor.plays(polls=5)
    clock.asleep = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted, match="continue at their vendors; run the same command again"):
        compare(two, out=out, batch=True)
    clock.asleep = lambda: None
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60]
    assert len(rows(out)) == 120


def test_stopped_in_a_notebook_the_waiting_ends_within_a_breath(
    two: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    vendor.plays(polls=100)
    main = threading.main_thread().ident or 0

    def pressed() -> None:
        """Press Ctrl-C early in the pause of 16 seconds, which is the fifth."""
        if len(clock.slept) == 18:
            signal.pthread_kill(main, signal.SIGINT)
        if len(clock.slept) >= 18:
            time.sleep(0.1)

    clock.asleep = pressed

    async def cell() -> None:
        compare(two, out=out, batch=True)

    loop = asyncio.new_event_loop()
    with pytest.raises(Interrupted):
        loop.run_until_complete(cell())
    loop.close()
    assert 18 <= len(clock.slept) < 25


def test_a_batch_whose_prompt_has_changed_is_cancelled(
    two: Job, make_job: Any, vendor: Vendor, out: Path, clock: Clock
) -> None:
    """zero-shot's batch still has open questions and is collected; instructed's has none."""
    stopped(two, vendor, out, clock)
    changed = make_job(json.loads(json.dumps(PROMPTED).replace("TOLD", "TOLD differently")))
    compare(changed, out=out, batch=True)
    assert vendor.sizes == [60] * 3
    assert len(list(vendor.folder.glob("batches/*/cancelled"))) == 1
    assert ends(out) == ["unwanted", "collected", "collected"]


def test_a_batch_with_some_open_questions_is_collected_and_the_rest_handed_in(
    two: Job, make_job: Any, vendor: Vendor, out: Path, clock: Clock
) -> None:
    stopped(two, vendor, out, clock)
    more = make_job(PROMPTED, test=[(f"test {at}", "yes") for at in range(30, 70)])
    found = compare(more, out=out, batch=True)
    assert vendor.sizes == [10, 10, 60, 60]
    assert found.n == 40
    assert [contender.errors for contender in found.contenders] == [0, 0]


def test_an_unwanted_batch_without_an_id_is_not_looked_for(
    two: Job, make_job: Any, vendor: Vendor, out: Path
) -> None:
    """Where a vendor cannot tell whose a batch is, somebody else's would be cancelled."""
    vendor.plays(submits=["lose answer"], polls=5)
    vendor.spoilt["find_batch"] = [Unreachable("gone.")] * 100
    with pytest.raises(Unreachable):
        compare(two, out=out, batch=True)
    vendor.spoilt.clear()
    vendor.calls.clear()
    other = make_job(PROMPTED, test=[(f"other {at}", "yes") for at in range(50)])
    compare(other, out=out, batch=True)
    assert vendor.sizes == [50, 50, 60]
    assert "find_batch" not in vendor.calls[: vendor.calls.index("fetch_batch")]
    assert vendor.asked("cancel_batch") == 0


@pytest.fixture
def discreet(monkeypatch: pytest.MonkeyPatch, vendor: Vendor) -> None:
    """A vendor that shows all its batches, and does not tell whose they are."""

    def everything(_: FakeBackend, _key: str, _since: float) -> list[str]:
        return [str(file.parent) for file in vendor.batches]

    monkeypatch.setattr(FakeBackend, "find_batch", everything)


@pytest.mark.usefixtures("discreet")
def test_what_carries_no_key_is_no_double_and_is_not_cancelled(
    two: Job, vendor: Vendor, out: Path, tmp_path: Path
) -> None:
    compare(two, out=tmp_path / "others", batch=True)
    told: list[str] = []
    compare(two, out=out, batch=True, announce=told.append)
    assert vendor.sizes == [60] * 4
    assert vendor.asked("cancel_batch") == 0
    assert [line for line in told if "twice" in line] == []


@pytest.mark.usefixtures("discreet")
def test_the_batch_of_another_contender_is_never_adopted(
    two: Job, vendor: Vendor, out: Path
) -> None:
    vendor.plays(submits=["none", "lose request"])
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60]
    assert vendor.asked("submit_batch") == 3


@pytest.mark.usefixtures("discreet")
def test_the_batch_of_somebody_else_is_noticed_when_it_has_ended(
    two: Job, vendor: Vendor, out: Path, tmp_path: Path
) -> None:
    compare(two, out=tmp_path / "else", batch=True)
    (vendor.batches[0].parent / "batch.json").unlink()
    vendor.plays(submits=["none", "none", "lose request"])
    with pytest.raises(BackendError, match="holds the requests of another batch"):
        compare(two, out=out, batch=True)
    compare(two, out=out, batch=True)
    assert sum(row.error is not None for row in rows(out)) == 0
    assert len(vendor.batches) == 1 + 2


@pytest.mark.usefixtures("discreet")
def test_a_batch_that_was_listed_late_is_found_once_another_was_not_it(
    two: Job, vendor: Vendor, out: Path, tmp_path: Path
) -> None:
    """The vendor has ours, and shows only somebody else's until that one has ended."""
    compare(two, out=tmp_path / "else", batch=True)
    hidden = vendor.batches[0].parent / "batch.json"
    hidden.unlink()
    (foreign,) = vendor.batches
    vendor.plays(submits=["none", "none", "lose answer"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeBackend, "find_batch", lambda *_: [str(foreign.parent)])
        with pytest.raises(BackendError, match=f"batch {foreign.parent} at fake has ended, but"):
            compare(two, out=out, batch=True)
    handed_in = vendor.asked("submit_batch")
    compare(two, out=out, batch=True)
    assert handed_in == vendor.asked("submit_batch")
    assert len(vendor.batches) == 1 + 2
    assert sum(row.error is not None for row in rows(out)) == 0


def test_an_unwanted_batch_that_is_gone_is_forgotten(
    two: Job, make_job: Any, vendor: Vendor, out: Path, clock: Clock
) -> None:
    stopped(two, vendor, out, clock)
    vendor.spoilt["cancel_batch"] = [BackendError("there is no such batch.", status=404)] * 2
    compare(make_job(PROMPTED, test=[("other", "yes")]), out=out, batch=True)
    assert ends(out) == ["unwanted"] * 2 + ["collected"] * 2


def test_answers_that_came_one_by_one_meanwhile_are_kept_and_the_batch_is_cancelled(
    two: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    stopped(two, vendor, out, clock)
    first = compare(two, out=out)
    assert bare(first) == bare(compare(two, out=out, batch=True))
    assert ends(out) == ["unwanted", "unwanted"]
    assert len(rows(out)) == 120


def test_answers_that_came_meanwhile_are_not_written_again_when_the_batch_is_collected(
    two: Job, vendor: Vendor, out: Path, clock: Clock
) -> None:
    stopped(two, vendor, out, clock)
    compare(two, out=out)
    kept = rows(out)[:50]
    write_own(out / "rows.jsonl", "".join(f"{line_of(row)}\n" for row in kept))
    compare(two, out=out, batch=True)
    assert vendor.sizes == [60, 60]
    assert kept == rows(out)[:50]
    assert len(rows(out)) == 120


def stopped(job: Job, vendor: Vendor, out: Path, clock: Clock) -> None:
    """Hand batches in and stop waiting for them."""
    vendor.plays(polls=3)
    clock.asleep = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted):
        compare(job, out=out, batch=True)
    clock.asleep = lambda: None


@pytest.mark.usefixtures("vendor")
def test_batches_of_another_backend_are_left_alone(two: Job, out: Path) -> None:
    out.mkdir()
    other = Batch(
        key="b251125-other",
        backend="elsewhere",
        contender="zero-shot",
        fingerprint="f",
        announced=0.0,
        cases=("c",),
        hashes=("h",),
        batch_id="theirs",
    )
    write_own(out / "batches.jsonl", other.model_dump_json(exclude_none=True) + "\n")
    compare(two, out=out, batch=True)
    with open_batches(out / "batches.jsonl") as batches:
        assert batches.open("elsewhere") == [other]
        assert batches.open("fake") == []


@pytest.mark.usefixtures("vendor")
def test_a_backend_without_batches_is_refused_before_anything_is_asked(two: Job, out: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        compare(two.with_backend("local"), out=out, batch=True)
    assert "backend 'local' does not support batches" in str(caught.value)
    assert "Without --batch" in str(caught.value)
    assert not out.exists()


def test_the_refusal_names_the_backends_that_can(two: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    class Able(FakeBackend):
        pass

    backends = {"able": Able(), "fake": FakeBackend(), "local": object()}

    def backend(name: str) -> object:
        if name == "absent":
            raise MissingExtra("not here.")
        return backends[name]

    known = registry.offer
    offers = dict.fromkeys(("able", "absent"), known("fake"))
    monkeypatch.setattr(registry, "backend", backend)
    monkeypatch.setattr(registry, "offer", lambda name: offers.get(name) or known(name))
    monkeypatch.setattr(registry, "backend_names", lambda: ["able", "absent", "fake", "local"])
    with pytest.raises(Unsupported, match="installed backends that do: able"):
        compare(two.with_backend("local"), batch=True)


def test_a_deployment_is_not_paid_for_while_batches_last(two: Job, vendor: Vendor) -> None:
    with pytest.raises(UserError, match="--deploy and --batch cannot be combined"):
        compare(two, batch=True, deploy_seconds=3600)
    assert vendor.calls == []


@pytest.mark.parametrize(
    "content", ["notes", '{"key":"b1","end":"collected"}\n', '{"key":"b1","cases":["c"]}\n']
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(
    content: str, two: Job, vendor: Vendor, out: Path
) -> None:
    out.mkdir()
    (out / "batches.jsonl").write_text(content)
    with pytest.raises(Mismatch, match=r"batches\.jsonl has content that unitune did not write"):
        compare(two, out=out, batch=True)
    assert content == (out / "batches.jsonl").read_text()
    assert vendor.asked("submit_batch") == 0


@pytest.mark.heavy
@given(data=st.data())
def test_a_file_cut_anywhere_in_its_last_line_costs_no_second_batch(
    data: st.DataObject, make_job: Any, vendor: Vendor, out: Path, clock: Clock
) -> None:
    """Whatever line a crash has torn, what it told of is found out again."""
    shutil.rmtree(out, ignore_errors=True)
    before = len(vendor.batches)
    job = make_job(PROMPTED)
    stopped(job, vendor, out, clock)
    whole = (out / "batches.jsonl").read_bytes()
    last = len(whole) - whole[:-1].rindex(b"\n") - 1
    cut = data.draw(st.integers(1, last))
    (out / "batches.jsonl").write_bytes(whole[:-cut])
    compare(job, out=out, batch=True)
    assert len(vendor.batches) - before == 2
    assert len(rows(out)) == 120
