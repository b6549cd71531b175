"""Whatever an endpoint's body holds, and however it is compressed, it takes a bounded memory and
is an error in words: a question's own, or exit code 4 where it belongs to no question."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command

from unitune.backends.kit.api import Api
from unitune.backends.kit.connection import LARGEST_ANSWER, Body, BodyError
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve

DEEP = b"[" * 100_000 + b"]" * 100_000
MIB = 1 << 20


class Saying:
    """Answers every request alike."""

    def __init__(self) -> None:
        self.given = VendorResponse()

    def answer(self, _: VendorRequest) -> VendorResponse:
        return self.given


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Saying()) as server:
        yield server


def say(server: Server, answer: VendorResponse) -> None:
    assert isinstance(server.vendor, Saying)
    server.vendor.given = answer


def compressed(content: bytes) -> VendorResponse:
    return VendorResponse(gzip.compress(content, 9), 200, {"Content-Encoding": "gzip"})


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_body_is_decompressed_piece_by_piece(pieces: int) -> None:
    content = b"".join(str(number).encode() for number in range(10_000))
    wire = gzip.compress(content) + gzip.compress(b"and more")  # RFC 1952: members in a row
    body = Body("GZip", LARGEST_ANSWER)
    read = [
        piece
        for at in range(0, len(wire), pieces)
        for piece in body.decompressed(wire[at : at + pieces])
    ]
    body.end()
    assert content + b"and more" == b"".join(read)


@pytest.mark.parametrize(
    ("packing", "wire", "words"),
    [
        ("br", b"x", "compressed as 'br'"),
        ("gzip", zlib.compress(b"x"), "damaged"),
        ("gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9], "ends in the middle"),
        (None, b"x" * 1001, "longer than 1,000 bytes"),
        ("gzip", gzip.compress(b"x" * 1001, mtime=0), "longer than 1,000 bytes"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(packing: str, wire: bytes, words: str) -> None:
    def read() -> None:
        body = Body(packing, 1000)
        assert b"".join(body.decompressed(wire)) != b""
        body.end()

    with pytest.raises(BodyError, match=words):
        read()


def test_a_file_may_be_long_and_not_of_air() -> None:
    body = Body("gzip", 1 << 30)
    with pytest.raises(BodyError, match="100 times"):
        assert b"".join(body.decompressed(gzip.compress(b"A" * (32 * MIB)))) != b""
    plain = Body(None, 1 << 30)
    assert len(b"".join(plain.decompressed(b"A" * (32 * MIB)))) == 32 * MIB


def test_an_honest_compressed_answer_is_read(server: Server) -> None:
    say(server, compressed(b'{"a": 1}'))
    api = Api(Endpoint(Vendor("mine"), server.url))
    assert api.get("jobs", action="list jobs").all == {"a": 1}
    assert server.requests[0].headers["accept-encoding"] == "gzip"


def job(folder: Path, scorers: list[Any], candidate: Mapping[str, Any], cases: int = 3) -> None:
    rows = [{"id": f"c{n}", "prompt": f"{n}?", "completion": "Paris"} for n in range(cases)]
    answers = [{"case": f"c{n}", "answer": "Rome"} for n in range(cases)]
    for name, content in (("test", rows), ("a", answers)):
        text = "".join(json.dumps(one) + "\n" for one in content)
        (folder / f"{name}.jsonl").write_text(text)
    recorded = {"type": "recorded", "name": "a", "role": "baseline", "answers": "a.jsonl"}
    evaluate = {"scorers": scorers, "contenders": [recorded, {"role": "candidate", **candidate}]}
    content = {"name": "j", "model": "m", "backend": "openai", "data": {"test": "test.jsonl"}}
    (folder / "unitune.yaml").write_text(json.dumps({**content, "evaluate": evaluate}))


def test_a_bomb_is_that_questions_error_and_leaves_a_short_row(
    server: Server, unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune.backends.retry.ATTEMPTS", 1)
    say(server, compressed(b'{"choices":[{"message":{"content":"' + b"A" * (100 * MIB) + b'"}}]}'))
    job(
        tmp_path,
        ["exact"],
        {"type": "server", "url": f"{server.url}/v1", "model": "m", "prompt": "zero-shot"},
        1,
    )
    done = unitune("compare", "unitune.yaml", "--output", "out")
    rows = (tmp_path / "out" / "rows.jsonl").read_text()
    assert (done.code, "longer than 16,777,216 bytes" in rows) == (4, True), done.err
    assert len(rows) < 10_000
