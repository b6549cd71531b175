from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from unitune.backends import retry
from unitune.data.example import Message
from unitune.errors import BackendError, LockTimeout, Mismatch, Unreachable
from unitune.evaluate.documents.records import Record
from unitune.evaluate.inference.engine import (
    InferenceOptions,
    Question,
    ReplayedModel,
    collect_answers,
    request_hash,
)
from unitune.evaluate.inference.journal import (
    Journal,
    open_journal,
    open_response_cache,
    read_record,
)
from unitune.evaluate.inference.requests import LIMIT
from unitune.models import BatchedChatModel, Placed, Reply, Request


@dataclass
class Echo:
    """Repeats the question; fails where it is told to."""

    fingerprint: str = "echo-1"
    failing: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list[str])
    in_flight: int = 0
    most_in_flight: int = 0

    async def reply(self, request: Request) -> Reply:
        text = request.messages[-1].text
        self.asked.append(text)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if text in self.failing:
            return Reply(error="overloaded")
        return Reply(text=text, prompt_tokens=1, completion_tokens=1, seconds=0.5)

    async def aclose(self) -> None:
        pass


@dataclass
class BatchedEcho(Echo, BatchedChatModel):
    batch_size: int = 4
    batches: list[int] = field(default_factory=list[int])

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Placed]:
        self.batches.append(len(requests))
        yield [(place, await self.reply(request)) for place, request in enumerate(requests)]


@dataclass
class Slicing(Echo, BatchedChatModel):
    """Answers in whatever order, two at a time, and breaks where it is told to."""

    batch_size: int = 8
    breaks_after: int = 8

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Placed]:
        places = list(reversed(range(len(requests))))
        for some in (places[at : at + 2] for at in range(0, len(places), 2)):
            if len(self.asked) >= self.breaks_after:
                raise RuntimeError("killed")
            yield [(place, await self.reply(requests[place])) for place in some]


def questions(*texts: str) -> list[Question]:
    requests = [Request(messages=(Message(role="user", content=text),)) for text in texts]
    return [Question(*pair) for pair in zip(texts, requests, strict=True)]


def test_each_slice_of_a_batch_is_written_down_when_it_is_answered(path: Path) -> None:
    done = list[int]()
    asked = questions(*"abcdefgh")
    with open_journal(path) as journal, pytest.raises(RuntimeError, match="killed"):
        asyncio.run(collect_answers(Slicing(breaks_after=4), asked, journal, "c", done.append))
    assert done == [0, 2, 4]
    assert [read_record(line).case for line in path.read_text().splitlines()] == [
        "h",
        "g",
        "f",
        "e",
    ]
    again = Slicing()
    records = put(again, path, asked)
    assert list("abcdefgh") == [record.text for record in records]
    assert again.asked == ["d", "c", "b", "a"]


def put(model: Echo, path: Path, asked: Sequence[Question], contender: str = "c") -> list[Record]:
    with open_journal(path) as journal:
        return asyncio.run(collect_answers(model, asked, journal, contender, lambda _: None))


def lines(path: Path) -> list[Record]:
    return [read_record(line) for line in path.read_text().splitlines()]


LETTERS = [f"q{number}" for number in range(10)]
MANY = questions(*map(str, range(500)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize("model", [Echo(), BatchedEcho()])
def test_every_question_gets_its_own_answer_in_order(model: Echo, path: Path) -> None:
    records = put(model, path, questions(*LETTERS))
    assert [record.text for record in records] == LETTERS
    assert [record.case for record in records] == LETTERS
    assert Counter(records) == Counter(lines(path))


def test_a_batched_model_gets_batches_of_its_size(path: Path) -> None:
    model = BatchedEcho(batch_size=4)
    put(model, path, questions(*LETTERS))
    assert model.batches == [4, 4, 2]


def test_another_model_gets_many_requests_at_once_but_not_more_than_the_limit(
    path: Path,
) -> None:
    model = Echo()
    put(model, path, questions(*map(str, range(5 * LIMIT))))
    assert model.most_in_flight == LIMIT


def test_what_is_answered_is_not_asked_again(path: Path) -> None:
    first, again = Echo(), Echo()
    before = put(first, path, questions(*LETTERS[:6]))
    after = put(again, path, questions(*LETTERS))
    assert LETTERS[6:] == again.asked
    assert before == after[:6]
    assert len(LETTERS) == len(lines(path))


def test_an_error_is_a_row_and_is_asked_again(path: Path) -> None:
    failed = put(Echo(failing=frozenset({"q1"})), path, questions("q0", "q1"))
    assert [record.error for record in failed] == [None, "overloaded"]
    again = Echo()
    mended = put(again, path, questions("q0", "q1"))
    assert again.asked == ["q1"]
    assert [record.text for record in mended] == ["q0", "q1"]
    assert [record.error for record in lines(path)] == [None, "overloaded", None]


def test_a_backend_that_raises_leaves_error_rows(path: Path) -> None:
    class Down(Echo):
        async def reply(self, request: Request) -> Reply:
            raise BackendError(f"503 for {request.messages[-1].text}")

    records = put(Down(), path, questions("q0", "q1"))
    assert [record.error for record in records] == ["503 for q0", "503 for q1"]


def test_another_models_answers_are_never_taken(path: Path) -> None:
    put(Echo(fingerprint="base"), path, questions(*LETTERS))
    tuned = Echo(fingerprint="tuned")
    put(tuned, path, questions(*LETTERS))
    assert tuned.asked == LETTERS


def test_another_contenders_answers_are_its_own_rows(path: Path) -> None:
    put(Echo(), path, questions("q0"), "one")
    put(Echo(), path, questions("q0"), "two")
    assert [record.contender for record in lines(path)] == ["one", "two"]


PLAIN = Request(messages=(Message(role="user", content="q"),))


@pytest.mark.parametrize(
    "other",
    [
        PLAIN.model_copy(update={"messages": (Message(role="user", content="Q"),)}),
        PLAIN.model_copy(update={"messages": (Message(role="system", content="q"),)}),
        PLAIN.model_copy(update={"tools": ({"type": "function"},)}),
        PLAIN.model_copy(update={"max_tokens": 255}),
        PLAIN.model_copy(update={"temperature": 0.5}),
        PLAIN.model_copy(update={"seed": 1}),
        PLAIN.model_copy(update={"stop": ("\n",)}),
        PLAIN.model_copy(update={"fixed": ("temperature",)}),
        PLAIN.model_copy(update={"response_schema": {"type": "object"}}),
        PLAIN.model_copy(update={"chat_template": "{{ messages }}"}),
        PLAIN.model_copy(update={"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_everything_that_determines_an_answer_is_in_its_hash(other: Request) -> None:
    assert request_hash("m", Question("c", PLAIN)) != request_hash("m", Question("c", other))


def test_every_field_of_a_request_is_covered_by_that_rule() -> None:
    covered = "messages tools max_tokens temperature seed stop fixed response_schema"
    covered += " chat_template chat_template_kwargs"
    assert set(covered.split()) == set(Request.model_fields)


def test_the_model_comes_first_in_the_hash() -> None:
    question, same = Question("c", PLAIN), Question("another", PLAIN)
    assert request_hash("base", question) != request_hash("tuned", question)
    assert request_hash("base", question) == request_hash("base", same)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_is_healed_and_only_it_is_asked_again(cut: int, path: Path) -> None:
    put(BatchedEcho(), path, questions(*LETTERS))
    path.write_bytes(path.read_bytes()[:-cut])
    again = BatchedEcho()
    records = put(again, path, questions(*LETTERS))
    assert LETTERS[-1:] == again.asked
    assert [record.text for record in records] == LETTERS
    assert [record.case for record in lines(path)] == LETTERS


def test_a_foreign_line_inside_the_file_is_refused(path: Path) -> None:
    put(Echo(), path, questions("q0"))
    path.write_text('{"case": 1}\n' + path.read_text())
    with pytest.raises(Mismatch, match="did not write here for you"):
        put(Echo(), path, questions("q0"))


def test_two_comparisons_never_write_to_one_file(path: Path) -> None:
    with open_journal(path), pytest.raises(LockTimeout), open_journal(path):
        pass


def test_progress_starts_with_what_was_found_and_ends_with_all(path: Path) -> None:
    put(Echo(), path, questions(*LETTERS[:3]))
    told: list[int] = []
    with open_journal(path) as journal:
        asyncio.run(collect_answers(BatchedEcho(), questions(*LETTERS), journal, "c", told.append))
    assert told == [3, 7, 10]


SLOW = """
import asyncio, sys
from pathlib import Path
from unitune.data.example import Message
from unitune.evaluate.inference.engine import Question, collect_answers
from unitune.evaluate.inference.journal import open_journal
from unitune.models import BatchedChatModel, ChatModel, Reply, Request

class Slow(ChatModel):
    fingerprint = "slow"
    batch_size = {batch}

    async def reply(self, request):
        with open({asked!r}, "a") as file:
            file.write(request.messages[-1].text + "\\n")
        await asyncio.sleep(0.02)
        return Reply(text=request.messages[-1].text.upper())

class SlowBatched(Slow, BatchedChatModel):
    async def stream(self, requests):
        yield [(at, await self.reply(request)) for at, request in enumerate(requests)]

questions = [
    Question(f"c{{i}}", Request(messages=(Message(role="user", content=f"c{{i}}"),)))
    for i in range({cases})
]
model = SlowBatched() if {batched} else Slow()
with open_journal(Path({rows!r})) as journal:
    records = asyncio.run(collect_answers(model, questions, journal, "c", lambda _: None))
print(sum(record.text == record.case.upper() for record in records))
"""


@pytest.mark.parametrize(("batched", "in_flight"), [(True, 8), (False, LIMIT)])
def test_killed_in_the_middle_it_loses_no_row_and_repeats_at_most_what_was_in_flight(
    batched: bool,  # noqa: FBT001 - parametrised
    in_flight: int,
    tmp_path: Path,
) -> None:
    cases, rows, asked = 120, tmp_path / "rows.jsonl", tmp_path / "asked"
    script = tmp_path / "slow.py"
    script.write_text(
        SLOW.format(batch=in_flight, batched=batched, cases=cases, rows=str(rows), asked=str(asked))
    )
    process = subprocess.Popen([sys.executable, script])
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.read_bytes().count(b"\n") >= 30):
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = lines_of(rows)
    assert 30 <= len(kept) < cases

    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    assert done.stdout == f"{cases}\n"
    assert kept == lines_of(rows)[: len(kept)]
    assert cases == len(lines_of(rows))
    repeats = len(asked.read_text().split()) - cases
    assert 0 <= repeats <= in_flight


def lines_of(path: Path) -> list[str]:
    """The whole lines of the file."""
    return [line for line in path.read_text().splitlines(keepends=True) if _is_record(line)]


def _is_record(line: str) -> bool:
    try:
        return line.endswith("\n") and "case" in json.loads(line)
    except ValueError:
        return False


@pytest.mark.parametrize("content", ['{"messages": []}', "notes", '{"messages": []}\n'])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(
    content: str, tmp_path: Path
) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(content)
    with pytest.raises(Mismatch, match=r"dev\.jsonl has content that unitune did not write"):
        put(Echo(), path, questions("q0"))
    assert content == path.read_text()


@dataclass
class Troubled(Echo):
    """Gives prepared replies first, by the text of the question or for any."""

    troubles: list[Reply] = field(default_factory=list[Reply])

    async def reply(self, request: Request) -> Reply:
        answered = await super().reply(request)
        return self.troubles.pop(0) if self.troubles else answered


BUSY = Reply.failed(BackendError("too many", status=429, retry_after=0.2))
BROKEN = Reply.failed(BackendError("internal", status=500))
SILENT = Reply.failed(Unreachable("no answer"))
WRONG = Reply.failed(BackendError("too long", status=400))
TOMORROW = Reply.failed(BackendError("quota", status=429, retry_after=86_400))
KEYLESS = Reply.failed(BackendError("wrong key", status=401))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("trouble", [BUSY, BROKEN, SILENT])
def test_a_failure_that_passes_is_met_by_another_attempt(trouble: Reply, path: Path) -> None:
    model = Troubled(troubles=[trouble, trouble])
    (record,) = put(model, path, questions("q0"))
    assert (record.text, record.error) == ("q0", None)
    assert len(model.asked) == 3


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("trouble", "attempts"), [(BROKEN, retry.ATTEMPTS), (WRONG, 1), (TOMORROW, 1)]
)
def test_there_are_so_many_attempts_and_then_a_row_says_why(
    trouble: Reply, attempts: int, path: Path
) -> None:
    model = Troubled(troubles=[trouble] * attempts)
    (record,) = put(model, path, questions("q0"))
    assert record.error == trouble.error
    assert len(model.asked) == attempts


def test_a_pause_that_a_vendor_asks_for_is_kept_by_all(path: Path) -> None:
    begun = time.monotonic()
    model = Troubled(troubles=[BUSY])
    put(model, path, questions("q0"))
    assert time.monotonic() - begun >= 0.2


@pytest.mark.usefixtures("quick")
def test_a_vendor_that_is_down_ends_the_asking_and_answers_are_kept(path: Path) -> None:
    put(Echo(), path, questions(*LETTERS[:3]))
    down = Troubled(troubles=[SILENT] * 10_000)
    with pytest.raises(BackendError, match=r"10 requests in a row failed.*no answer"):
        put(down, path, MANY)
    assert len(down.asked) < 500
    assert LETTERS[:3] == [record.text for record in lines(path) if record.error is None]


def test_a_key_that_is_refused_ends_the_asking_at_once(path: Path) -> None:
    model = Troubled(troubles=[KEYLESS] * 1000)
    with pytest.raises(BackendError, match="wrong key"):
        put(model, path, MANY)
    assert len(model.asked) <= LIMIT


@pytest.mark.parametrize(
    ("status", "answered"),
    [(402, False), (402, True), (400, False)],
    ids=["no credits", "credits used up", "budget"],
)
def test_a_refusal_in_the_same_words_for_every_question_ends_the_requests(
    status: int, *, answered: bool, path: Path
) -> None:
    refused = Reply.failed(BackendError("Insufficient credits", status=status))
    troubles = [*([Reply(text="yes")] if answered else []), *([refused] * 1000)]
    model = Troubled(troubles=troubles)
    with pytest.raises(BackendError, match="Insufficient credits"):
        put(model, path, MANY)
    assert len(model.asked) <= 1 + LIMIT


def test_refusals_in_words_of_their_own_are_rows(path: Path) -> None:
    refused = [Reply.failed(BackendError(f"{n} tokens", status=400)) for n in range(50)]
    records = put(Troubled(troubles=refused), path, questions(*map(str, range(50))))
    assert all(record.error for record in records)


def test_what_another_comparison_has_asked_is_a_row_here_too(tmp_path: Path) -> None:
    first, again, other = Echo(), Echo(), Echo(fingerprint="another")

    def compared(model: Echo, name: str) -> list[Record]:
        with (
            open_journal(tmp_path / name / "rows.jsonl") as journal,
            open_response_cache(tmp_path, use_cache=True) as remembered,
        ):
            asking = collect_answers(
                model,
                questions(*LETTERS),
                journal,
                "c",
                lambda _: None,
                options=InferenceOptions(cache=remembered),
            )
            return asyncio.run(asking)

    asked, cached = compared(first, "one"), compared(again, "two")
    assert again.asked == []
    assert {record.cached for record in cached} == {True}
    assert asked == [replace(record, cached=None) for record in cached]
    assert len(lines(tmp_path / "two" / "rows.jsonl")) == 10
    compared(other, "three")
    assert other.asked == LETTERS


def replayed(asked: list[Question], journal: Journal, fingerprint: str) -> list[Record]:
    model, options = ReplayedModel(fingerprint), InferenceOptions(replay=True)
    return asyncio.run(collect_answers(model, asked, journal, "c", lambda _: None, options=options))


def test_a_replay_gives_the_rows_though_the_model_is_gone(path: Path) -> None:
    recorded = put(Echo(fingerprint="gone", failing=frozenset({"q3"})), path, questions(*LETTERS))
    with open_journal(path) as journal:
        assert recorded == replayed(questions(*LETTERS), journal, "gone")


def test_a_replay_of_other_questions_is_refused(path: Path) -> None:
    put(Echo(), path, questions("q0"))
    with open_journal(path) as journal, pytest.raises(Mismatch, match="2 of 3 questions"):
        replayed(questions("q0", "q1", "q2"), journal, "echo-1")


def test_repeats_are_asked_and_written_one_by_one(path: Path) -> None:
    model = Echo()
    request = PLAIN.model_copy(update={"temperature": 1.0})
    asked = [Question("c1", request.model_copy(update={"seed": at}), at) for at in range(3)]
    records = put(model, path, asked)
    assert [(one.case, one.repeat) for one in records] == [("c1", 0), ("c1", 1), ("c1", 2)]
    assert len(model.asked) == 3
    assert records == put(Echo(), path, asked)
