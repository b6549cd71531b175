"""What a comparison may spend, and a verdict from recorded answers alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.told import PROMPTED, by_number

from unitune.errors import BackendError, Mismatch, OverBudget
from unitune.evaluate.compare import compare
from unitune.models import Request
from unitune.testing.loopback import VendorRequest, VendorResponse, serve


@by_number
def rule(_: int, *, told: bool) -> str:
    return "yes" if told else "no"


def closed(_name: str, _request: Request) -> str:
    raise BackendError("nobody was to be asked")


def test_a_replay_gives_the_same_verdict_and_asks_nobody(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(rule)
    asked = compare(make_job(PROMPTED), out=tmp_path / "out")
    shut = backend_of(closed)
    again = compare(make_job(PROMPTED), out=tmp_path / "out", replay=True)
    assert shut.log == []
    recorded = "120 of 120 answers were recorded before this call."
    same = {"created": again.created, "id": None, "notes": (recorded, *asked.notes)}
    assert asked.model_copy(update=same) == again


def test_a_replay_chooses_prompts_from_recorded_answers_too(
    compare_by: Any, tmp_path: Path
) -> None:
    evaluate = {"contenders": ["zero-shot", "few-shot", PROMPTED["contenders"][1]]}
    asked = compare_by(rule, evaluate, out=tmp_path / "out")
    assert (
        asked.baseline == compare_by(closed, evaluate, out=tmp_path / "out", replay=True).baseline
    )


def test_a_replay_can_be_scored_and_gated_otherwise(compare_by: Any, tmp_path: Path) -> None:
    compare_by(rule, PROMPTED, out=tmp_path / "out")
    other = PROMPTED | {"scorers": ["contains"], "gate": {"mode": "improve"}}
    again = compare_by(rule, other, out=tmp_path / "out", replay=True)
    assert again.metric == "contains"
    assert again.exit_code == 0


def test_a_replay_of_changed_cases_is_an_integrity_error(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(rule)
    compare(make_job(PROMPTED), out=tmp_path / "out")
    changed = make_job(PROMPTED, test=[(f"other {at}", "yes") for at in range(60)])
    with pytest.raises(Mismatch, match="60 of 60 questions have no recorded answer"):
        compare(changed, out=tmp_path / "out", replay=True)


class Recorder:
    """Serves chat completions that are always right."""

    def answer(self, _: VendorRequest) -> VendorResponse:
        message = {"role": "assistant", "content": "yes"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return VendorResponse({"id": "x", "object": "chat.completion", "choices": [choice]})


@pytest.fixture
def server_job(make_job: Any, backend_of: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A job whose candidate is on a server, and has been recorded as the model good."""
    backend_of(lambda _name, _request: "no")
    with serve(Recorder()) as server:

        def job(**changed: str) -> Any:
            candidate = {
                "type": "server",
                "role": "candidate",
                "name": "new",
                "url": f"{server.url}/v1",
                "model": "good",
                "prompt": "zero-shot",
            } | changed
            return make_job({"contenders": ["zero-shot", candidate], "gate": {"mode": "improve"}})

        assert compare(job(), out=tmp_path / "out").exit_code == 0
        yield job


@pytest.mark.parametrize("changed", [{"model": "never-asked"}, {"url": "http://127.0.0.1:9/v1"}])
def test_rows_of_another_model_than_the_job_names_are_refused(
    server_job: Any, tmp_path: Path, changed: dict[str, str]
) -> None:
    assert compare(server_job(), out=tmp_path / "out", replay=True).exit_code == 0
    with pytest.raises(
        Mismatch, match=r"The job's model is http.*but the rows are from http.*:good"
    ):
        compare(server_job(**changed), out=tmp_path / "out", replay=True)


def test_rows_of_another_base_are_refused(make_job: Any, backend_of: Any, tmp_path: Path) -> None:
    backend_of(rule)
    job = make_job(PROMPTED)
    compare(job, out=tmp_path / "out")
    other = job.model_copy(update={"model": "base-2"})
    with pytest.raises(Mismatch, match="fake:base-2, but the rows are from fake:base"):
        compare(other, out=tmp_path / "out", replay=True)


def edited(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], contender: str) -> None:
    """Change every other row of a contender."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [
        json.dumps(row | (change(row) if row["contender"] == contender and at % 2 else {}))
        for at, row in enumerate(rows)
    ]
    path.write_text("\n".join([*lines, ""]))


def forged(row: dict[str, Any]) -> dict[str, Any]:
    return {"model": "third", "request_hash": row["request_hash"][::-1]}


@pytest.mark.parametrize("change", [lambda _: {"model": "third"}, forged, lambda _: {"origin": ""}])
def test_rows_that_do_not_hold_together_are_refused(
    server_job: Any, tmp_path: Path, change: Any
) -> None:
    edited(tmp_path / "out" / "rows.jsonl", change, "new")
    with pytest.raises(Mismatch, match="30 of 60 questions have no recorded answer"):
        compare(server_job(), out=tmp_path / "out", replay=True)


def test_rows_of_one_contender_are_of_one_model(compare_by: Any, tmp_path: Path) -> None:
    """A base's fingerprint is not known from the job, but it is one."""
    compare_by(rule, PROMPTED, out=tmp_path / "out")
    edited(tmp_path / "out" / "rows.jsonl", forged, "zero-shot")
    with pytest.raises(Mismatch, match="of 60 questions have no recorded answer"):
        compare_by(rule, PROMPTED, out=tmp_path / "out", replay=True)


PRICES = {"base": {"input": 1, "output": 10}}


def test_a_budget_ends_the_asking_before_it_is_passed_and_more_of_it_goes_on(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    evaluate = PROMPTED | {"prices": PRICES, "budget": {"usd": "0.003"}, "max_tokens": 16}
    backend, rows = backend_of(rule), tmp_path / "out" / "rows.jsonl"
    with pytest.raises(OverBudget, match=r"The limit is \$0\.003"):
        compare(make_job(evaluate), out=tmp_path / "out")
    # 10 tokens asked and 2 answered cost $0.00003; what is set aside at most is $0.0003.
    assert 85 <= rows.read_text().count("\n") <= 100
    backend.requests.clear()
    compare(make_job(evaluate | {"budget": {"usd": "1"}}), out=tmp_path / "out")
    assert rows.read_text().count("\n") == 120
    assert len(backend.requests) <= 40


def test_an_answer_of_another_comparison_is_taken_when_it_is_to_be_recalled(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    backend_of(rule)
    compare(make_job(PROMPTED), out=tmp_path / "one")
    again = backend_of(rule)
    compare(make_job(PROMPTED), out=tmp_path / "two", use_cache=True)
    assert again.requests == []
    compare(make_job(PROMPTED), out=tmp_path / "three")
    assert len(again.requests) == 120


def test_batches_that_might_pass_the_budget_are_not_handed_in(
    make_job: Any, tmp_path: Path
) -> None:
    evaluate = PROMPTED | {"prices": PRICES, "budget": {"usd": "0.003"}}
    with pytest.raises(
        OverBudget, match=r"the answers in batches may cost up to .* Nothing was sent"
    ):
        compare(make_job(evaluate), out=tmp_path / "out", batch=True)
    assert not (tmp_path / "out" / "batches.jsonl").exists()
    enough = evaluate | {"budget": {"usd": "5"}}
    assert compare(make_job(enough), out=tmp_path / "out", batch=True).n == 60
