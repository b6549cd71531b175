"""General questions to tuned models and their untuned bases, beside the task."""

from __future__ import annotations

import json
import runpy
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sample_evidence import evidence
from support.trained_runs import trained, triage_job

from unitune.cost.documents import Line
from unitune.data.general_questions import MANNER, GeneralQuestion, general_questions, general_text
from unitune.errors import BackendError, OverBudget
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.history import read_comparison
from unitune.evaluate.inference.engine import AnswerOptions
from unitune.evaluate.retention import RetentionTask, text_contrast
from unitune.evaluate.statistics.paired import compare_paired
from unitune.evaluate.task import prepare
from unitune.evaluate.verdict.gate import apply
from unitune.job.evaluate import GENERAL_QUESTIONS, Evaluate, Gate
from unitune.job.job import Job
from unitune.models import Reply, Request, TextLoss
from unitune.planning.money import estimated
from unitune.planning.preflight import preflight
from unitune.render import terminal
from unitune.report.comparison import describe
from unitune.testing.fake import FakeChatModel

ROOT = Path(__file__).parents[3]
ASKED = 40
ECHOES = ("choosing", "reading", "letters", "instructions")
"""Categories whose questions may contain their answer."""


def general_job(folder: Path, before: range, after: range, right: int = 50, **evaluate: Any) -> Job:
    """Return a job whose base and tuned model know the answers of two ranges of questions."""
    job = triage_job(right, folder=folder)
    untuned = json.loads((folder / "vendor" / "untuned.json").read_text())
    untuned["replies"] |= answers(before)
    (folder / "vendor" / "untuned.json").write_text(json.dumps(untuned))
    script = {"tuned": {"replies": job.options["fake"]["tuned"]["replies"] | answers(after)}}  # type: ignore[index,operator]
    wanted = {"contenders": ["zero-shot", "tuned"], "retention": ASKED, **evaluate}
    dumped = {**job.model_dump(), "options": {"fake": script}, "evaluate": wanted}
    return Job.model_validate({**dumped, "folder": folder})


def answers(positions: range) -> dict[str, str]:
    asked = (general_questions()[at] for at in positions)
    return {f"{each.ask} {MANNER}": f"It is {each.accept[0]}." for each in asked}


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the questions that are sent, in a project with a vendor of its own."""
    requests: list[str] = []
    reply = FakeChatModel.reply

    async def noted(model: FakeChatModel, request: Request) -> Reply:
        requests.append(request.messages[-1].text)
        return await reply(model, request)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.setattr(FakeChatModel, "reply", noted)
    return requests


def general(sent: list[str]) -> list[str]:
    return [text for text in sent if text.endswith(MANNER)]


def test_the_shipped_questions_are_those_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "general_questions.py"))
    shipped, written = script["FILE"].read_text("utf-8"), list[str]()
    monkeypatch.setattr(Path, "write_text", lambda _, text, **__: written.append(text))
    script["main"]()
    assert written == [shipped]


def test_the_first_questions_have_all_categories_in_equal_shares() -> None:
    questions = general_questions()
    assert len(questions) == GENERAL_QUESTIONS == len({each.ask for each in questions})
    first = [each.category for each in questions[:100]]
    assert {first.count(each) for each in first} == {10}


@pytest.mark.parametrize("question", general_questions(), ids=lambda each: each.id)
def test_every_accepted_answer_is_right_and_the_question_is_not(question: GeneralQuestion) -> None:
    for accepted in question.accept:
        assert question.is_right(accepted)
        assert question.is_right(f"The answer is {accepted}.")
    assert not question.is_right("")
    assert not question.is_right("card_arrival")
    if question.category not in ECHOES:
        assert not question.is_right(question.ask)


def test_the_first_option_that_an_answer_names_counts() -> None:
    question = GeneralQuestion(id="a-1", ask="?", accept=("saw",), options=("saw", "goat"))
    assert question.is_right("A saw, not a goat.")
    assert not question.is_right("A goat, not a saw.")


def test_the_general_text_is_old_and_has_about_2000_tokens() -> None:
    years = [int(passage.source[-4:]) for passage in general_text()]
    assert max(years) < 1930
    words = sum(len(passage.text.split()) for passage in general_text())
    assert 1400 <= words <= 1700


def test_untuned_and_tuned_answers_are_compared_in_pairs(sent: list[str], tmp_path: Path) -> None:
    job = general_job(tmp_path, before=range(30), after=range(25, 35))
    trained(job)
    found = compare(job)
    assert len(general(sent)) == 2 * ASKED
    (result,) = found.retention
    paired = compare_paired([1.0] * 30 + [0.0] * 10, [0.0] * 25 + [1.0] * 10 + [0.0] * 5)
    questions = result.questions
    assert questions is not None
    assert (result.contender, result.base_model) == ("tuned", "base")
    assert (questions.n, result.gained, result.lost) == (ASKED, 5, 25)
    assert (questions.difference, questions.interval) == (paired.difference, paired.interval.ends)
    assert questions.p_adjusted == paired.p_value
    assert sum(n for n, _, _ in result.categories.values()) == ASKED
    assert sum(after for _, _, after in result.categories.values()) == 10
    assert (result.text, result.problem) == (None, "")
    assert read_comparison(found.folder).retention == found.retention  # type: ignore[arg-type]


def test_a_second_comparison_and_a_replay_send_no_request(sent: list[str], tmp_path: Path) -> None:
    job = general_job(tmp_path, before=range(30), after=range(25, 35))
    trained(job)
    first = compare(job)
    sent.clear()
    again = compare(job)
    replayed = compare(job, replay=True)
    assert sent == []
    assert first.retention == again.retention == replayed.retention


def test_more_questions_are_asked_in_addition_to_the_recorded_ones(
    sent: list[str], tmp_path: Path
) -> None:
    job = general_job(tmp_path, before=range(30), after=range(30))
    trained(job)
    compare(job)
    sent.clear()
    wider = job.model_copy(update={"evaluate": job.evaluate.model_copy(update={"retention": 60})})
    (result,) = compare(wider).retention
    assert len(general(sent)) == 2 * 20
    assert result.questions
    assert result.questions.n == 60


@pytest.mark.parametrize("retention", ["auto", False])
def test_models_of_a_vendor_are_asked_only_if_the_job_says_so(
    retention: Any, sent: list[str], tmp_path: Path
) -> None:
    job = general_job(tmp_path, before=range(3), after=range(3), retention=retention)
    trained(job)
    assert compare(job).retention == ()
    assert general(sent) == []


def test_a_vendors_unknown_price_of_the_untuned_model_stops_only_jobs_that_ask(
    tmp_path: Path,
) -> None:
    job = triage_job(50, folder=tmp_path)
    answers = [json.dumps({"case": "x", "answer": "yes"})]
    (tmp_path / "old.jsonl").write_text("\n".join(answers), encoding="utf-8")
    evaluate = {
        "contenders": [{"type": "recorded", "answers": "old.jsonl"}, "tuned"],
        "prices": {"tuned": {"input": 1, "output": 1}},
        "budget": {"usd": 1},
    }
    hosted = {"model": "unlisted", "backend": "openai", "options": {}}
    for retention in ("auto", True):
        asked = Evaluate.model_validate({**evaluate, "retention": retention})
        resolved = preflight(job.model_copy(update={**hosted, "evaluate": asked}))
        task = prepare(resolved)
        if retention == "auto":
            assert RetentionTask.of(resolved, {}, task, AnswerOptions(replay=False)) is None
            continue
        with pytest.raises(OverBudget, match="the price of untuned unlisted is unknown"):
            RetentionTask.of(resolved, {}, task, AnswerOptions())


def test_models_that_can_score_text_are_measured_by_default(
    sent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is no contender here, and is loaded for the questions alone."""
    scored: list[str] = []

    def text_losses(model: FakeChatModel, texts: Sequence[str]) -> list[TextLoss]:
        scored.append(model.fingerprint)
        more = 0.0 if model.fingerprint.startswith("fake:base") else 0.1
        return [TextLoss((2 + more) * len(text), len(text)) for text in texts]

    monkeypatch.setattr(FakeChatModel, "text_losses", text_losses, raising=False)
    other = {"type": "model", "backend": "fake", "model": "other", "role": "baseline"}
    contenders = [other | {"prompt": "zero-shot"}, "tuned"]
    job = general_job(tmp_path, range(30), range(10), retention="auto", contenders=contenders)
    trained(job)
    (result,) = compare(job).retention
    assert len(general(sent)) == 2 * 100
    assert result.questions
    assert result.questions.difference == pytest.approx(-0.2)
    text = result.text
    assert text
    assert (text.n, text.baseline, text.candidate) == pytest.approx((20, 2.0, 2.1))
    assert text.difference == pytest.approx(0.1)
    assert 0 < text.interval[0] < 0.1
    assert text.p_adjusted <= 0.001
    compare(job)
    assert len(scored) == len(set(scored)) == 2
    assert len(general(sent)) == 2 * 100


def test_the_losses_of_passages_are_weighted_by_their_tokens() -> None:
    """Computed by hand: (3 + 1) / (10 + 30) more nats per token."""
    before, after = np.array([[20.0, 10], [60.0, 30]]), np.array([[23.0, 10], [61.0, 30]])
    contrast = text_contrast(before, after)
    assert (contrast.baseline, contrast.candidate) == (2.0, 2.1)
    assert contrast.difference == pytest.approx(0.1)


def test_prompts_alone_and_a_preview_are_not_asked(sent: list[str], tmp_path: Path) -> None:
    job = general_job(tmp_path, before=range(3), after=range(3))
    trained(job)
    assert compare(job, limit=20).retention == ()
    prompts = ["zero-shot", {"type": "instructed", "role": "candidate"}]
    changed = job.evaluate.model_dump() | {"contenders": prompts}
    alone = job.model_copy(update={"evaluate": Evaluate.model_validate(changed)})
    assert compare(alone).retention == ()
    assert general(sent) == []


def test_the_budget_pays_for_the_test_first(sent: list[str], tmp_path: Path) -> None:
    prices = {name: {"input": 1, "output": 1} for name in ("tuned", "base")}
    job = general_job(
        tmp_path, before=range(30), after=range(30), prices=prices, budget={"usd": 0.01}
    )
    trained(job)
    found = compare(job)
    assert found.verdict == "better"
    assert general(sent) == []
    (result,) = found.retention
    assert result.questions is None
    assert "the answers to general questions may cost up to $0.0" in result.problem

    paid = compare(job.with_evaluation_budget(Decimal(1)))
    assert len(general(sent)) == 2 * ASKED
    assert paid.spent_usd is not None
    assert found.spent_usd is not None
    assert paid.spent_usd > found.spent_usd


def test_a_vendor_that_fails_leaves_the_verdict_alone(
    sent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = general_job(tmp_path, before=range(30), after=range(30))
    trained(job)
    reply = FakeChatModel.reply

    async def refused(model: FakeChatModel, request: Request) -> Reply:
        if request.messages[-1].text.endswith(MANNER) and model.fingerprint.startswith("fake:base"):
            return Reply.failed(BackendError("the model is not served here", status=404))
        return await reply(model, request)

    monkeypatch.setattr(FakeChatModel, "reply", refused)
    found = compare(job)
    (result,) = found.retention
    assert found.verdict == "better"
    assert result.questions is None
    assert "untuned base" in result.problem
    assert "the model is not served here" in result.problem
    assert sent


def test_unanswered_questions_are_left_out_on_both_sides(sent: list[str], tmp_path: Path) -> None:
    job = general_job(tmp_path, before=range(30), after=range(30))
    vendor = tmp_path / "vendor" / "untuned.json"
    untuned = json.loads(vendor.read_text())
    asked = general_questions()[0]
    untuned["errors"] = {asked.message.text: "the request was blocked"}
    vendor.write_text(json.dumps(untuned))
    trained(job)
    (result,) = compare(job).retention
    assert result.questions
    assert (result.questions.n, result.questions.candidate) == (ASKED - 1, 29 / 39)
    assert result.problem == (
        "untuned base did not answer 1 of 40 general questions. First reason: the request was "
        "blocked"
    )
    assert sent


def test_a_replay_of_older_answers_has_no_result(sent: list[str], tmp_path: Path) -> None:
    job = general_job(tmp_path, before=range(30), after=range(30), retention=False)
    trained(job)
    compare(job, out="answers")
    asking = job.model_copy(update={"evaluate": job.evaluate.model_copy(update={"retention": 40})})
    assert compare(asking, out="answers", replay=True).retention == ()
    assert not (tmp_path / "answers" / "general.jsonl").exists()
    assert general(sent) == []


def test_a_constraint_on_retention_is_a_reason_to_ask(sent: list[str], tmp_path: Path) -> None:
    gate = {
        "mode": "improve",
        "constraints": [{"metric": "retention", "at_least": -0.05}],
    }
    job = general_job(tmp_path, range(30), range(10), retention="auto", gate=gate)
    trained(job)
    found = compare(job)
    assert len(general(sent)) == 2 * 100
    assert found.gate is not None
    assert (found.gate.exit_code, found.verdict) == (1, "better")
    assert "The candidate's retention is -0.2; the gate requires at least -0.05." in (
        found.gate.reason
    )


@pytest.mark.parametrize(("loss", "code"), [(0.04, 0), (0.06, 1), (None, 4)])
def test_a_constraint_on_the_general_loss(loss: float | None, code: int) -> None:
    gate = Gate.model_validate(
        {"mode": "improve", "constraints": [{"metric": "general_loss", "at_most": 0.05}]}
    )
    given = evidence(verdict="better")
    given.retained.update({} if loss is None else {"general_loss": loss})
    assert apply(gate, given).exit_code == code


def test_a_constraint_without_its_measurement_is_refused() -> None:
    gate = {"mode": "improve", "constraints": [{"metric": "retention", "at_least": -0.05}]}
    with pytest.raises(ValueError, match="names 'retention', but retention is false"):
        Evaluate.model_validate({"gate": gate, "retention": False})


@pytest.mark.parametrize("retention", [0, 1, 19, 301, "always"])
def test_other_numbers_of_questions_are_refused(retention: Any) -> None:
    with pytest.raises(ValueError, match="retention"):
        Evaluate.model_validate({"retention": retention})


def test_a_significant_loss_is_in_the_first_lines(sent: list[str], tmp_path: Path) -> None:
    job = general_job(tmp_path, before=range(30), after=range(10))
    trained(job)
    found = compare(job)
    document = describe(found)
    loss = (
        "Tuning changed the model beyond this task: 25.0 % of 40 general questions right, "
        "75.0 % before tuning (-50.0 points, -"
    )
    assert loss in document.text
    assert sent
    several = found.model_copy(update={"retention": found.retention * 2})
    assert "beyond this task: tuned has 25.0 % of 40" in describe(several).text


def test_no_significant_loss_is_a_line_further_down(sent: list[str], tmp_path: Path) -> None:
    job = general_job(tmp_path, before=range(30), after=range(29))
    trained(job)
    document = describe(compare(job))
    assert "general questions" not in document.text
    (section,) = (each for each in document.sections if each.title == "General ability")
    assert str(section.parts[0]).startswith("No change shown: 72.5 % of 40 general questions right")
    assert "No change shown" in terminal.text(document)
    assert sent


def test_the_estimate_of_a_vendor_has_their_tokens(tmp_path: Path) -> None:
    lines: dict[Any, list[Line]] = {}
    for retention in (ASKED, "auto"):
        job = general_job(tmp_path, range(3), range(3), retention=retention)
        hosted = {"model": "gpt-4.1-mini", "backend": "openai", "options": {}}
        lines[retention] = estimated(preflight(job.model_copy(update=hosted))).of("evaluation")
    tokens = [
        {line.what: line.tokens.low for line in each if line.tokens} for each in lines.values()
    ]
    assert tokens[0]["zero-shot"] == tokens[1]["zero-shot"]
    assert tokens[0]["tuned"] - tokens[1]["tuned"] == 2 * ASKED * 21
