"""Choosing on dev: every row counts, errors choose nothing, a search asks as little as it can."""

from __future__ import annotations

from typing import Any

from unitune.data.check import read_job
from unitune.evaluate.compare import compare
from unitune.evaluate.task import dev_rows
from unitune.models import Request


def dev_row(request: Request) -> int | None:
    """Return the number of a dev row; None for a test case."""
    question = request.messages[-1].text
    return int(question.split()[1]) if question.startswith("dev") else None


TWO = {
    "contenders": [
        {"type": "zero-shot"},
        {"type": "instructed", "instructions": "TOLD"},
        {"type": "few-shot", "role": "candidate", "shots": 2},
    ],
    "gate": {"mode": "improve", "min_cases": 1},
}


def test_errors_on_dev_choose_nothing_and_a_rerun_asks_only_those(
    make_job: Any, backend_of: Any
) -> None:
    """A baseline that is right wherever it answers fails on 2 of 60 dev rows, more than 2 %."""
    healthy = False

    def rule(_model: str, request: Request) -> str:
        instructed = "TOLD" in request.messages[0].text
        if instructed and not healthy and dev_row(request) in (7, 9):
            return "ERROR 400 misrouted"
        return "yes" if instructed or len(request.messages) > 2 else "no"

    backend = backend_of(rule)
    job = make_job(TWO, dev=[(f"dev {at}", "yes") for at in range(60)])
    found = compare(job)
    assert (found.verdict, found.exit_code) == ("inconclusive", 4)
    refusal = "instructed: 2 of 60 dev rows with instructions ended in an error, more than 2 %"
    assert found.doubt is not None
    assert found.doubt.startswith(refusal)
    assert "First reason: ERROR 400 misrouted" in found.doubt
    checks = {check.name: check for check in found.gate.checks}
    assert (4, found.doubt) == (checks["dev errors"].exit_code, checks["dev errors"].reason)
    healthy = True
    backend.requests.clear()
    found = compare(job)
    assert [rival.name for rival in found.baselines if rival.best_on_dev] == ["instructed"]
    again = [row for request in backend.requests if (row := dev_row(request)) is not None]
    assert sorted(again) == [7, 9]
    checks = {check.name: check.reason for check in found.gate.checks}
    assert checks["dev errors"] == "0 of 360 dev answers ended in an error."


def test_few_errors_on_dev_are_told(compare_by: Any) -> None:
    found = compare_by(
        lambda _model, request: "ERROR busy" if dev_row(request) == 7 else "yes",
        TWO,
        dev=[(f"dev {at}", "yes") for at in range(60)],
    )
    note = (
        "Dev answers with an error, which count as wrong: zero-shot 1 of 60, instructed 1 "
        "of 60, few-shot 4 of 240."
    )
    assert note in found.notes
    checks = {check.name: check.reason for check in found.gate.checks}
    assert checks["dev errors"] == "6 of 360 dev answers ended in an error."


def test_answers_that_were_cut_off_on_dev_are_told(compare_by: Any) -> None:
    """An answer of "ye" might have become "yes"."""

    def rule(_model: str, request: Request) -> str:
        row = dev_row(request)
        return "CUTye" if row is not None and row < 9 else "yes"

    found = compare_by(rule, TWO, dev=[(f"dev {at}", "yes") for at in range(60)])
    assert (
        "Dev answers cut off at max_tokens: zero-shot 9 of 60, instructed 9 of 60, few-shot 36 of "
        "240. They may have caused the choice of a weaker prompt or run; raise evaluate.max_tokens."
    ) in found.notes


def test_errors_of_a_reference_on_dev_stop_nothing(compare_by: Any) -> None:
    reference = {"type": "few-shot", "name": "shots", "role": "reference", "shots": 2}
    found = compare_by(
        lambda _model, request: "ERROR" if "shown" in request.messages[0].text else "yes",
        {**TWO, "contenders": [*TWO["contenders"], reference]},
    )
    assert len(found.contenders) == 4


def test_all_dev_rows_count_and_the_search_asks_them_of_its_best_alone(
    make_job: Any, backend_of: Any
) -> None:
    """Of 150 rows the last 50 decide; six prompts are asked 100 of them, and three go on."""
    backend = backend_of(lambda _model, _request: "yes")
    job = make_job(
        {"contenders": ["zero-shot", {"type": "few-shot", "role": "candidate"}]},
        dev=[(f"dev {at}", "yes") for at in range(150)],
    )
    found = compare(job)
    dev = [request for request in backend.requests if dev_row(request) is not None]
    assert len(dev) == 6 * 100 + 3 * 50
    assert "tried 6 prompts on 100 dev rows, the best 3 on all 150 (" in found.contenders[1].effort


def test_the_rows_after_the_screening_can_turn_the_choice(make_job: Any, backend_of: Any) -> None:
    """With instructions 60 of the first 100 rows are right and no more; without, all others."""
    few_shot = {"type": "few-shot", "role": "candidate", "shots": 4, "choose": "random"}
    job = make_job(
        {"contenders": ["zero-shot", few_shot]}, dev=[(f"dev {at}", "yes") for at in range(150)]
    )
    order = [row.prompt[-1].text for row in dev_rows(read_job(job).splits.validation)]

    def rule(_model: str, request: Request) -> str:
        bare = request.messages[0].text == "You sort mail."
        return "no" if bare is (request.messages[-1].text in order[:60]) else "yes"

    backend_of(rule)
    assert "chose 4 shots without instructions, 60.0 % right" in compare(job).contenders[1].effort
