"""A judge as a reward of sampled answers: its requests, record, budget and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from pydantic import JsonValue
from support.rewarded_rows import loss_of, prompts_of
from support.tiny_model import write_rows
from support.tuned_here import local_job

from unitune.cli.consent import confirm_training
from unitune.cost.documents import Line
from unitune.data.dataset import Dataset
from unitune.data.example import Example, Message
from unitune.errors import BackendError, OverBudget, UserError
from unitune.job.job import Job, TokenPrice
from unitune.planning.plan import plan
from unitune.planning.preflight import preflight
from unitune.scorers.interface import Score
from unitune.scorers.judge import Judge
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune_local.data.rows import read_rows
from unitune_local.forecasting.forecast import forecast
from unitune_local.grading import AT_ONCE, Group, Judgements, Reward, RewardGrader, read_judgements
from unitune_local.job_folder import JobFolder
from unitune_local.training.worker import environment, judge_keys

CASE = Example.model_validate({"messages": [{"role": "user", "content": "Where is my card?"}]})
RUBRIC = ["It is polite.", "It names a step."]
PRICES = {"judge": TokenPrice(input=Decimal(100), output=Decimal(1000))}
Keep: TypeAlias = Callable[..., Judgements]
ANSWER = re.compile(r"\[begin answer \w+\]\n(.*?)\n\[end answer", re.DOTALL)


@dataclass
class JudgeServer:
    """Passes the first clause always, and the second one of answers with a letter."""

    replies: list[VendorResponse] = field(default_factory=list[VendorResponse])
    judged: list[str] = field(default_factory=list[str])
    keys: set[str | None] = field(default_factory=set[str | None])

    def answer(self, request: VendorRequest) -> VendorResponse:
        body: Any = request.json
        self.keys.add(request.headers.get("authorization"))
        (text,) = ANSWER.findall(body["messages"][-1]["content"])
        self.judged.append(text)
        if self.replies:
            return self.replies.pop(0)
        verdicts = ["pass", "pass" if text[:1].isalpha() else "fail"]
        said = {
            f"clause_{at}": {"reasons": f"r{at}", "verdict": verdict}
            for at, verdict in enumerate(verdicts, 1)
        }
        return reply(json.dumps(said))


def reply(text: str) -> VendorResponse:
    choice: JsonValue = {"message": {"content": text}, "finish_reason": "stop"}
    usage: JsonValue = {"prompt_tokens": 300, "completion_tokens": 20}  # $0.05 with `PRICES`
    return VendorResponse({"choices": [choice], "usage": usage})


@pytest.fixture
def keep() -> Iterator[Keep]:
    """Opens judgements that are closed after the test."""
    with ExitStack() as stack:
        yield lambda *args: stack.enter_context(Judgements(*args))


@pytest.fixture
def serving() -> Iterator[tuple[JudgeServer, Server]]:
    vendor = JudgeServer()
    with serve(vendor) as server:
        yield vendor, server


def judge(server: Server, **options: Any) -> Judge:
    return Judge.model_validate(
        {"url": f"{server.url}/v1", "model": "m", "rubric": RUBRIC, "max_tokens": 100} | options
    )


def graded(scorer: Judge, made: Judgements, *texts: str) -> list[Score]:
    tokenizer: Any = None
    reward = Reward.of(scorer, judgements=made)
    ((scores,),) = RewardGrader(tokenizer, [reward], made).grade([Group(CASE, texts)])
    return scores


def test_a_reward_is_the_share_of_clauses_and_equal_answers_are_judged_once(
    serving: tuple[JudgeServer, Server], tmp_path: Path, keep: Keep
) -> None:
    vendor, server = serving
    made = keep(tmp_path / "judgements.jsonl", PRICES)
    scores = graded(judge(server), made, "yes", "7", "yes")
    assert scores == [Score(1.0, "r1; r2"), Score(0.5, "r1; r2"), Score(1.0, "r1; r2")]
    assert sorted(vendor.judged) == ["7", "yes"]
    assert made.figures() == {"judge_requests": 2, "judge_usd": 0.1, "judge_failed": 0.0}


def test_named_steps_have_equal_distances(
    serving: tuple[JudgeServer, Server], tmp_path: Path, keep: Keep
) -> None:
    vendor, server = serving
    scale = judge(server, rubric=["It is right."], scale=["wrong", "incomplete", "right"])
    vendor.replies.append(reply('{"clause_1": {"reasons": "r", "verdict": "incomplete"}}'))
    assert graded(scale, keep(tmp_path / "j", {}), "a") == [Score(0.5, "r")]


def test_a_resumed_training_requests_no_judgement_twice(
    serving: tuple[JudgeServer, Server], tmp_path: Path, keep: Keep
) -> None:
    """Also one whose last line was cut off by a kill, and a new run next to it."""
    vendor, server = serving
    own = tmp_path / "r1" / "r1-1" / "judgements.jsonl"
    own.parent.mkdir(parents=True)
    first = keep(own, PRICES)
    before = graded(judge(server), first, "a", "7")
    own.write_bytes(own.read_bytes() + b'\n{"key": "cut')
    again = keep(own, PRICES)
    assert graded(judge(server), again, "a", "7", "b")[:2] == before
    assert sorted(vendor.judged) == ["7", "a", "b"]
    assert again.figures()["judge_usd"] == pytest.approx(0.15)
    other = keep(tmp_path / "r2" / "judgements.jsonl", PRICES, Decimal(0), [own])
    assert graded(judge(server), other, "a", "b")
    assert (len(vendor.judged), other.figures()["judge_usd"]) == (3, 0.0)


def test_a_reply_without_verdict_is_no_reward_but_costs_money(
    serving: tuple[JudgeServer, Server], tmp_path: Path, keep: Keep
) -> None:
    vendor, server = serving
    vendor.replies.append(reply("I would rather not."))
    made = keep(tmp_path / "judgements.jsonl", PRICES)
    (score,) = graded(judge(server), made, "a")
    assert (score.failed, "gave no verdict" in score.reason) == (True, True)
    assert made.figures() == {"judge_requests": 1, "judge_usd": 0.05, "judge_failed": 1.0}
    assert graded(judge(server), made, "a") == [score]
    assert len(vendor.judged) == 1


def test_a_judge_that_refuses_pauses_the_training_and_is_asked_again_later(
    serving: tuple[JudgeServer, Server], tmp_path: Path, keep: Keep
) -> None:
    vendor, server = serving
    vendor.replies.append(VendorResponse({"error": {"message": "no credit"}}, 402))
    made = keep(tmp_path / "judgements.jsonl", PRICES)
    with pytest.raises(BackendError, match=r"the judge 'judge' did not answer: .*no credit"):
        graded(judge(server), made, "a")
    assert read_judgements(tmp_path / "judgements.jsonl")[0] == []
    later = keep(tmp_path / "judgements.jsonl", PRICES)
    assert graded(judge(server), later, "a")[0].value == 1.0


def test_all_processes_of_a_training_share_its_budget(
    serving: tuple[JudgeServer, Server], tmp_path: Path, keep: Keep
) -> None:
    """A request may cost $0.20 or so and costs $0.05, so the fifth one could exceed $0.36."""
    vendor, server = serving
    file = tmp_path / "judgements.jsonl"
    one, two = (keep(file, PRICES, Decimal("0.36")) for _ in range(2))
    for at in range(2):
        graded(judge(server), one, f"a{at}")
        graded(judge(server), two, f"b{at}")
    with pytest.raises(BackendError, match=r"\$0.200000 of the budget of \$0.36 is spent"):
        graded(judge(server), two, "c")
    assert len(vendor.judged) == 4
    assert graded(judge(server), one, "b1")[0].value == 1.0
    assert len(vendor.judged) == 4


def test_requests_are_sent_at_the_same_time_but_not_all(tmp_path: Path, keep: Keep) -> None:
    vendor = JudgeServer()
    with serve(vendor) as server:
        made = keep(tmp_path / "judgements.jsonl", {})
        assert len(graded(judge(server), made, *map(str, range(3 * AT_ONCE)))) == 3 * AT_ONCE


def test_the_key_of_a_judge_is_the_only_one_that_a_training_gets(
    serving: tuple[JudgeServer, Server],
    tmp_path: Path,
    keep: Keep,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vendor, server = serving
    monkeypatch.setenv("JUDGE_API_KEY", "secret-of-the-judge")
    monkeypatch.setenv("OTHER_API_KEY", "another-secret")
    with_key = judge(server, api_key_variable="JUDGE_API_KEY")
    spec: dict[str, Any] = {
        "rewards": [{"scorer": with_key.model_dump(mode="json")}, {"scorer": {}}]
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert judge_keys(JobFolder(tmp_path)) == []  # a job alone cannot give a key to its own code
    with pytest.raises(UserError, match="which you have not allowed"):
        graded(with_key, keep(tmp_path / "j", {}), "a")
    monkeypatch.setenv("UNITUNE_ALLOW_KEYS", f"JUDGE_API_KEY@{server.url}")
    given = environment(1, keys=judge_keys(JobFolder(tmp_path)))
    assert given["JUDGE_API_KEY"] == "secret-of-the-judge"
    assert "OTHER_API_KEY" not in given
    assert graded(with_key, keep(tmp_path / "j", {}), "a")
    assert vendor.keys == {"Bearer secret-of-the-judge"}


def test_steps_show_the_figures_of_the_judge(
    serving: tuple[JudgeServer, Server], tiny_model: Path, tmp_path: Path, keep: Keep
) -> None:
    _, server = serving
    objective = loss_of(tiny_model)
    made = keep(tmp_path / "judgements.jsonl", PRICES)
    grader = RewardGrader(
        objective.rollouts.grader.tokenizer, [Reward.of(judge(server), judgements=made)], made
    )
    object.__setattr__(objective.rollouts, "grader", grader)
    figures = objective.prepare(prompts_of(tiny_model)[:2], 1).figures
    assert 0.5 <= figures["reward"] <= 1.0
    assert figures["judge_usd"] == pytest.approx(0.05 * figures["judge_requests"])


def rewarded(**options: Any) -> Job:
    scorer = {"type": "judge", "model": "m", "url": "http://127.0.0.1:9/v1", "rubric": RUBRIC}
    evaluate = {"prices": options.pop("prices")} if "prices" in options else {}
    tuning = {"epochs": 2, "reward": {"scorers": {**scorer, **options}}}
    return local_job(method="rft", tuning=tuning, evaluate=evaluate)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rubric": [], "compare": "better"}, "a reward is the value of one answer"),
        ({"url": None, "backend": "openai"}, "has no key of the backend openai"),
    ],
)
def test_a_judge_that_cannot_reward_is_refused(
    tiny_model: Path, tmp_path: Path, options: dict[str, Any], why: str
) -> None:
    rows = read_rows(write_rows(tmp_path / "train.jsonl", 4))
    empty = Dataset("validation.jsonl", ())
    (finding,) = forecast(rewarded(**options), tiny_model, rows, empty).summary.findings
    assert (finding.code, finding.severity) == ("reward", "error")
    assert why in finding.message


def lines_of(job: Job, folder: Path) -> list[Line]:
    write_rows(folder / "train.jsonl", 40)
    made = plan(job.model_copy(update={"folder": folder, "model": "smollm2-135m-instruct"}))
    assert made.estimate is not None
    return list(made.estimate.lines)


def test_the_plan_counts_the_judge_up_to_the_budget(tmp_path: Path) -> None:
    prices = {"judge": {"input": 10, "output": 10}}
    training, judging = lines_of(rewarded(prices=prices), tmp_path)
    assert (training.item, training.usd and training.usd.high) == ("training", 0)
    assert judging.usd is not None
    assert 0 < judging.usd.low < judging.usd.expected < judging.usd.high
    budget = judging.usd.expected + 1
    _, limited = lines_of(rewarded(prices=prices).with_budget(budget), tmp_path)
    assert limited.usd is not None
    assert limited.usd.high == budget


def test_a_judge_without_a_price_has_an_unknown_cost(tmp_path: Path) -> None:
    (_, judging) = lines_of(rewarded(), tmp_path)
    assert judging.usd is None
    assert "set its price under evaluate.prices" in judging.because


@pytest.mark.parametrize(
    ("price", "charge", "asks"),
    [(10, "estimated", True), (0, "estimated", False), (None, "unknown", False)],
)
def test_only_a_judge_with_a_price_is_confirmed(
    tmp_path: Path, price: float | None, charge: str, *, asks: bool
) -> None:
    """As for a comparison, own servers cost money only if the job has their price."""
    write_rows(tmp_path / "train.jsonl", 40)
    known = {} if price is None else {"prices": {"judge": {"input": price, "output": price}}}
    job = rewarded(**known).model_copy(
        update={"folder": tmp_path, "model": "smollm2-135m-instruct"}
    )
    assert plan(job).charge == charge
    with pytest.raises(OverBudget, match="costs money") if asks else nullcontext():
        confirm_training(preflight(job), allow_unpriced=False)
    if price is None:
        (error,) = plan(job.with_budget(Decimal(1))).errors
        assert "the price of the judge 'judge' is unknown" in error.message


def test_a_judge_sees_the_calls_of_answers(
    serving: tuple[JudgeServer, Server], tmp_path: Path, keep: Keep
) -> None:
    vendor, server = serving
    looks: dict[str, JsonValue] = {"name": "look", "arguments": "{}"}
    call: dict[str, JsonValue] = {"id": "c", "type": "function", "function": looks}
    turn = Message(role="assistant", content="Let me look.", tool_calls=(call,))
    made = keep(tmp_path / "judgements.jsonl", PRICES)
    Reward.of(judge(server), judgements=made).grade(CASE, ["Let me look."], [[turn]])
    assert vendor.judged == [f"Let me look.\n(calls the tool {json.dumps(looks)})"]
