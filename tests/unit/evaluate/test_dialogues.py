"""Cases of several turns with tools: the loop, its records, scores and plan."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.agents import AgentServer, duel, refund_job, row, with_shots

from unitune.data.labels import answers_digest
from unitune.errors import JobError, OverBudget, Unsupported
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference.journal import read_record
from unitune.evaluate.readiness import check
from unitune.evaluate.review.figures import preference_rows
from unitune.evaluate.review.queue import Review
from unitune.job.job import Job
from unitune.planning.forecasts import forecast_evaluation
from unitune.planning.preflight import preflight
from unitune.report.files import write_report
from unitune.testing.loopback import Fault, Server, serve
from unitune.ui.pages import Visit
from unitune.ui.review import ReviewPages


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(AgentServer()) as server:
        yield server


def agent(server: Server) -> AgentServer:
    assert isinstance(server.vendor, AgentServer)
    return server.vendor


def compared(folder: Path, server: Server, **options: Any) -> Comparison:
    evaluate = options.pop("evaluate", {})
    return compare(refund_job(folder, f"{server.url}/v1", **evaluate), **options)


def figures(found: Comparison, contender: str) -> dict[str, float | None]:
    (result,) = (each for each in found.contenders if each.name == contender)
    return {"score": result.score, **result.measures}


def test_a_dialogue_calls_tools_until_it_answers(tmp_path: Path, server: Server) -> None:
    found = compared(tmp_path, server)
    careful, hasty = (figures(found, name) for name in ("careful", "hasty"))
    assert (careful["score"], hasty["score"]) == (1.0, 0.0)
    # 20 orders take look, refund and answer; 10 do not exist and take look and answer
    assert pytest.approx((20 * 3 + 10 * 2) / 30) == careful["turns"]
    assert (careful["tool_errors"], hasty["turns"]) == (0.0, 2.0)
    assert found.verdict == "better"
    answer = found.cases[1].answers["careful"]
    assert answer.text == "I refunded 11 for A1."
    assert answer.trajectory is not None
    assert [turn.role for turn in answer.trajectory.messages] == [
        *("assistant", "tool") * 2,
        "assistant",
    ]
    assert found.cases[1].messages[-1].text == "Refund order A1.", "no expected turn is shown"
    sent = [json.loads(body) for body in agent(server).seen]
    assert len(sent) == 20 * 3 + 10 * 2 + 30 * 2
    assert set(agent(server).seen.values()) == {1}
    longest = next(body for body in sent if len(body["messages"]) == 5)
    assert [turn["role"] for turn in longest["messages"]] == [
        "user",
        *("assistant", "tool") * 2,
    ]
    assert longest["messages"][2]["tool_call_id"] == longest["messages"][1]["tool_calls"][0]["id"]
    assert json.loads(longest["messages"][4]["content"])["refunded"] > 0, "the function ran"


def test_tokens_of_all_turns_are_counted(tmp_path: Path, server: Server) -> None:
    """A message takes ten tokens; the first case has two prompts and the second three."""
    prices = {"prices": {"careful": {"input": 1, "output": 1}, "hasty": {"input": 0, "output": 0}}}
    found = compared(tmp_path, server, evaluate={"cases": 2, **prices})
    (careful,) = (each for each in found.contenders if each.name == "careful")
    assert (careful.prompt_tokens, careful.completion_tokens) == (10 * (4 + 9), 5 * 5)
    assert pytest.approx((130 + 25) / 1e6) == float(careful.usd or 0)


def test_a_dialogue_that_reaches_max_turns_is_scored_and_marked(
    tmp_path: Path, server: Server
) -> None:
    contenders = duel(f"{server.url}/v1", "hasty", "looping")
    superset = {"type": "trajectory", "match": "superset"}
    scorers = [superset, {**superset, "name": "with_answer", "answer": "exact"}]
    evaluate = {"contenders": contenders, "scorers": scorers, "cases": 6}
    found = compared(tmp_path, server, evaluate=evaluate)
    for case in found.cases:
        answer = case.answers["looping"]
        assert answer.trajectory is not None
        assert answer.trajectory.end == "ended at max_turns"
        assert answer.trajectory.turns == 4
        assert answer.error is None
        assert answer.scores["with_answer"] == 0
    missing = found.cases[0].answers["looping"]
    assert missing.scores["trajectory"] == 1, "an order that does not exist needs one look"
    assert len(agent(server).seen) == 6 * 4 + 6 * 2, "no request after the last turn"


def test_calls_without_a_result_get_an_error_as_their_result(
    tmp_path: Path, server: Server
) -> None:
    """Results of get_order are not recorded in this file, so the row's own are used."""
    (tmp_path / "orders.jsonl").write_text(
        json.dumps({"arguments": {"order": "A1"}, "result": {"error": "closed"}}) + "\n"
    )
    tools = {"refund": "tools.py:refund", "get_order": "orders.jsonl"}
    found = compared(tmp_path, server, evaluate={"cases": 3, "dialogue": {"tools": tools}})
    closed, own = (found.cases[at].answers["careful"] for at in (1, 2))
    assert (closed.text, own.text) == ("There is no order A1.", "I refunded 12 for A2.")


def test_a_resumed_comparison_asks_no_turn_twice(tmp_path: Path, server: Server) -> None:
    """A vendor that refuses the key in the middle of the second turn ends the first comparison."""
    (tmp_path / "calls").touch()
    code = "from pathlib import Path\nCALLS = Path(__file__).with_name('calls')\n"
    code += "def refund(order, amount):\n    with CALLS.open('a') as file:\n"
    code += (
        "        file.write('x')\n    return {'refunded': amount, 'n': len(CALLS.read_text())}\n"
    )
    job = refund_job(tmp_path, f"{server.url}/v1")
    (tmp_path / "tools.py").write_text(code)
    first = compare(job)
    ran, asked = (tmp_path / "calls").read_text(), len(server.requests)
    assert len(ran) == 20 + 30, "one call per refund"
    again = compare(job)
    assert (tmp_path / "calls").read_text() == ran, "results are recorded"
    assert len(server.requests) == asked
    assert first.cases == again.cases
    replayed = compare(job, replay=True)
    assert replayed.cases == first.cases
    assert first.folder is not None
    lines = (first.folder / "rows.jsonl").read_bytes().splitlines()
    assert len({(r.contender, r.case, r.request_hash) for r in map(read_record, lines)}) == asked


def test_a_failed_turn_is_requested_again_without_those_before(
    tmp_path: Path, server: Server
) -> None:
    evaluate = {"cases": 4, "concurrency": 1}
    server.inject_fault(Fault.EXPIRED_KEY, "POST", "/chat/completions")
    found = compared(tmp_path, server, evaluate=evaluate)
    assert sum(each.errors for each in found.contenders) == 1
    whole = compared(tmp_path, server, evaluate=evaluate)
    assert sum(each.errors for each in whole.contenders) == 0
    assert set(agent(server).seen.values()) == {1}


def test_user_functions_see_the_trajectory(tmp_path: Path, server: Server) -> None:
    scorers = [{"type": "python", "function": "score.py:calls"}]
    (tmp_path / "score.py").write_text(
        "def calls(answer, case, trajectory):\n"
        "    names = [c['function']['name'] for t in trajectory for c in t.tool_calls or ()]\n"
        "    return names == ['get_order', 'refund'] and trajectory[-1].text == answer\n"
    )
    found = compared(tmp_path, server, evaluate={"scorers": scorers, "cases": 6})
    assert figures(found, "careful")["score"] == pytest.approx(4 / 6)
    assert figures(found, "hasty")["score"] == 0


@pytest.mark.parametrize(
    ("evaluate", "words"),
    [
        ({"dialogue": None}, "set evaluate.dialogue, or use tool_calls"),
        ({"scorers": ["tool_calls"]}, "use trajectory for those of a dialogue"),
        ({"dialogue": {"tools": {"refund": "tools.py:refunds"}}}, "tools.py has no function 'ref"),
        ({"dialogue": {"tools": {"pay": "tools.py:refund"}}}, "no test case offers this tool"),
        ({"dialogue": {"tools": {"refund": "none.jsonl"}}}, r"none\.jsonl: the results of the too"),
        ({"dialogue": {"tools": {"refund": "bad.jsonl"}}}, r"bad\.jsonl:2 has another result of r"),
        (
            {"dialogue": {"tools": {"refund": "test.jsonl"}}},
            r"test\.jsonl:1 is not a recorded resu",
        ),
        ({"scorers": [{"type": "trajectory", "answer": "length"}]}, "answer cannot be length"),
        (
            {"contenders": [{"type": "recorded", "answers": "a.jsonl"}, "zero-shot"]},
            "'trajectory' reads several turns, but 'recorded' has recorded answers of one turn",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_any_request(
    tmp_path: Path, server: Server, evaluate: dict[str, Any], words: str
) -> None:
    lines = ('{"arguments": {"a": 1}, "result": "x"}', '{"arguments": {"a": 1.0}, "result": "y"}')
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    with pytest.raises(JobError, match=words):
        compared(tmp_path, server, evaluate=evaluate)
    assert not server.requests


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tuning": {"best_by": "score"}}, r"'trajectory' decides, which reads dialogues.*by to l"),
        (
            {"data": {"test": "test.jsonl", "personal_data": "redact"}},
            r"results of evaluate\.dialogue\.tools are sent unredacted",
        ),
    ],
)
def test_a_job_that_contradicts_its_dialogue_is_refused(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    path = refund_job(tmp_path, "http://127.0.0.1:1/v1").folder / "unitune.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(JobError, match=words):
        Job.load(path)


@pytest.mark.parametrize(
    ("reward", "dialogue", "words"),
    [
        ("trajectory", None, "'trajectory' reads several turns; set evaluate.dialogue"),
        ("tool_calls", {}, "'tool_calls' reads the calls of a single answer; use trajectory"),
    ],
)
def test_a_reward_reads_the_turns_that_are_sampled(
    tmp_path: Path, reward: str, dialogue: dict[str, Any] | None, words: str
) -> None:
    refund_job(tmp_path, "http://127.0.0.1:1/v1", scorers=["exact"], dialogue=dialogue)
    content = json.loads((tmp_path / "unitune.yaml").read_text())
    content |= {"method": "rft", "tuning": {"reward": {"scorers": [{"type": reward}]}}}
    (tmp_path / "unitune.yaml").write_text(json.dumps(content))
    with pytest.raises(JobError, match=words):
        Job.load(tmp_path / "unitune.yaml")


def test_dev_rows_use_their_own_results(tmp_path: Path, server: Server) -> None:
    """Ids of dev rows may be those of test cases."""
    rows = [{**row(at), "id": f"case-{at - 100}"} for at in range(100, 160)]
    found = compare(with_shots(refund_job(tmp_path, f"{server.url}/v1", cases=60), rows))
    assert found.folder is not None
    dev = (found.folder / "dev.jsonl").read_text()
    assert "refunded" in dev
    assert "no result is recorded" not in dev


def test_batches_are_refused(tmp_path: Path, server: Server) -> None:
    with pytest.raises(Unsupported, match="needs the answer before it"):
        compared(tmp_path, server, batch=True)


def test_the_cache_has_whole_conversations(tmp_path: Path, server: Server) -> None:
    first = compared(tmp_path, server, evaluate={"cases": 6}, out=tmp_path / "one")
    asked = len(server.requests)
    again = compared(tmp_path, server, evaluate={"cases": 6}, out=tmp_path / "two", use_cache=True)
    assert len(server.requests) == asked
    assert again.cases == first.cases


def test_a_report_folds_the_trajectory_and_quotes_it_as_data(
    tmp_path: Path, server: Server
) -> None:
    evil = "<script>alert(1)</script>"
    line = {"arguments": {"order": "A1"}, "result": {"amount": 11, "note": evil}}
    (tmp_path / "orders.jsonl").write_text(json.dumps(line))
    tools = {"refund": "tools.py:refund", "get_order": "orders.jsonl"}
    found = compared(tmp_path, server, evaluate={"cases": 2, "dialogue": {"tools": tools}})
    (tmp_path / "report").mkdir()
    text = write_report(found, tmp_path / "report").read_text()
    assert evil not in text
    heading = "<summary><b>turns: 3, tool errors: 0</b>"
    folded = re.search(rf"<details[^>]*>{heading}.*?</details>", text, re.DOTALL)
    assert folded is not None
    shown = html.unescape(folded[0])
    assert 'call: {"name": "refund", "arguments": "{\\"order\\": \\"A1\\"' in shown
    assert "alert(1)" in shown
    assert 'assistant: "I refunded 11 for A1."' in shown


def test_a_plan_counts_one_to_max_turns_requests_per_case(tmp_path: Path, server: Server) -> None:
    """Expected are the turns of the rows: on average 2.7, so 3."""
    forecast = forecast_evaluation(preflight(refund_job(tmp_path, f"{server.url}/v1")))
    assert forecast is not None
    careful = forecast.contenders[1]
    assert (careful.requests.low, careful.requests.expected, careful.requests.high) == (30, 90, 120)
    found = compared(tmp_path, server)
    (actual,) = (each for each in found.contenders if each.name == "careful")
    tokens = 0
    for body in agent(server).seen:
        content = json.loads(body)
        if content["model"] == "careful":
            tokens += len(json.dumps([content["messages"], content["tools"]])) // 4
    assert actual.prompt_tokens is not None
    assert careful.tokens.low <= tokens <= careful.tokens.high
    assert 0.4 < careful.tokens.expected / tokens < 2.5


def test_a_plan_counts_dev_rows_as_they_begin(tmp_path: Path) -> None:
    job = refund_job(tmp_path, "http://127.0.0.1:1/v1")
    rows = "".join(f"{json.dumps(row(at))}\n" for at in range(100, 140))
    (tmp_path / "train.jsonl").write_text(rows)
    data = job.data.model_copy(update={"train": "train.jsonl", "validation": 0.5})
    work = preflight(job.model_copy(update={"data": data})).workload
    assert len(work.dev) == len(work.validation) > 0
    assert work.dev.prompts.mean.expected == work.test.prompts.mean.expected
    assert work.dev.prompts.mean.expected < work.validation.prompts.mean.expected


def test_a_budget_ends_a_comparison_between_turns(tmp_path: Path, server: Server) -> None:
    price = {"input": 1000, "output": 0}
    prices = {"prices": {"careful": price, "hasty": price}, "cases": 3}
    with pytest.raises(OverBudget, match="the next answer may cost up to"):
        compared(tmp_path, server, evaluate={**prices, "budget": {"usd": 2.2}})
    before = len(server.requests)
    assert before > 3, "the first turns are answered and kept"
    found = compared(tmp_path, server, evaluate={**prices, "budget": {"usd": 100}})
    assert sum(each.errors for each in found.contenders) == 0
    assert len(server.requests) == 2 + 3 + 3 + 3 * 2 > before
    assert set(agent(server).seen.values()) == {1}


def test_a_judge_reads_the_trajectory(tmp_path: Path, server: Server) -> None:
    judge = {"type": "judge", "url": f"{server.url}/v1", "model": "judge", "rubric": ["is honest"]}
    scorers = [{"type": "trajectory", "answer": "exact"}, judge]
    compared(tmp_path, server, evaluate={"scorers": scorers, "cases": 2})
    asked = [json.loads(request.body) for request in server.requests]
    texts = [body["messages"][-1]["content"] for body in asked if body["model"] == "judge"]
    assert any('(calls the tool {"name": "refund"' in text for text in texts)
    assert any("tool: {" in text for text in texts)


def test_a_review_shows_the_trajectory_and_labels_are_about_it(
    tmp_path: Path, server: Server
) -> None:
    found = compared(tmp_path, server, evaluate={"cases": 2})
    review = Review(found, tmp_path / "labels.jsonl", "ana", 2)
    number = [item.case for item in review.look().items].index("case-1")
    page = html.unescape(ReviewPages(review).page(Visit({}, {"item": str(number)})))
    text = re.sub(r"</?mark>", "", page)
    assert (
        'call: {"name": "refund", "arguments": "{\\"order\\": \\"A1\\", \\"amount\\": 11}"}' in text
    )
    assert 'result: "{\\"refunded\\": 11}"\n\nI refunded 11 for A1.' in text
    answer = found.cases[1].answers["careful"]
    path = answer.trajectory
    assert path is not None
    shorter = replace(answer, trajectory=replace(path, messages=path.messages[2:]))
    assert answers_digest(answer) != answers_digest(shorter)


def test_answers_after_calls_are_no_preference_rows(tmp_path: Path, server: Server) -> None:
    """Without the calls before it, such an answer teaches to claim what was not looked up."""
    review = Review(compared(tmp_path, server, evaluate={"cases": 2}), tmp_path / "l.jsonl", "a", 2)
    for item in review.look().items:
        review.write(item, "left")
    assert review.look().people
    assert not [*preference_rows(review.look())]


def test_labels_of_unknown_contenders_are_a_warning(tmp_path: Path, server: Server) -> None:
    judge = {"type": "judge", "url": f"{server.url}/v1", "model": "judge", "rubric": ["is honest"]}
    labels = [("careful", "pass"), ("carefull", "fail"), ("hasty: 8 shots", "pass")]
    (tmp_path / "labels.jsonl").write_text(
        "".join(
            json.dumps({"case": "case-1", "candidate": name, "verdict": verdict}) + "\n"
            for name, verdict in labels
        )
    )
    job = refund_job(
        tmp_path, f"{server.url}/v1", scorers=["trajectory", judge], labels="labels.jsonl", cases=3
    )
    (found,) = (x for x in check(job).findings if x.code == "label-contender")
    assert "labels.jsonl: 1 of 3 labels are ignored, because they name carefull." in found.message
    assert "The contenders are hasty and careful." in found.message
