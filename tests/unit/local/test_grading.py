"""Rewards of sampled answers: how groups are graded, and by whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from unitune.backends import retry
from unitune.data.example import Example, Message
from unitune.errors import BackendError, Mismatch, Unreachable
from unitune.job.evaluate import Evaluate
from unitune.job.tuning import Reward as RewardOptions
from unitune.scorers.functions import HttpGrader, RewardFunction
from unitune.scorers.interface import Score, Scorer, Setting
from unitune.scorers.text import Exact
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune_local.grading import Grading, Group, Reward, RewardGrader

CASE = Example.model_validate(
    {
        "messages": [
            {"role": "user", "content": "Is 7 a prime?"},
            {"role": "assistant", "content": "yes"},
        ],
        "kind": "prime",
    }
)
FUNCTIONS = """
import asyncio
import signal
import time

def shortest(answers, case):
    least = min(map(len, answers))
    return [{"score": least - len(each), "reason": case.kind} for each in answers]

def odd(answers, case):
    return [None, float("nan"), "much", True]

def few(answers, case):
    return [1.0]

def broken(answers, case):
    raise KeyError("no such word")

def timed(answers, case):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # of the main thread alone
    return [1.0] * len(answers)

async def slow(answers, case):
    await asyncio.sleep(0.3)
    return [float(len(each)) for each in answers]
"""


def grader_of(*rewards: Reward) -> RewardGrader:
    tokenizer: Any = None
    return RewardGrader(tokenizer, rewards)


def function(folder: Path, name: str) -> Scorer:
    (folder / "rewards.py").write_text(FUNCTIONS)
    return RewardFunction(function=f"rewards.py:{name}").ready(Setting(folder), "")


def scores_of(scorer: Scorer, *texts: str) -> list[Score]:
    (((scores,),)) = grader_of(Reward.of(scorer)).grade([Group(CASE, texts)])
    return scores


def test_a_reward_function_sees_the_group_and_returns_any_number(tmp_path: Path) -> None:
    scores = scores_of(function(tmp_path, "shortest"), "yes", "no", "perhaps")
    assert scores == [Score(-1.0, "prime"), Score(0.0, "prime"), Score(-5.0, "prime")]


def test_an_answer_without_a_usable_score_is_not_scored(tmp_path: Path) -> None:
    scores = scores_of(function(tmp_path, "odd"), *"abcd")
    assert [score.failed for score in scores] == [True, True, True, False]
    assert scores[2].reason == "it returned 'much', which is not a number"


@pytest.mark.parametrize(
    ("name", "why"),
    [("few", "it returned 1 scores for 2 answers"), ("broken", "KeyError: 'no such word'")],
)
def test_a_function_that_fails_leaves_its_group_without_scores(
    tmp_path: Path, name: str, why: str
) -> None:
    assert scores_of(function(tmp_path, name), "a", "b") == [Score(0.0, why, failed=True)] * 2


def test_plain_functions_run_in_the_main_thread(tmp_path: Path) -> None:
    """Many verifiers limit their time by SIGALRM, which other threads cannot set."""
    assert scores_of(function(tmp_path, "timed"), "a") == [Score(1.0)]


def test_asynchronous_functions_grade_groups_at_the_same_time(tmp_path: Path) -> None:
    slow, exact = Reward.of(function(tmp_path, "slow")), Reward.of(Exact().ready(Setting(), ""))
    groups = [Group(CASE, ("yes", "x" * at)) for at in range(1, 11)]
    start = time.monotonic()
    graded = grader_of(slow, exact).grade(groups)
    assert time.monotonic() - start < 0.3 * 10 / 2
    assert [[3.0, float(at)] for at in range(1, 11)] == [
        [score.value for score in group[0]] for group in graded
    ]
    assert [[score.value for score in group[1]] for group in graded] == [[1.0, 0.0]] * 10


def test_a_function_that_has_changed_since_the_submit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(FUNCTIONS)
    grading = Grading.of(RewardFunction(function="rewards.py:shortest"), tmp_path, 0.5)
    assert grading == Grading.model_validate_json(grading.model_dump_json())
    assert isinstance(grading.ready([CASE]), RewardFunction)
    (tmp_path / "rewards.py").write_text(FUNCTIONS.replace("least -", "least +"))
    with pytest.raises(Mismatch, match="'reward_function' names has changed"):
        grading.ready([CASE])


@dataclass
class GradingServer:
    """Gives each answer its length; first come the responses of `before`."""

    before: list[VendorResponse] = field(default_factory=list[VendorResponse])
    requests: list[dict[str, JsonValue]] = field(default_factory=list[dict[str, JsonValue]])

    def answer(self, request: VendorRequest, /) -> VendorResponse:
        assert (request.method, request.path) == ("POST", "/grade")
        self.requests.append(request.json)
        if self.before:
            return self.before.pop(0)
        return VendorResponse(
            {"scores": [{"score": len(each)} for each in request.json["answers"]]}
        )


@pytest.fixture
def grading() -> Iterator[tuple[GradingServer, Server]]:
    vendor = GradingServer()
    with serve(vendor) as server:
        yield vendor, server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(retry, "sleep", waited.append)
    return waited


def http(server: Server, **options: Any) -> HttpGrader:
    return HttpGrader(url=f"{server.url}/grade", **options)


def test_an_http_grader_gets_a_group_and_its_row(
    grading: tuple[GradingServer, Server],
) -> None:
    vendor, server = grading
    assert [score.value for score in scores_of(http(server), "yes", "no")] == [3.0, 2.0]
    expected = {
        "messages": [{"role": "user", "content": "Is 7 a prime?"}],
        "expected": "yes",
        "row": {"kind": "prime"},
        "answers": ["yes", "no"],
    }
    assert vendor.requests == [expected]


def test_an_http_grader_gets_the_calls_of_answers(
    grading: tuple[GradingServer, Server],
) -> None:
    vendor, server = grading
    looks: dict[str, JsonValue] = {"name": "look", "arguments": "{}"}
    call: dict[str, JsonValue] = {"id": "c", "type": "function", "function": looks}
    turn = Message(role="assistant", content=None, tool_calls=(call,))
    Reward.of(http(server)).grade(CASE, ["", "no"], [[turn], []])
    assert vendor.requests[0]["trajectories"] == [[turn.wire], []]


def test_an_http_grader_that_fails_for_a_while_is_asked_again(
    grading: tuple[GradingServer, Server], waits: list[float]
) -> None:
    vendor, server = grading
    busy = VendorResponse({}, 429, {"retry-after": "7"})
    vendor.before += [VendorResponse({}, 503), busy, VendorResponse(b"<html>", 200)]
    assert [score.value for score in scores_of(http(server), "a")] == [1.0]
    assert len(vendor.requests) == 4
    assert waits == [1.0, 7.0, 4.0]


@pytest.mark.parametrize(
    ("response", "requests", "words"),
    [
        (VendorResponse({"error": "bad"}, 400), 1, "'http' could not grade answers: bad"),
        (VendorResponse({}, 500), 6, r"could not grade answers: .* \(HTTP 500\)"),
        (VendorResponse({"scores": [1, 2]}), 1, "it returned 2 scores for 1 answers. It must be"),
        (VendorResponse({"grades": [1]}), 1, "it returned None, which is not a list"),
    ],
)
def test_an_http_grader_that_stays_broken_ends_with_its_reason(
    grading: tuple[GradingServer, Server],
    waits: list[float],
    response: VendorResponse,
    requests: int,
    words: str,
) -> None:
    """An error of the class BackendError pauses the training; RunFailed would end it."""
    vendor, server = grading
    vendor.before += [response] * requests
    with pytest.raises(BackendError, match=words) as caught:
        scores_of(http(server), "a")
    assert type(caught.value) is BackendError
    assert (requests, requests - 1) == (len(vendor.requests), len(waits))


def test_an_http_grader_that_is_gone_is_unreachable(waits: list[float]) -> None:
    with serve(GradingServer()) as server:
        gone = http(server)
    with pytest.raises(Unreachable, match="the HTTP grader 'http' could not grade answers"):
        scores_of(gone, "a")
    assert len(waits) == 5


def test_requests_beyond_the_maximum_are_not_sent(
    grading: tuple[GradingServer, Server],
) -> None:
    vendor, server = grading
    reward = Reward.of(http(server, max_requests=3))
    with pytest.raises(BackendError, match=r"has been sent 3 requests \(max_requests\)"):
        grader_of(reward).grade([Group(CASE, ("a",))] * 40)
    assert len(vendor.requests) == 3


def test_several_groups_are_sent_at_the_same_time() -> None:
    met = threading.Barrier(4, timeout=20)

    def grade(case: Example, texts: object, _: object) -> list[Score]:
        del case, texts
        met.wait()
        return [Score(1.0)]

    reward = Reward("meeting", grade, waits=True)
    assert grader_of(reward).grade([Group(CASE, ("a",))] * 4) == [[[Score(1.0)]]] * 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scorers": ["exact", "exact"]}, "two rewards are named exact"),
        ({"scorers": "exact", "weights": {"exakt": 1}}, "weights names 'exakt'"),
        ({"scorers": {"type": "recorded_score", "key": "x"}}, "recorded_score has no score"),
        ({"scorers": ["length"]}, "length"),
        ({"scorers": []}, "scorers is empty"),
        ({"clip": 0.3}, "clip needs updates above 1"),
        ({"scorers": {"type": "http", "url": "https://me:key@host/"}}, "user name or password"),
    ],
)
def test_rewards_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RewardOptions.model_validate(options)


def test_one_reward_may_stand_alone_and_several_have_weights() -> None:
    alone = RewardOptions.model_validate({"scorers": "exact"})
    assert alone.scorers == (Exact(),)
    several = RewardOptions.model_validate(
        {
            "scorers": ["exact", {"type": "reward_function", "function": "a.py:f"}],
            "weights": {"reward_function": -0.1},
        }
    )
    assert [each.name for each in several.scorers or ()] == ["exact", "reward_function"]


def test_a_group_reward_is_no_scorer_of_an_evaluation() -> None:
    with pytest.raises(ValidationError, match="reward_function"):
        Evaluate.model_validate({"scorers": [{"type": "reward_function", "function": "a.py:f"}]})
