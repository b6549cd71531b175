"""`run.model` answers in a script, in a notebook and in any event loop."""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import json
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.served import wait_until

from unitune.backends import registry, retry
from unitune.data.example import Message
from unitune.errors import BackendError, UserError
from unitune.job.job import Data, Job
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.run.handle import Run
from unitune.run.run import launch

from .conftest import MakeJob


@dataclass
class Echo(ChatModel):
    """Answers with the messages that it was sent, and remembers in which loop that was."""

    name: str
    replies: list[Reply] = field(default_factory=list[Reply])
    requests: list[Request] = field(default_factory=list[Request])
    loops: set[int] = field(default_factory=set[int])
    closed: int = 0
    cancelled: bool = False
    fingerprint: str = "echo"

    async def reply(self, request: Request) -> Reply:
        self.requests.append(request)
        self.loops.add(id(asyncio.get_running_loop()))
        text = request.messages[-1].text
        try:
            await asyncio.sleep(60 if text == "wait" else 0)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self.replies.pop(0) if self.replies else Reply(text=f"{self.name}: {text}")

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class EchoBackend:
    opened: list[Echo] = field(default_factory=list[Echo])
    replies: list[Reply] = field(default_factory=list[Reply])

    def chat(self, model: str | TunedModel) -> ChatModel:
        name = model if isinstance(model, str) else "tuned"
        self.opened.append(Echo(name, self.replies))
        return self.opened[-1]


@pytest.fixture
def run(make_job: MakeJob) -> Run:
    return launch(make_job({})).wait()


@pytest.fixture
def backend(run: Run, monkeypatch: pytest.MonkeyPatch) -> EchoBackend:
    assert run.tuned_model is not None
    made = EchoBackend()
    monkeypatch.setattr(registry, "backend", lambda _: made)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    return made


def test_a_script_asks_the_tuned_model_and_its_base(run: Run, backend: EchoBackend) -> None:
    assert [run.model.ask("a"), run.model.ask("b")] == ["tuned: a", "tuned: b"]
    assert run.base.ask("a") == "tiny: a"
    assert len(backend.opened) == 2, "each is opened once"


def test_all_requests_are_sent_from_one_loop_whatever_loop_waits(
    run: Run, backend: EchoBackend
) -> None:
    async def cell() -> list[Reply]:
        assert run.model.ask("blocking") == "tuned: blocking"
        return await asyncio.gather(*(run.model.reply(str(n)) for n in range(20)))

    assert [f"tuned: {n}" for n in range(20)] == [reply.text for reply in asyncio.run(cell())]
    assert asyncio.run(cell())[0].text == "tuned: 0"
    (model,) = backend.opened
    assert len(model.loops) == 1


def test_who_stops_waiting_cancels_the_request(run: Run, backend: EchoBackend) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.2):
            await run.model.reply("wait")

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    run.model.ask("a")
    assert backend.opened[0].cancelled


def test_a_failure_that_passes_is_sent_again(run: Run, backend: EchoBackend) -> None:
    backend.replies += [Reply.failed(BackendError("busy", status=503))] * 2
    assert run.model.ask("a") == "tuned: a"
    assert len(backend.opened[0].requests) == 3


def test_no_answer_is_an_error_of_ask_and_stands_in_a_reply(run: Run, backend: EchoBackend) -> None:
    refused = Reply.failed(BackendError("too long", status=400))
    backend.replies += [refused, refused]
    with pytest.raises(BackendError, match="too long") as caught:
        run.model.ask("a")
    assert caught.value.status == 400
    assert refused == asyncio.run(run.model.reply("a"))


def test_closed_it_is_opened_again_by_the_next_request(run: Run, backend: EchoBackend) -> None:
    with run.model as model:
        model.ask("a")
    assert [opened.closed for opened in backend.opened] == [1]
    run.model.ask("a")
    assert [opened.closed for opened in backend.opened] == [1, 0]


def test_forgotten_it_is_closed(run: Run, backend: EchoBackend) -> None:
    client = type(run.model)(run._ledger, run.id, TunedModel(backend="fake", name="m", base="b"))
    client.ask("a")
    del client
    gc.collect()
    run.model.ask("a")  # in the same loop, after what is under way
    assert [opened.closed for opened in backend.opened] == [1, 0]


def test_forgotten_in_a_garbage_cycle_it_is_closed_before_its_connections_go(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector may finalize a connection before the client that would have closed it."""
    closed_when_deleted: list[int] = []

    class Connected(Echo):
        def __del__(self) -> None:
            closed_when_deleted.append(self.closed)

        async def aclose(self) -> None:
            await asyncio.sleep(0.01)
            await super().aclose()

    class Connects:
        def chat(self, _: object) -> ChatModel:
            return Connected("tuned")

    monkeypatch.setattr(registry, "backend", lambda _: Connects())
    model = TunedModel(backend="fake", name="m", base="b")
    client = type(run.model)(run._ledger, run.id, model)
    client.ask("a")
    cycle: list[Any] = [client]
    cycle.append(cycle)
    del client, cycle
    gc.collect()
    wait_until(lambda: bool(closed_when_deleted))
    assert closed_when_deleted == [1]


def test_many_threads_open_it_once(run: Run, backend: EchoBackend) -> None:
    threads = [threading.Thread(target=run.model.ask, args=("a",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(backend.opened) == 1


def test_a_run_without_a_model_says_how_to_wait_for_it(make_job: MakeJob) -> None:
    started = launch(make_job({}))
    with pytest.raises(UserError, match=r"has no model. Wait for it with `run.wait\(\)`"):
        _ = started.model
    assert started.wait().model.ask("anything") == "I do not know."


def texts(request: Request) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in request.messages]


def test_the_system_message_of_the_training_rows_is_sent_unless_told_otherwise(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": "answer"},
        ]
        for number in range(40)
    ]
    lines = (json.dumps({"messages": messages}) for messages in rows)
    (workplace / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = Data(train="train.jsonl", validation="validation.jsonl")
    job = Job(name="demo", model="tiny", backend="fake", data=data, folder=workplace)
    run, backend = launch(job).wait(), EchoBackend()
    assert run.model.system == "Be brief."
    monkeypatch.setattr(registry, "backend", lambda _: backend)

    user = Message(role="user", content="Hi")
    own = Message(role="system", content="Own.")
    run.model.ask("Hi")
    run.model.ask("Hi", system="Other.", max_tokens=7)
    run.model.ask("Hi", system="")
    run.model.ask([own, user])
    run.model.ask(Request(messages=(user,)))
    sent = backend.opened[0].requests
    assert [texts(request) for request in sent] == [
        [("system", "Be brief."), ("user", "Hi")],
        [("system", "Other."), ("user", "Hi")],
        [("user", "Hi")],
        [("system", "Own."), ("user", "Hi")],
        [("user", "Hi")],
    ]
    assert [request.max_tokens for request in sent] == [512, 7, 512, 512, 256]


NOTEBOOK = """
import json
from pathlib import Path

import unitune
from unitune import Data, Evaluate, Job, Tuned, ZeroShot

answers = {f"What is {n} plus {n}?": str(2 * n) for n in range(80)}
rows = [json.dumps({"prompt": q, "completion": a}) for q, a in answers.items()]
Path("train.jsonl").write_text("\\n".join(rows[:64]))
Path("test.jsonl").write_text("\\n".join(rows[64:]))
# %%
job = Job(
    name="demo",
    model="tiny",
    backend="fake",
    data=Data(train="train.jsonl", test="test.jsonl"),
    evaluate=Evaluate(contenders=(ZeroShot(), Tuned())),
    options={"fake": {"tuned": {"replies": answers}}},
)
shown = [unitune.check(job), unitune.plan(job)]
# %%
run = unitune.launch(job).wait()
# %%
reply = await run.model.reply("What is 3 plus 3?")
texts = reply.text, run.model.ask("What is 4 plus 4?")
# %%
comparison = unitune.compare(job, run)
shown.append(comparison)
page = unitune.write_report(comparison)
"""


def test_a_notebook_session_runs_in_its_own_loop(workplace: Path) -> None:
    """Cells are compiled and awaited as IPython does: in one loop that is running."""
    names: dict[str, Any] = {}

    async def session() -> None:
        for cell in NOTEBOOK.split("# %%"):
            code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)  # noqa: S307 - as a notebook does
            if inspect.isawaitable(result):
                await result

    asyncio.run(session())
    assert names["texts"] == ("6", "8")
    assert names["comparison"].verdict == "better"
    check, plan, comparison = (each._repr_html_() for each in names["shown"])
    assert "64 rows: 34 to train on" in check
    assert "34 to train on, 30 to choose prompts on, 16 to test on" in plan
    assert "BETTER  tuned 1.000 vs zero-shot 0.000: +100.0 points" in comparison
    assert (workplace / names["page"]).exists()


class Slow(Echo):
    """Says a word at a time, and waits before the last until it is let go on."""

    async def stream_reply(self, request: Request) -> AsyncGenerator[str | Reply]:
        self.requests.append(request)
        if self.replies:
            yield self.replies.pop(0)
            return
        try:
            for text in ("It ", "is ", "here"):
                await asyncio.sleep(60 if text == "here" and "wait" in str(request) else 0)
                yield text
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        yield Reply(text="It is here", completion_tokens=3)


@pytest.fixture
def slow(backend: EchoBackend, monkeypatch: pytest.MonkeyPatch) -> EchoBackend:
    def chat(model: str | TunedModel) -> ChatModel:
        backend.opened.append(Slow(str(model), backend.replies))
        return backend.opened[-1]

    monkeypatch.setattr(backend, "chat", chat)
    return backend


def test_an_answer_comes_as_it_is_made(run: Run, slow: EchoBackend) -> None:
    slow.replies.append(Reply(error="busy", retryable=True))
    stream = run.model.stream("Where is it?", max_tokens=9)
    assert list(stream) == ["It ", "is ", "here"]
    assert list(stream) == []
    assert (stream.text, stream.done) == ("It is here", True)
    assert stream.reply is not None
    assert stream.reply.completion_tokens == 3
    assert [request.max_tokens for request in slow.opened[0].requests] == [9, 9]


def test_a_stopped_answer_is_what_has_come_of_it(run: Run, slow: EchoBackend) -> None:
    stream = run.model.stream("wait")
    assert [next(stream), next(stream)] == ["It ", "is "]
    stream.stop()
    assert list(stream) == []
    assert (stream.text, stream.reply) == ("It is ", None)
    asyncio.run(asyncio.sleep(0.05))
    assert slow.opened[0].cancelled


@pytest.mark.usefixtures("backend")
def test_a_backend_that_cannot_stream_answers_at_once(run: Run) -> None:
    assert list(run.model.stream("Where?")) == ["tuned: Where?"]


def test_a_stream_without_an_answer_is_an_error(run: Run, slow: EchoBackend) -> None:
    slow.replies.append(Reply(error="no such model", status=404))
    with pytest.raises(BackendError, match="no such model"):
        list(run.model.stream("Where?"))
