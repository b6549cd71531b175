"""Answers of vendors and of servers: changed, damaged, of odd status, with odd headers.

A loopback server plays the vendor, and its answers are changed after it has made them (`Change`).
So the vendor's state is as it would be, and the client sees what a proxy or a broken service says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast
from unittest.mock import patch

from hostile.attempts import Around, Attempt
from hostile.examples import FILES, as_file, job, rows
from hostile.values import BODIES, Edit, as_json, as_json_lines, changed, edits, texts
from hypothesis import strategies as st
from support.sparse_vendors import STAGES
from vendors.serving import VENDORS

from unitune.testing.loopback import Server, Vendor, VendorRequest, VendorResponse, serve

STATUSES = (
    200,
    200,
    201,
    202,
    204,
    207,
    301,
    302,
    307,
    400,
    401,
    403,
    404,
    408,
    409,
    418,
    422,
    429,
    500,
    502,
    503,
    504,
    529,
    599,
    999,
)
HEADERS = (
    *(
        ("Retry-After", value)
        for value in (
            "0",
            "1",
            "nan",
            "inf",
            "-5",
            "99999999999",
            "1e308",
            "Wed, 21 Oct 2099 07:28:00 GMT",
            "soon",
            "",
            "9" * 400,
        )
    ),
    *(("x-ratelimit-reset-tokens", value) for value in ("6m0s", "nan", "9" * 30)),
    *(("retry-after-ms", value) for value in ("nan", "1e999")),
    *(
        ("Content-Type", value)
        for value in (
            "text/html",
            "application/json; charset=utf-16",
            "text/event-stream",
            "application/x-ndjson",
            "",
            "multipart/form-data",
        )
    ),
    *(("Content-Encoding", value) for value in ("gzip", "deflate", "br", "zstd", "identity", "x")),
    ("Location", "http://127.0.0.1:1/elsewhere"),
    ("Location", "file:///etc/passwd"),
    ("x-request-id", "\x1b[31m"),
    ("Set-Cookie", "a=b"),
    ("ratelimit", "x;r=nan;t=inf"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of answers.

    Args:
        first: The first request whose answer it is, from 0.
        every: Whether all that follow have it too.
        edits: Of the tree of JSON.
        body: What stands in place of the body.
        status: In place of the vendor's.
        headers: Besides the vendor's.
    """

    first: int
    every: bool
    edits: tuple[Edit, ...] = ()
    body: bytes | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def apply(self, answer: VendorResponse) -> VendorResponse:
        """Return the answer as it is sent."""
        content: Any = answer.content if self.body is None else self.body
        if self.edits and isinstance(content, bytes) and content[:1] in (b"{", b"["):
            content = _lines_changed(content, list(self.edits))
        elif self.edits and not isinstance(content, bytes):
            content = as_json(changed(content, list(self.edits)))
        kind = {} if isinstance(answer.content, bytes) else {"Content-Type": "application/json"}
        return replace(
            answer,
            content=content,
            status=self.status or answer.status,
            headers={**kind, **answer.headers, **self.headers},
        )


def _lines_changed(content: bytes, changes: list[Edit]) -> bytes:
    try:
        trees = [json.loads(line) for line in content.splitlines()]
    except ValueError:
        return content
    found = changed(trees, changes)
    return as_json_lines(found if isinstance(found, list) else [found])


@dataclass(slots=True)
class Changed:
    """A vendor whose answers are changed once `armed`."""

    vendor: Vendor
    changes: tuple[Change, ...]
    armed: bool = False
    seen: int = 0

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Let the vendor answer, and change what it says."""
        answer = self.vendor.answer(asked)
        if not self.armed:
            return answer
        for change in self.changes:
            if self.seen == change.first or (change.every and self.seen > change.first):
                answer = change.apply(answer)
        self.seen += 1
        return answer


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Return a change of answers."""
    first, every = draw(st.integers(0, 5)), draw(st.integers(0, 3)) > 0
    how = draw(st.sampled_from(("edits", "edits", "edits", "body", "status", "headers", "all")))
    header = dict(draw(st.lists(st.sampled_from(HEADERS), min_size=1, max_size=2)))
    return Change(
        first,
        every,
        tuple(draw(edits())) if how in ("edits", "all") else (),
        draw(st.sampled_from(BODIES) | st.binary(max_size=32) | error_bodies())
        if how == "body"
        else None,
        draw(st.sampled_from(STATUSES)) if how in ("status", "all", "body") else None,
        header if how in ("headers", "all") else {},
    )


def error_bodies() -> st.SearchStrategy[bytes]:
    """Return errors in vendors' shape, with odd words."""
    return texts().map(
        lambda text: as_json({"error": {"message": text, "code": text, "type": None}})
    )


RUN = ("run", "job.yaml", "--quiet", "--allow-unpriced", "--budget", "100")
SCENES: tuple[tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]], ...] = (
    ((), (RUN,)),
    (
        (),
        (
            ("run", "job.yaml", "--allow-unpriced", "--budget", "100", "--detach"),
            ("runs", "watch", "--all"),
        ),
    ),
    ((), (("plan", "job.yaml", "--quote"),)),
    ((), (("plan", "job.yaml", "--count-with-vendor"),)),
    ((RUN,), (("compare", "job.yaml", "--budget", "90", "--allow-unpriced"),)),
    ((RUN,), (("compare", "job.yaml", "--budget", "90", "--allow-unpriced", "--batch"),)),
    (
        (RUN,),
        (
            ("compare", "job.yaml", "--budget", "90", "--allow-unpriced", "--deploy", "30m"),
            ("deployments",),
        ),
    ),
    ((RUN,), (("chat", "r", "-m", "hello"), ("chat", "r", "--base"))),
    (
        (RUN,),
        (
            ("deployments", "up", "r", "--ttl", "30m", "--budget", "90", "--allow-unpriced"),
            ("deployments", "--all"),
            ("deployments", "down", "r"),
        ),
    ),
    ((RUN,), (("models", "checkpoints", "r"), ("models", "download", "r", "-o", "weights"))),
    ((RUN,), (("runs", "delete", "r", "--reports"),)),
    (
        ((*RUN, "--detach"),),
        (("runs", "show", "r"), ("runs", "cancel", "r"), ("runs", "watch", "r")),
    ),
    (((*RUN, "--detach"),), (("runs", "watch", "r", "--json"),)),
    (((*RUN, "--detach"),), (("runs", "pause", "r"), ("runs", "resume", "r"))),
    ((RUN,), (("import", "@backend:@job", "--output", "old", "--answers", "test.jsonl"),)),
    ((RUN,), (("doctor",), ("runs",))),
)
"""Commands that must end well, and those whose answers are changed."""


@contextmanager
def _staged(
    stage: Callable[[], AbstractContextManager[Any]], name: str, made: tuple[Change, ...]
) -> Generator[Around]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    served: list[Server] = []

    def remembered(self: Server) -> None:
        served.append(self)
        begin(self)

    begin = Server.start
    with (
        patch.object(Server, "start", remembered),
        patch.dict(os.environ, kept, clear=True),  # without what another test has left
        stage(),
    ):
        server = served[-1]
        vendor = Changed(server.vendor, made)
        server.vendor = cast("Vendor", vendor)
        new = {key: value for key, value in os.environ.items() if kept.get(key) != value}
        yield Around({**new}, {"@backend": name}, lambda: setattr(vendor, "armed", True))


MODELS = {
    name: VENDORS[name].model
    for name in ("openai", "azure", "together", "vertex", "bedrock", "nebius")
}
"""A base model that each backend tunes."""


@st.composite
def backends(draw: st.DrawFn, only: str | None = None, scene: int | None = None) -> Attempt:
    """Return commands at a hosted vendor whose answers are not as they should be."""
    name = only or draw(st.sampled_from(sorted(MODELS)))
    setup, hostile = SCENES[scene] if scene is not None else draw(st.sampled_from(SCENES))
    made = tuple(draw(st.lists(changes(), min_size=1, max_size=2)))
    tree = job(model=MODELS[name], backend=name, evaluate={"contenders": ["zero-shot", "tuned"]})
    files = {
        **FILES,
        "train.jsonl": as_json_lines(
            [{key: row[key] for key in ("prompt", "completion")} for row in rows("train", 40)]
        ),
        "dev.jsonl": as_json_lines(
            [{key: row[key] for key in ("prompt", "completion")} for row in rows("dev", 12)]
        ),
        "test.jsonl": as_json_lines(rows("case", 3)),
        "job.yaml": as_file(tree),
    }
    return Attempt(
        (*setup, *hostile),
        files,
        stdin="y\nhello\n\n",
        terminal=draw(st.booleans()),
        setup=len(setup),
        around=partial(_staged, STAGES[name], name, made),
        note=f"{name} {made}",
    )


class ChatServer:
    """A server that speaks chat completions."""

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer anything."""
        del asked
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"role": "assistant", "content": "Paris 1", "tool_calls": [call]}
        usage = {"prompt_tokens": 3, "completion_tokens": 4}
        usage |= cast("Any", {"completion_tokens_details": {"reasoning_tokens": 1}})
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return VendorResponse(
            cast("Any", {"id": "x", "model": "m", "choices": [choice], "usage": usage})
        )


@contextmanager
def _served(made: tuple[Change, ...]) -> Generator[Around]:
    vendor = Changed(ChatServer(), made, armed=True)
    with serve(cast("Vendor", vendor)) as server:
        yield Around(
            {
                "OPENAI_API_KEY": "k",
                "OPENAI_BASE_URL": f"{server.url}/v1",
                "ANTHROPIC_API_KEY": "k",
                "ANTHROPIC_BASE_URL": server.url,
            },
            {"@url": server.url},
            lambda: None,
        )


@st.composite
def servers(draw: st.DrawFn) -> Attempt:
    """Return a comparison with a server whose answers are not as they should be."""
    scorers = draw(
        st.sampled_from(
            (
                ["exact"],
                ["numeric", "contains"],
                ["tool_calls", "exact", "latency", "cost", "length"],
            )
        )
    )
    contender = draw(
        st.sampled_from(
            (
                {"type": "server", "url": "@url/v1", "model": "m"},
                {"type": "server", "url": "@url/v1", "model": "m"},
                {"type": "model", "backend": "openai", "model": "gpt-4.1"},
                {"type": "model", "backend": "anthropic", "model": "claude-haiku-4-5"},
            )
        )
    )
    contenders = [
        {**contender, "role": "candidate", "prompt": "zero-shot"},
        {"type": "recorded", "name": "old", "answers": "old.jsonl"},
    ]
    tree = job(
        data={"test": "test.jsonl"},
        evaluate={
            "scorers": scorers,
            "contenders": contenders,
            "concurrency": draw(st.sampled_from((1, 64))),
        },
    )
    made = tuple(draw(st.lists(changes(), min_size=1, max_size=2)))
    command = (
        "compare",
        "job.yaml",
        "--allow-unpriced",
        "--budget",
        "90",
        *draw(st.sampled_from(((), ("--use-cache",)))),
    )
    return Attempt(
        (command,),
        {**FILES, "job.yaml": as_file(tree)},
        terminal=draw(st.booleans()),
        around=partial(_served, made),
        note=str(made),
    )
