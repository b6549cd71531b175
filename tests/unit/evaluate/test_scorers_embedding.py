"""embedding: any endpoint of OpenAI's wire, batched, remembered on disk, failing loudly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring import attempt, dataset, score

from unitune.backends import retry
from unitune.backends.retry import READ_ATTEMPTS
from unitune.errors import BackendError, DataError, Unreachable, UserError
from unitune.evaluate.inference.embeddings import BATCH, EmbeddingsClient
from unitune.evaluate.scoring import build, check_expected
from unitune.scorers.embedding import Embedding, cosine
from unitune.scorers.interface import Scorer, Setting
from unitune.testing.loopback import Fault, Server, VendorRequest, VendorResponse, serve


class Endpoint:
    """Embeds a text as how often its first letters stand in it, and lists the last text first."""

    def __init__(self) -> None:
        self.breaks = False
        self.wishes: list[str] = []

    def answer(self, asked: VendorRequest) -> VendorResponse:
        if self.wishes:
            return VendorResponse({}, 429, {"Retry-After": self.wishes.pop()})
        texts: list[str] = asked.json["input"]
        rows: list[Any] = [
            {"index": at, "embedding": [float(text.count(letter)) for letter in "abc"]}
            for at, text in enumerate(texts)
        ]
        return VendorResponse({"data": rows[:0] if self.breaks else rows[::-1]})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("EMBEDDINGS_KEY", "secret-key")
    monkeypatch.setattr(retry, "sleep", lambda _seconds: None)
    with serve(Endpoint()) as server:
        monkeypatch.setenv("UNITUNE_ALLOW_KEYS", f"EMBEDDINGS_KEY@{server.url}")
        yield server


def scorer_at(server: Server, cache: Path, **options: Any) -> Scorer:
    options = {"model": "letters", "api_key_variable": "EMBEDDINGS_KEY", **options}
    return build(
        Embedding(base_url=f"{server.url}/v1/", **options),
        Setting(embedder=lambda spec: EmbeddingsClient(spec, cache)),
    )


def texts(server: Server) -> list[str]:
    return [text for asked in server.requests for text in asked.json["input"]]


def test_nearness_is_the_cosine_of_what_the_endpoint_gives(server: Server, tmp_path: Path) -> None:
    scorer = scorer_at(server, tmp_path)
    assert pytest.approx(1.0) == scorer.score(attempt("aab", "aabaab")).value
    assert pytest.approx(0.5**0.5) == scorer.score(attempt("ab", "a")).value
    assert 0 == scorer.score(attempt("a", "b")).value
    asked = server.requests[0]
    assert ("/v1/embeddings", "Bearer secret-key") == (asked.path, asked.headers["authorization"])
    assert {
        "model": "letters",
        "input": ["aab", "aabaab"],
        "encoding_format": "float",
    } == asked.json


def test_texts_are_sent_in_batches_and_each_once(server: Server, tmp_path: Path) -> None:
    scorer = scorer_at(server, tmp_path)
    attempts = [attempt("a" * (at + 1), "a") for at in range(BATCH + 5)]
    scorer.fetch(attempts)
    scores = [scorer.score(each).value for each in attempts]
    assert pytest.approx(1.0) == min(scores)
    assert 2 == len(server.requests)
    assert len(set(texts(server))) == len(texts(server)) == BATCH + 5


def test_what_was_embedded_once_is_remembered_on_disk(server: Server, tmp_path: Path) -> None:
    first = scorer_at(server, tmp_path).score(attempt("ab", "abc"))
    again = scorer_at(server, tmp_path).score(attempt("ab", "abc"))
    assert first == again
    assert 1 == len(server.requests)


def test_another_model_has_embeddings_of_its_own(server: Server, tmp_path: Path) -> None:
    for model in ("letters", "other"):
        scorer_at(server, tmp_path, model=model).score(attempt("ab", "abc"))
    assert ["letters", "other"] == [asked.json["model"] for asked in server.requests]


def test_an_empty_answer_has_0_and_is_never_sent(server: Server, tmp_path: Path) -> None:
    scorer = scorer_at(server, tmp_path)
    empty = attempt(" \n", "abc")
    scorer.fetch([empty])
    assert 0 == scorer.score(empty).value
    assert [] == server.requests


@pytest.mark.parametrize("fault", [Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.CUT, Fault.SHORT])
def test_trouble_that_passes_is_waited_for(server: Server, tmp_path: Path, fault: Fault) -> None:
    server.inject_fault(fault, "POST", "/embeddings", times=READ_ATTEMPTS - 1)
    assert pytest.approx(1.0) == scorer_at(server, tmp_path).score(attempt("a", "aa")).value
    assert READ_ATTEMPTS == len(server.requests)


@pytest.mark.parametrize(
    ("wish", "waited"),
    [("nan", 1), ("inf", 1), ("-5", 1), ("99999999999", 1), ("7", 7)],
)
def test_however_long_an_endpoint_asks_to_wait_the_wait_is_bounded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: str, waited: float
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retry, "sleep", waits.append)
    assert isinstance(server.vendor, Endpoint)
    server.vendor.wishes = [wish]
    assert pytest.approx(1.0) == scorer_at(server, tmp_path).score(attempt("a", "aa")).value
    assert [waited] == waits


def test_an_endpoint_that_stays_down_is_an_error_and_never_a_score(
    server: Server, tmp_path: Path
) -> None:
    server.inject_fault(Fault.SERVER_ERROR, "POST", "/embeddings", times=99)
    with pytest.raises(BackendError, match="HTTP 500"):
        scorer_at(server, tmp_path).score(attempt("a", "aa"))
    assert READ_ATTEMPTS == len(server.requests)


def test_a_refused_key_is_told_at_once_and_never_shown(server: Server, tmp_path: Path) -> None:
    server.inject_fault(Fault.EXPIRED_KEY, "POST", "/embeddings")
    with pytest.raises(BackendError, match="HTTP 401") as caught:
        scorer_at(server, tmp_path).score(attempt("a", "aa"))
    assert 1 == len(server.requests)
    assert "secret-key" not in str(caught.value)


def test_an_answer_without_embeddings_is_an_error(server: Server, tmp_path: Path) -> None:
    assert isinstance(server.vendor, Endpoint)
    server.vendor.breaks = True
    with pytest.raises(BackendError, match="gave no embeddings"):
        scorer_at(server, tmp_path).score(attempt("a", "aa"))


def test_a_server_that_is_not_there_is_unreachable(server: Server, tmp_path: Path) -> None:
    scorer = scorer_at(server, tmp_path)
    server.close()
    with pytest.raises(Unreachable, match="no whole answer"):
        scorer.score(attempt("a", "aa"))


def test_a_key_is_asked_for_before_any_model_is(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBEDDINGS_KEY")
    with pytest.raises(UserError, match="EMBEDDINGS_KEY is not set"):
        scorer_at(server, tmp_path)
    scorer_at(server, tmp_path, api_key_variable=None).score(attempt("a", "b"))
    assert "authorization" not in server.requests[0].headers


def test_an_empty_expected_answer_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        check_expected([scorer_at(server, tmp_path)], dataset(" "))


vectors = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3).map(
    lambda numbers: np.array(numbers, dtype=np.float32)
)


@given(vectors, vectors)
def test_a_cosine_is_a_share_and_symmetric(one: Any, other: Any) -> None:
    assert 0 <= cosine(one, other) <= 1
    assert cosine(one, other) == cosine(other, one)
    if np.linalg.norm(one.astype(float)) > 1e-30:
        assert pytest.approx(1.0) == cosine(one, one)


def test_two_texts_that_are_the_same_have_1(server: Server, tmp_path: Path) -> None:
    setting = Setting(embedder=lambda spec: EmbeddingsClient(spec, tmp_path))
    spec = Embedding(base_url=server.url, model="letters", api_key_variable=None)
    assert pytest.approx(1.0) == score(spec, "abc", "abc", setting).value
