"""`unitune serve` as the real `openai` client sees it."""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.providers import openai_spec

pytest.importorskip("openai", reason="needs the extra `dev`")

import aiohttp
import openai
from support.tiny_model import save_tiny_model, sliding_model, tiny_tokenizer, write_rows
from torch import Tensor
from unit.local.serving import NAME, Served, served, served_apart, wait_until

from unitune.backends import registry
from unitune.backends.capabilities import Serves
from unitune.data.example import Message
from unitune.evaluate.compare import compare
from unitune.job.job import Job
from unitune_local import machine
from unitune_local.data.rendering import render_prompt
from unitune_local.inference import decoding
from unitune_local.inference.answers import Answer, Ending, Sampling
from unitune_local.models.model import load_model
from unitune_local.serving import scheduler, server
from unitune_local.serving.scheduler import Scheduler

pytestmark = pytest.mark.anyio  # asynchronous tests
GREEDY = Sampling(max_tokens=6)
SYSTEM = "You sort letters to a bank, and answer with one of these words: card, loan, fee. "


def texts(count: int, seed: int = 0) -> list[str]:
    """Return questions of different length, most of which begin alike."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    return [
        (SYSTEM if at % 4 else "") + "".join(chance.choices("abc xyz", k=chance.randrange(1, 60)))
        for at in range(count)
    ]


@pytest.fixture
async def place(tiny_model: Path) -> AsyncIterator[Served]:
    async with served(tiny_model) as place:
        yield place


async def test_an_answer_is_that_of_the_engine_with_its_usage(place: Served) -> None:
    answer = await place.create("hello")
    alone = place.alone("hello", GREEDY)
    (choice,) = answer.choices
    assert (alone.text, alone.finish_reason) == (choice.message.content, choice.finish_reason)
    assert len(alone.ids) == answer.usage.completion_tokens
    prompt = render_prompt(place.engine.tokenizer, [Message(role="user", content="hello")])
    assert len(prompt) == answer.usage.prompt_tokens
    assert answer.model == NAME
    models = await place.client.models.list()
    assert [model.id for model in models.data] == [NAME]
    assert (await place.client.models.retrieve(NAME)).id == NAME


async def test_a_stream_adds_up_to_the_whole_answer(place: Served) -> None:
    whole = await place.create("hello", max_tokens=40)
    stream = await place.create(
        "hello", max_tokens=40, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *parts, last = chunks
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert whole.choices[0].message.content == text
    assert len(parts) > 10
    assert parts[0].choices[0].delta.role == "assistant"
    assert [reason for part in parts if (reason := part.choices[0].finish_reason)] == [
        whole.choices[0].finish_reason
    ]
    assert last.choices == []
    assert whole.usage.total_tokens == last.usage.total_tokens
    assert {part.usage for part in parts} == {None}
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_32_requests_at_once_are_answered_as_each_is_alone(
    place: Served, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    joined: list[int] = []
    join = decoding.PrefixCachedRows.join

    def counted(rows: decoding.PrefixCachedRows, others: Sequence[Any]) -> None:
        joined.append(len(rows._real))
        join(rows, others)

    monkeypatch.setattr(decoding.PrefixCachedRows, "join", counted)
    questions = texts(32)
    lengths = [3 + 5 * (at % 7) for at in range(32)]
    answers = await asyncio.gather(
        *(
            place.create(text, max_tokens=length, temperature=temperature, seed=at)
            for at, (text, length) in enumerate(zip(questions, lengths, strict=True))
        )
    )
    alone = [
        place.alone(text, Sampling(length, temperature, at))
        for at, (text, length) in enumerate(zip(questions, lengths, strict=True))
    ]
    assert [one.text for one in alone] == [one.choices[0].message.content for one in answers]
    assert [len(one.ids) for one in alone] == [one.usage.completion_tokens for one in answers]
    reused = [one.usage.prompt_tokens_details.cached_tokens for one in answers]
    assert max(reused) >= 64, "the system prompt was read once"
    assert max(joined) > 0, "some joined answers that were running"


async def test_a_conversation_is_read_from_where_the_last_answer_ended(place: Served) -> None:
    first = await place.create("x" * 100, max_tokens=40)
    turns = [
        {"role": "user", "content": "x" * 100},
        first.choices[0].message.model_dump(),
        {"role": "user", "content": "and then?"},
    ]
    second = await place.client.chat.completions.create(model=NAME, messages=turns, max_tokens=4)
    before = first.usage.prompt_tokens
    assert before - 32 <= second.usage.prompt_tokens_details.cached_tokens


async def test_long_prompts_are_read_over_several_turns(
    place: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "CHUNK_TOKENS", 40)
    questions = ["y" * 300, "short", SYSTEM * 3, "y" * 290]
    answers = await asyncio.gather(*(place.create(text, max_tokens=20) for text in questions))
    alone = [place.alone(text, Sampling(20)).text for text in questions]
    assert alone == [answer.choices[0].message.content for answer in answers]


async def test_answers_that_outgrow_their_memory_wait_and_stay_the_same(
    place: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_back: list[int] = []
    real = Scheduler._set_back

    def counted(self: Scheduler) -> None:
        set_back.append(len(self._running))
        real(self)

    monkeypatch.setattr(Scheduler, "_set_back", counted)
    monkeypatch.setattr(scheduler, "HEADROOM_TOKENS", 2)
    place.scheduler._most_places = 400
    questions = texts(8, seed=2)
    answers = await asyncio.gather(*(place.create(text, max_tokens=60) for text in questions))
    alone = [place.alone(text, Sampling(60)).text for text in questions]
    assert alone == [answer.choices[0].message.content for answer in answers]
    assert set_back


async def test_memory_that_runs_out_is_met_with_fewer_rows(
    place: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = decoding.PrefixCachedRows.add
    tried: list[int] = []

    def small(rows: decoding.PrefixCachedRows, tokens: Tensor) -> Tensor:
        if len(tokens) > 2:
            tried.append(len(tokens))
            raise torch.OutOfMemoryError("out of memory")
        return add(rows, tokens)

    monkeypatch.setattr(decoding.PrefixCachedRows, "add", small)
    questions = texts(7, seed=3)
    answers = await asyncio.gather(*(place.create(text, max_tokens=30) for text in questions))
    alone = [place.alone(text, Sampling(30)).text for text in questions]
    assert alone == [answer.choices[0].message.content for answer in answers]
    assert 0 < len(tried) < 12


async def test_a_request_on_which_the_model_fails_is_an_error_of_its_own(
    place: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = decoding.PrefixCachedRows.begin

    def failing(rows: decoding.PrefixCachedRows, prompts: Sequence[Sequence[int]]) -> Tensor:
        if any(ord("!") - 33 in prompt for prompt in prompts):  # byte-level: "!" is id 0
            raise RuntimeError("no such kernel")
        return begin(rows, prompts)

    monkeypatch.setattr(decoding.PrefixCachedRows, "begin", failing)
    fine, failed = await asyncio.gather(
        place.create("hello"), place.create("no!"), return_exceptions=True
    )
    assert isinstance(failed, openai.InternalServerError)
    assert "no such kernel" in str(failed)
    assert place.alone("hello", GREEDY).text == fine.choices[0].message.content
    assert (await place.create("hello")).choices


async def test_a_model_whose_rows_cannot_join_answers_batch_by_batch(
    tmp_path: Path,
) -> None:
    folder = save_tiny_model(tmp_path / "sliding")
    sliding_model().save_pretrained(folder)
    async with served(folder) as place:
        questions = texts(6, seed=4)
        answers = await asyncio.gather(*(place.create(text) for text in questions))
        alone = [place.alone(text, GREEDY).text for text in questions]
        assert alone == [answer.choices[0].message.content for answer in answers]


async def test_log_probabilities_are_those_of_the_model(tiny_model: Path, place: Served) -> None:
    answer = await place.create("hello", logprobs=True, top_logprobs=3, temperature=1, seed=5)
    content = answer.choices[0].logprobs.content
    generated = place.alone("hello", Sampling(6, 1.0, 5))
    ids = render_prompt(place.engine.tokenizer, [Message(role="user", content="hello")])
    model = load_model(tiny_model, torch.float32)
    for token, said in zip(generated.ids, content, strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        assert pytest.approx(float(expected[token]), abs=1e-4) == said.logprob
        best = expected.topk(3).values.tolist()
        assert pytest.approx(best, abs=1e-4) == [top.logprob for top in said.top_logprobs]
        ids.append(token)
    whole = bytes(byte for said in content for byte in said.bytes)
    assert answer.choices[0].message.content == whole.decode("utf-8", "replace")


async def test_streamed_log_probabilities_come_with_their_text(place: Served) -> None:
    whole = await place.create("hi", logprobs=True, max_tokens=30)
    stream = await place.create("hi", logprobs=True, max_tokens=30, stream=True)
    parts = [part.choices[0].logprobs async for part in stream]
    said = [token.logprob for part in parts if part for token in part.content]
    expected = [token.logprob for token in whole.choices[0].logprobs.content]
    assert pytest.approx(expected, abs=1e-4) == said


async def test_a_stop_string_ends_the_answer_and_is_not_sent(place: Served) -> None:
    free = (await place.create("hello", max_tokens=20)).choices[0].message.content
    stop = free[4:6]
    cut = free[: free.index(stop)]
    answer = await place.create("hello", max_tokens=20, stop=[stop], logprobs=True)
    stream = await place.create("hello", max_tokens=20, stop=stop, stream=True)
    text = "".join([part.choices[0].delta.content or "" async for part in stream])
    assert [cut, cut, "stop"] == [
        answer.choices[0].message.content,
        text,
        answer.choices[0].finish_reason,
    ]
    assert len(cut) == len(answer.choices[0].logprobs.content)


def test_a_long_stop_string_costs_no_more_than_the_answer() -> None:
    """Every length of the stop was sliced, at every token."""
    stop = "x" * 400_000
    answer = Answer(0, [], Sampling(stop=(stop,)), Ending(frozenset(), tiny_tokenizer()))
    answer.ids = tiny_tokenizer().encode("hellox", add_special_tokens=False)
    began = time.process_time()
    assert answer.text_so_far() == "hello"
    assert time.process_time() - began < 0.5


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


async def test_an_answer_follows_the_schema_of_its_response_format(place: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    options = {"max_tokens": 200, "temperature": 1.0, "seed": 1, "logprobs": True}
    whole = await place.create("hello", response_format=json_schema(schema), **options)
    choice = whole.choices[0]
    assert choice.finish_reason == "stop"
    assert set(json.loads(choice.message.content)) == {"ok"}
    assert all(math.isfinite(token.logprob) for token in choice.logprobs.content)
    chunks = await place.create(
        "hello", response_format=json_schema(schema), stream=True, **options
    )
    streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    assert streamed == choice.message.content


async def test_json_mode_gives_an_object(place: Served) -> None:
    format_ = {"type": "json_object"}
    answer = await place.create("hello", response_format=format_, temperature=1.0, seed=3)
    assert answer.choices[0].message.content.lstrip().startswith("{")


async def test_max_completion_tokens_is_the_newer_name(place: Served) -> None:
    answer = await place.create("hello", max_tokens=None, max_completion_tokens=3)
    assert answer.usage.completion_tokens <= 3


IMAGE = {"type": "image_url", "image_url": {"url": "https://x.test/y"}}


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"temperature": 3}, "temperature", "at most 2"),
        ({"top_p": 0}, "top_p", "above 0"),
        ({"n": 2}, "n", "must be 1"),
        ({"seed": 2**64}, "seed", "below"),
        ({"stop": list("abcde")}, "stop", "4 entries"),
        ({"stop": "x" * 1_001}, "stop", "1000"),
        ({"top_logprobs": 21}, "top_logprobs", "at most 20"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "is required"),
        ({"response_format": json_schema({"type": "strin"})}, "response_format", "strin"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "messages", "ignores tools"),
        ({"tool_choice": "required"}, "tool_choice", "auto, none"),
        ({"messages": []}, "messages", "1 or more"),
        ({"messages": [{"role": "human", "content": "x"}]}, "messages[0].role", "'user'"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages", "an image"),
        ({"extra_body": {"beams": 4}}, "beams", "not a known key"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_its_parameter(
    place: Served, options: dict[str, Any], param: str, words: str
) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    with pytest.raises(openai.BadRequestError) as refused:
        await place.client.chat.completions.create(**{**body, **options})
    error: Any = refused.value
    assert param == error.param
    assert words in error.message


async def test_another_model_is_refused_with_the_name_of_the_served_one(place: Served) -> None:
    turns: Any = [{"role": "user", "content": "x"}]
    with pytest.raises(openai.NotFoundError, match="'tiny'") as refused:
        await place.client.chat.completions.create(model="other", messages=turns)
    assert refused.value.param == "model"


async def test_a_prompt_beyond_the_context_is_refused_as_at_openai(place: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await place.create("x" * 600)
    assert (refused.value.param, refused.value.code) == ("messages", "context_length_exceeded")
    assert "512" in refused.value.message


async def test_a_conversation_with_more_messages_than_the_context_has_tokens_is_not_rendered(
    place: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(server, "render_prompt")
    turns = [{"role": role, "content": "a"} for _ in range(257) for role in ("user", "assistant")]
    with pytest.raises(openai.BadRequestError, match="514 messages") as refused:
        await place.client.chat.completions.create(model=NAME, messages=turns)
    assert refused.value.code == "context_length_exceeded"


async def test_a_body_that_does_not_arrive_is_given_up(
    place: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.1)
    host, port = place.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
    assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
    writer.close()
    assert place.server._reading == 0


async def test_bodies_that_are_received_at_once_have_a_limit(
    place: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_READING", 100)
    with pytest.raises(openai.InternalServerError, match="too many large requests"):
        await place.create("x" * 100)


async def test_an_answer_without_a_limit_ends_at_the_context(place: Served) -> None:
    answer = await place.create("x" * 440, max_tokens=None)
    assert answer.usage.total_tokens <= 512


async def test_a_key_is_asked_of_everyone_but_the_health_check(tiny_model: Path) -> None:
    async with served(tiny_model, key="sesame") as place:
        assert (await place.create("hello")).choices
        async with openai.AsyncOpenAI(base_url=f"{place.url}/v1", api_key="wrong") as stranger:
            with pytest.raises(openai.AuthenticationError) as refused:
                await stranger.models.list()
        assert refused.value.code == "invalid_api_key"
        async with aiohttp.ClientSession() as session, session.get(f"{place.url}/health") as health:
            assert await health.json() == {"status": "ok", "model": NAME, "requests": 0}


async def test_a_key_that_is_no_text_is_a_wrong_one(tiny_model: Path) -> None:
    async with served(tiny_model, key="sesame") as place:
        host, port = place.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"Authorization: Bearer \xff\r\nConnection: close\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
        writer.close()


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"Host": "evil.example"}, 403),  # a name that leads here: DNS rebinding
        ("POST", {"Content-Type": "text/plain"}, 415),  # what a page may post without asking
        ("OPTIONS", {"Origin": "https://evil.example"}, 405),  # asking
        ("GET", {}, 405),
    ],
)
async def test_a_web_page_cannot_use_a_server_without_a_key(
    place: Served, method: str, headers: dict[str, str], status: int
) -> None:
    address = f"{place.url}/v1/chat/completions"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, address, data=b"{}", headers=headers) as answer,
    ):
        assert status == answer.status
        assert (await answer.json())["error"]["message"]
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model": "\\ud800"}', b"[" * 100_000, b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(place: Served, body: bytes) -> None:
    address, headers = f"{place.url}/v1/chat/completions", {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(address, data=body, headers=headers) as answer,
    ):
        assert answer.status == 400
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_its_place(
    place: Served, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    """Of a running answer, which would take 20 seconds, and of one that waits behind it."""
    add = decoding.PrefixCachedRows.add

    def slow(rows: decoding.PrefixCachedRows, tokens: Tensor) -> Tensor:
        time.sleep(0.05)
        return add(rows, tokens)

    monkeypatch.setattr(decoding.PrefixCachedRows, "add", slow)
    place.scheduler._most_rows = 1
    running = asyncio.create_task(place.create("x", max_tokens=400, stream=stream))
    waiting = asyncio.create_task(place.create("y", max_tokens=400))
    await wait_until(lambda: place.scheduler.load == 2)
    if stream:
        await (await running).close()
    for task in (running, waiting):
        task.cancel()
    await place.client.close()
    await wait_until(lambda: place.scheduler.load == 0, seconds=5)
    assert place.server._open == 0


async def test_a_full_queue_is_told_to_come_again(
    place: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_WAITING", 0)
    with pytest.raises(openai.InternalServerError) as refused:
        await place.create("hello")
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"] == "1"


async def test_a_stream_that_is_ended_says_why(place: Served) -> None:
    stream = await place.create("x", max_tokens=450, stream=True)
    whole = asyncio.create_task(place.create("y", max_tokens=450))
    await anext(aiter(stream))
    await wait_until(lambda: place.scheduler.load == 2)
    place.server._hurry.set()
    await place.server._end(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(openai.APIError, match="shutting down"):
        _ = [part async for part in stream]
    with pytest.raises(openai.InternalServerError, match="shutting down"):
        await whole


STUCK = """
import sys, time
from unitune.backends.capabilities import ServerSettings
from unitune_local.inference.chat import LocalChatModel
from unitune_local.serving import server

server.render_prompt, server.CLOSING_SECONDS = lambda *_: time.sleep(600), 0.1
settings = ServerSettings("tiny", "127.0.0.1", 0, None)
server.serve(LocalChatModel(sys.argv[1]), settings, lambda url: print(url, flush=True))
"""


@pytest.mark.heavy
def test_a_second_signal_ends_the_server_while_a_thread_still_works(tiny_model: Path) -> None:
    command = [sys.executable, "-c", STUCK, str(tiny_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = process.stdout.readline().strip().rsplit(":", 1)[1].split("/")[0]
        body = b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}]}'
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        )
        with socket.create_connection(("127.0.0.1", int(port))) as client:
            client.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
            time.sleep(0.5)
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                time.sleep(0.5)
        assert process.wait(timeout=20) == 130


def test_a_comparison_through_the_server_gives_the_scores_of_the_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model itself against what is served, case by case."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(machine, "best_dtype", lambda _: torch.float32)
    write_rows(tmp_path / "test.jsonl", 20)
    with served_apart(tiny_model) as url:
        server = {"type": "server", "url": url, "model": NAME, "prompt": "zero-shot"}
        job = Job.model_validate(
            {
                "name": "served",
                "model": str(tiny_model),
                "backend": "local",
                "data": {"test": "test.jsonl"},
                "evaluate": {
                    "scorers": ["edit_distance"],
                    "max_tokens": 24,
                    "contenders": ["zero-shot", {**server, "name": "served", "role": "candidate"}],
                },
                "folder": tmp_path,
            }
        )
        compared = compare(job)
    answers = [(case.answers["zero-shot"], case.answers["served"]) for case in compared.cases]
    assert len({alone.text for alone, _ in answers}) > 10
    assert [alone for alone, _ in answers] == [through for _, through in answers]
    own, through = compared.contenders
    assert (own.score, own.completion_tokens) == (through.score, through.completion_tokens)


@pytest.mark.parametrize("name", ["local", "ray"])
def test_backends_whose_models_answer_here_serve_them(name: str) -> None:
    assert isinstance(registry.backend(name), Serves)


@pytest.mark.skipif(not openai_spec.DESCRIPTION.exists(), reason="OpenAI's description is not here")
async def test_responses_are_what_openai_describes(place: Served) -> None:
    raw = place.client.with_raw_response
    answer = await raw.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "x"}], logprobs=True, top_logprobs=2
    )
    schemas = {"CreateChatCompletionResponse": answer, "ListModelsResponse": None}
    schemas["ListModelsResponse"] = await raw.models.list()
    for name, response in schemas.items():
        assert openai_spec.problems_of(name, response.http_response.json()) == [], name
    stream = await place.create(
        "x", stream=True, logprobs=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        content = chunk.model_dump(exclude_unset=True)
        assert openai_spec.problems_of("CreateChatCompletionStreamResponse", content) == []
    with pytest.raises(openai.BadRequestError) as refused:
        await place.create("x", n=2)
    assert openai_spec.problems_of("ErrorResponse", refused.value.response.json()) == []
