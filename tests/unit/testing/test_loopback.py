"""The kit's server spoils exactly the requests it was told to, and the vendor acts or not."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from unitune.testing.loopback import (
    TOOK_EFFECT,
    Fault,
    Server,
    VendorRequest,
    VendorResponse,
    serve,
)
from unitune.testing.vendor_setup import Progress, ServerBehavior


class Counter:
    """A vendor that counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[VendorRequest] = []

    def answer(self, asked: VendorRequest) -> VendorResponse:
        self.asked.append(asked)
        return VendorResponse({"count": len(self.asked), "padding": "x" * 50})


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Counter()) as running:
        yield running


def counted(server: Server) -> int:
    assert isinstance(server.vendor, Counter)
    return len(server.vendor.asked)


def test_a_request_arrives_whole(server: Server) -> None:
    answer = httpx.post(f"{server.url}/a%20b/c?x=1&x=2&y=", json={"k": "ü"}, headers={"X-A": "1"})
    (asked,) = server.requests
    assert answer.json() == {"count": 1, "padding": "x" * 50}
    assert (
        asked.method,
        asked.path,
        asked.query,
    ) == ("POST", "/a b/c", {"x": ["1", "2"], "y": [""]})
    assert asked.json == {"k": "ü"}
    assert asked.headers["x-a"] == "1"


def test_a_chunked_body_arrives_whole(server: Server) -> None:
    httpx.post(server.url, content=iter([b"ab", b"", b"cd"]))
    assert server.requests[0].body == b"abcd"


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.RATE_LIMITED, 429),
        (Fault.SERVER_ERROR, 500),
        (Fault.ERROR_AFTER, 500),
        (Fault.EXPIRED_KEY, 401),
    ],
)
def test_a_fault_with_a_status_spoils_one_request(
    server: Server, fault: Fault, status: int
) -> None:
    server.inject_fault(fault, "POST", "/jobs")
    assert httpx.get(f"{server.url}/jobs").status_code == 200
    assert status == httpx.post(f"{server.url}/jobs").status_code
    assert 1 + (fault in TOOK_EFFECT) == counted(server)
    assert httpx.post(f"{server.url}/jobs").status_code == 200


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.SHORT, Fault.SILENCE])
def test_a_fault_without_an_answer_comes_after_the_effect(server: Server, fault: Fault) -> None:
    server.inject_fault(fault, "POST", "/jobs")
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{server.url}/jobs", timeout=0.5)
    assert counted(server) == 1


def test_a_rate_limit_says_when_to_come_again(server: Server) -> None:
    server.inject_fault(Fault.RATE_LIMITED, "GET", "/", times=2)
    assert [httpx.get(server.url).headers.get("Retry-After") for _ in range(3)] == ["1", "1", None]


def test_progress_goes_by_looks_or_by_time() -> None:
    behavior, progress = ServerBehavior(queued_polls=1, steps=4, steps_per_poll=2), Progress()
    seen: list[tuple[bool, int, bool]] = []
    for _ in range(4):
        progress.look()
        seen.append((progress.started(behavior), progress.steps(behavior), progress.done(behavior)))
    assert seen == [(False, 0, False), (True, 0, False), (True, 2, False), (True, 4, True)]
    timed = ServerBehavior(steps=4, seconds=0.0)
    assert progress.done(timed)
