"""Dialogues with a simulated user: what it sees, its words, records, price and faults."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import AgentServer, customer_job, duel, refund_job, vague_row, with_shots

from unitune.backends.user_requests import GREETING, user_request
from unitune.cost.tokens import Count
from unitune.data.example import Example, Message
from unitune.errors import JobError, OverBudget, UserError
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.records import Trajectory
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.readiness import check
from unitune.job.dialogue import SimulatedUser
from unitune.job.job import Job
from unitune.planning.forecasts import forecast_evaluation
from unitune.planning.money import estimated
from unitune.planning.plan import comparison_plan, plan
from unitune.planning.preflight import preflight
from unitune.render.sections import Document, Fact, Facts
from unitune.report.files import write_report
from unitune.report.plan import describe
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve

TURNS_EACH = {"careful": 20 * 4 + 10 * 3, "hasty": 30 * 2, "customer": 30 * 2 + 30}
PRICE = {"input": 1, "output": 1}
PRICES = dict.fromkeys(("careful", "hasty", "customer"), PRICE)


@dataclass
class CustomerServer(AgentServer):
    """Server whose simulated user may be changed: `speak` returns a whole response or None."""

    speak: Callable[[dict[str, Any]], VendorResponse | None] = lambda _: None

    def answer(self, request: VendorRequest) -> VendorResponse:
        """Answer a request for a chat completion."""
        body = request.json
        changed = self.speak(body) if body["model"] == "customer" else None
        return changed or super().answer(request)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(CustomerServer()) as server:
        yield server


def vendor(server: Server) -> CustomerServer:
    assert isinstance(server.vendor, CustomerServer)
    return server.vendor


def said(text: str, finish_reason: str = "stop") -> VendorResponse:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    choices: Any = [{"message": message, "finish_reason": finish_reason}]
    return VendorResponse({"choices": choices, "usage": dict(usage)})


def facts_of(document: Document) -> list[Fact]:
    parts = [part for section in document.sections for part in section.parts]
    return [fact for part in parts if isinstance(part, Facts) for fact in part.rows]


def compared(folder: Path, server: Server, **evaluate: Any) -> Comparison:
    return compare(customer_job(folder, f"{server.url}/v1", **evaluate))


def sent(server: Server, model: str) -> list[dict[str, Any]]:
    bodies = [json.loads(request.body) for request in server.requests]
    return [body for body in bodies if body["model"] == model]


def test_the_user_replies_until_its_goal_is_reached_or_out_of_reach(
    tmp_path: Path, server: Server
) -> None:
    found = compared(tmp_path, server)
    assert {model: len(sent(server, model)) for model in TURNS_EACH} == TURNS_EACH
    assert set(vendor(server).seen.values()) == {1}
    careful = {at: found.cases[at].answers["careful"] for at in (1, 3)}
    paths = {at: answer.trajectory for at, answer in careful.items() if answer.trajectory}
    assert [turn.role for turn in paths[1].messages] == [
        *("assistant", "user"),
        *("assistant", "tool") * 2,
        *("assistant", "user"),
    ]
    assert [turn.text for turn in paths[1].messages if turn.role == "user"] == [
        "It is order A1.",
        "Thanks. ###STOP###",
    ]
    assert (paths[1].end, paths[3].end) == ("the user reached its goal", "the user gave up")
    assert (paths[1].turns, careful[1].text) == (4, "I refunded 11 for A1.")
    assert found.verdict == "better"
    assert found.cases[1].answers["careful"].scores == {"trajectory": 1.0}


def test_the_user_sees_texts_alone_with_swapped_roles(tmp_path: Path, server: Server) -> None:
    contenders = duel(f"{server.url}/v1", "hasty", "careful")
    told = {"prompt": "instructed", "instructions": "Never tell prices.", "name": "zorro"}
    contenders[1] |= told
    user = {"persona": {"column": "mood"}}
    compared(tmp_path, server, cases=4, contenders=contenders, user=user)
    asked = sent(server, "customer")
    assert len(asked) == 4 * 2 + 4
    for body in asked:
        roles = [turn["role"] for turn in body["messages"]]
        assert roles == ["system", *("user", "assistant") * (len(roles) // 2 - 1), "user"]
        text = json.dumps(body)
        assert "tools" not in body
        assert not re.search("zorro|careful|hasty|Never tell|amount|tool_call", text)
    longest = max(asked, key=lambda body: len(body["messages"]))["messages"]
    assert re.search(r"in a hurry\n.*goal: Get a refund of order A\d\.", longest[0]["content"])
    assert longest[1]["content"] == GREETING
    assert longest[3]["content"] == "Which order is it?"
    assert longest[4]["content"].startswith("It is order A")


@given(
    turns=st.lists(
        st.tuples(
            st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
            st.sampled_from(["", " ", "a", "b"]),
        )
    )
)
def test_roles_alternate_whatever_the_conversation(turns: list[tuple[Any, str]]) -> None:
    case = Example(messages=(Message(role="user", content="Hi"),))
    messages = [Message(role=role, content=text, tool_call_id=None) for role, text in turns]
    user = SimulatedUser(model="m", backend="openai", goal="g")
    system, *shown = user_request(user, case, messages).messages
    assert system.role == "system"
    assert [turn.role for turn in shown] == [
        ("user", "assistant")[at % 2] for at in range(len(shown))
    ]
    texts = "\n\n".join(turn.text for turn in shown)
    kept = [text for role, text in turns if role in ("user", "assistant") and text.strip()]
    assert texts == "\n\n".join([GREETING, "Hi", *kept])


def test_a_dialogue_ends_at_max_turns_of_the_user_or_of_the_model(
    tmp_path: Path, server: Server
) -> None:
    vendor(server).speak = lambda _: said("Please go on.")
    found = compared(tmp_path, server, cases=3, user={"max_turns": 2})
    for case in found.cases:
        path = case.answers["hasty"].trajectory
        assert path is not None
        assert path.end == "ended at max_turns"
        assert sum(turn.role == "user" for turn in path.messages) == 2
        assert path.messages[-1].role == "assistant"
    few = {"dialogue": {"max_turns": 1, "user": {"model": "customer", "goal": "g"}}}
    few["dialogue"]["user"] |= {"url": f"{server.url}/v1"}
    rows = [vague_row(at) for at in range(3)]
    before = len(sent(server, "customer"))
    compare(refund_job(tmp_path, f"{server.url}/v1", rows=rows, **few))
    assert len(sent(server, "customer")) == before, "no answer could follow"


@pytest.mark.parametrize(
    ("turns", "end"),
    [
        ([("user", "No.", False), ("assistant", "", False)], ""),
        ([("assistant", "Done.", False)], ""),
        ([("assistant", "", True)], "ended at max_turns"),
        ([], ""),
    ],
)
def test_the_end_of_a_dialogue_in_words(turns: list[tuple[Any, str, bool]], end: str) -> None:
    messages = tuple(
        Message(role=role, content=text, tool_calls=({"id": "a"},) if calls else None)
        for role, text, calls in turns
    )
    assert Trajectory(messages=messages).end == end


def test_a_report_shows_whose_words_they_are_and_what_they_cost(
    tmp_path: Path, server: Server
) -> None:
    found = compared(tmp_path, server, cases=4, prices=PRICES)
    user = found.simulated_user
    assert user is not None
    tokens = [15 + 10 * (len(body["messages"]) - 1) - 5 + 5 for body in sent(server, "customer")]
    assert (user.requests, user.failed) == (12, 0)
    assert float(user.usd or 0) == pytest.approx(sum(tokens) / 1e6)
    assert found.spent_usd == sum((each.usd or 0 for each in found.contenders), user.usd or 0)
    assert user.model.endswith("/v1:customer")
    assert found.provenance["Simulated user"].startswith(f"{user.model}, temperature 0, ")
    (tmp_path / "report").mkdir()
    text = html.unescape(write_report(found, tmp_path / "report").read_text())
    assert 'simulated user: "It is order A1."' in text
    assert "turns: 4, tool errors: 0, the user reached its goal" in text
    assert "The simulated user" in text
    again = Comparison.model_validate_json(found.model_dump_json())
    assert again.simulated_user == user


def test_an_answer_cut_off_is_not_marked_as_ended_at_max_turns(
    tmp_path: Path, server: Server
) -> None:
    """Its last turn has tool calls, but it is `max_tokens` that ended the dialogue."""
    call = {"id": "c", "type": "function", "function": {"name": "refund", "arguments": "{}"}}
    message = {"role": "assistant", "content": "I will", "tool_calls": [call]}
    choices: Any = [{"message": message, "finish_reason": "length"}]
    server.vendor.answer = lambda _: VendorResponse({"choices": choices})  # type: ignore[method-assign]
    found = compare(refund_job(tmp_path, f"{server.url}/v1", cases=2))
    assert found.cases[0].answers["careful"].cut
    (tmp_path / "report").mkdir()
    text = write_report(found, tmp_path / "report").read_text()
    assert "turns: 1, tool errors: 0" in text
    assert "ended at max_turns" not in text


def test_scorers_and_reviewers_see_the_users_turns(tmp_path: Path, server: Server) -> None:
    (tmp_path / "score.py").write_text(
        "def named(answer, case, trajectory):\n"
        "    said = [turn.text for turn in trajectory if turn.role == 'user']\n"
        "    return said == [f'It is order A{case.case_id[5:]}.', said[-1]]\n"
    )
    scorers = [{"type": "python", "function": "score.py:named"}]
    found = compared(tmp_path, server, cases=5, scorers=scorers)
    scores = {each.name: each.score for each in found.contenders}
    assert scores == {"careful": 1.0, "hasty": 0.0}
    judge = {"type": "judge", "url": f"{server.url}/v1", "model": "judge", "rubric": ["is honest"]}
    compared(tmp_path, server, cases=2, scorers=["trajectory", judge])
    texts = [body["messages"][-1]["content"] for body in sent(server, "judge")]
    assert any("user: It is order A1." in text for text in texts)


def test_a_resumed_replayed_or_cached_comparison_asks_nobody_again(
    tmp_path: Path, server: Server
) -> None:
    job = customer_job(tmp_path, f"{server.url}/v1", cases=6)
    first = compare(job)
    asked = len(server.requests)
    for options in ({}, {"replay": True}, {"out": tmp_path / "two", "use_cache": True}):
        again = compare(job, **options)
        assert again.cases == first.cases
        assert len(server.requests) == asked
    user = first.simulated_user
    assert user is not None
    assert compare(job, replay=True).simulated_user == user
    other = customer_job(tmp_path, f"{server.url}/v1", cases=6, user={"temperature": 0.5})
    compare(other)
    assert len(sent(server, "customer")) == 2 * user.requests, "its settings are in the hash"
    assert len(server.requests) == asked + user.requests, "the same conversation is not asked again"


def test_contenders_that_say_the_same_get_the_same_reply(tmp_path: Path, server: Server) -> None:
    contenders = duel(f"{server.url}/v1", "careful", "careful")
    contenders[0]["name"] = "one"
    compared(tmp_path, server, cases=3, contenders=contenders, repeats=2)
    assert len(sent(server, "customer")) == 3 * 2 * 2
    assert {body.get("seed") for body in sent(server, "customer")} >= {0, 1}


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (said(""), "its message is empty"),
        (said("It is ord", "length"), "its message was cut off; raise max_tokens of the user abo"),
        (said("", "content_filter"), "it ended its message with 'content_filter'"),
        (VendorResponse({"error": {"message": "no such thing"}}, status=400), "no such thing"),
    ],
)
def test_a_reply_that_is_no_message_is_an_error_of_its_case_alone(
    tmp_path: Path, server: Server, response: VendorResponse, words: str
) -> None:
    vendor(server).speak = lambda body: response if "order A1." in str(body) else None
    found = compared(tmp_path, server, cases=4)
    for name, answer in found.cases[1].answers.items():
        assert "the simulated user failed: " in (answer.error or ""), name
        assert words in (answer.error or "")
    assert [each.errors for each in found.contenders] == [1, 1]
    assert found.simulated_user is not None
    assert found.simulated_user.failed == 2
    if response.status == 400:
        vendor(server).speak = lambda _: None
        before = len(server.requests)
        whole = compared(tmp_path, server, cases=4)
        assert [each.errors for each in whole.contenders] == [0, 0]
        assert len(server.requests) == before + 6, "two replies, and what follows the first"


def test_a_rate_limit_of_the_user_is_waited_for(tmp_path: Path, server: Server) -> None:
    refused: list[object] = []

    def speak(body: dict[str, Any]) -> VendorResponse | None:
        refused.append(body)
        if len(refused) > 3:
            return None
        limited = {"error": {"message": "slow down"}}
        return VendorResponse(limited, status=429, headers={"Retry-After": "0"})

    vendor(server).speak = speak
    found = compared(tmp_path, server, cases=2)
    assert [each.errors for each in found.contenders] == [0, 0]


def test_a_budget_counts_the_user_and_stops_before_it(tmp_path: Path, server: Server) -> None:
    free = {"input": 0, "output": 0}
    prices = {"careful": free, "hasty": free, "customer": {"input": 1000, "output": 0}}
    with pytest.raises(OverBudget, match="simulated_user: the next answer may cost up to"):
        compared(tmp_path, server, cases=3, prices=prices, budget={"usd": 1.2})
    asked = len(sent(server, "customer"))
    found = compared(tmp_path, server, cases=3, prices=prices, budget={"usd": 100})
    assert found.spent_usd == (found.simulated_user and found.simulated_user.usd)
    assert asked < len(sent(server, "customer")) == 3 * 2 + 3
    assert set(vendor(server).seen.values()) == {1}


def test_a_user_without_a_price_is_refused_under_a_budget(tmp_path: Path, server: Server) -> None:
    prices = {"careful": PRICE, "hasty": PRICE}
    with pytest.raises(OverBudget, match="the price of simulated_user is unknown"):
        compared(tmp_path, server, cases=3, prices=prices, budget={"usd": 2})
    assert not server.requests
    job = customer_job(tmp_path, f"{server.url}/v1", cases=3, prices=prices, budget={"usd": 2})
    assert any("simulated_user" in each.message for each in check(job).findings)


def test_a_plan_counts_the_requests_tokens_and_price_of_the_user(
    tmp_path: Path, server: Server
) -> None:
    job = customer_job(tmp_path, f"{server.url}/v1", prices=PRICES, user={"max_turns": 4})
    resolved = preflight(job)
    forecast = forecast_evaluation(resolved)
    assert forecast is not None
    planned = {each.name: each for each in forecast.contenders}
    assert planned["simulated_user"].requests == Count(0, 60 * 3, 60 * 4)
    line = next(x for x in estimated(resolved).of("evaluation") if x.what == "simulated_user")
    assert line.usd is not None
    assert line.usd.high > line.usd.expected > 0
    assert any(
        "writes 3 messages per dialogue, at most 4" in x for x in estimated(resolved).assumptions
    )
    compare(job)
    usual: dict[str, float] = {}
    for name, model in (("simulated_user", "customer"), ("careful", "careful"), ("hasty", "hasty")):
        bodies = sent(server, model)
        assert planned[name].requests.low <= len(bodies) <= planned[name].requests.high
        shown = [json.dumps([body["messages"], body.get("tools")]) for body in bodies]
        tokens = sum(len(text) // 4 for text in shown)
        assert planned[name].tokens.low <= tokens <= planned[name].tokens.high, name
        usual[name] = planned[name].tokens.expected / tokens
    assert 0.3 < usual["simulated_user"] < 4
    assert 0.3 < usual["careful"] < 4


def test_a_plan_prices_answers_although_the_training_is_free(tmp_path: Path) -> None:
    job = customer_job(tmp_path, "http://127.0.0.1:1/v1", prices=PRICES)
    alone = comparison_plan(plan(job), preflight(job))
    assert alone.estimate is not None
    assert "A comparison may cost $" in describe(alone).title
    rows = [vague_row(at) for at in range(100, 160)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    path = job.folder / "unitune.yaml"
    content = json.loads(path.read_text())
    content["data"] |= {"train": "train.jsonl", "validation": 0.2}
    for prices, known in ((PRICES, True), ({}, False)):
        content["evaluate"]["prices"] = prices
        path.write_text(json.dumps(content))
        planned = plan(Job.load(path))
        assert not planned.errors
        assert (planned.estimate is not None) == known
        assumptions = planned.estimate.assumptions if planned.estimate else ()
        assert not any("epochs" in each for each in assumptions)
        assert planned.charge == "none"
        assert "costs nothing" in describe(planned).title
        charges = [fact.value for fact in facts_of(describe(planned)) if fact.term == "charge"]
        assert charges[0].startswith("$0.00; answers $" if known else "none: your own hardware")


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"backend": "openai"}, "give either the backend of the model or the url of a server"),
        ({"url": None}, "give either the backend of the model or the url of a server"),
        ({"goal": {"column": "aim"}}, "takes its goal from the column 'aim', but the row case-0"),
        ({"persona": {"column": "id2"}}, "takes its persona from the column 'id2'"),
        ({"goal": ""}, "goal"),
        ({"max_turns": 0}, "max_turns"),
    ],
)
def test_a_user_that_cannot_work_is_refused_before_any_request(
    tmp_path: Path, server: Server, user: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        compared(tmp_path, server, user=user)
    assert not server.requests


def test_a_missing_column_is_a_finding_and_no_obstacle_to_a_plan(
    tmp_path: Path, server: Server
) -> None:
    job = customer_job(tmp_path, f"{server.url}/v1", user={"goal": {"column": "aim"}})
    assert any("column 'aim'" in each.message for each in check(job).findings)
    assert forecast_evaluation(preflight(job)) is not None


def test_rewards_are_sampled_without_a_user(tmp_path: Path) -> None:
    path = customer_job(tmp_path, "http://127.0.0.1:1/v1").folder / "unitune.yaml"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "method": "rft"}))
    with pytest.raises(JobError, match=r"rft samples dialogues without a simulated user\. Remove"):
        Job.load(path)


@pytest.mark.parametrize("kind", ["contenders", "scorers"])
def test_the_name_of_the_user_is_taken(tmp_path: Path, kind: str) -> None:
    url = "http://127.0.0.1:1/v1"
    taken: dict[str, Any] = {"type": "server", "url": url, "model": "m", "name": "simulated_user"}
    if kind == "scorers":
        taken |= {"type": "judge", "rubric": ["x"]}
    with pytest.raises(
        JobError, match=f"{kind}: simulated_user is the name of evaluate.dialogue.us"
    ):
        customer_job(tmp_path, url, **{kind: [taken, *(["exact"] if kind == "scorers" else [])]})


def test_a_user_of_a_contenders_family_is_a_warning(tmp_path: Path, server: Server) -> None:
    def warned(model: str) -> list[str]:
        job = customer_job(tmp_path, f"{server.url}/v1", cases=2, user={"model": model})
        return [x.message for x in check(job).findings if x.code == "user-family"]

    assert warned("customer") == []
    (found,) = warned("careful")
    assert "The simulated user (careful) is of the same model family, careful, as careful." in found
    contenders = duel(f"{server.url}/v1", "hasty", "customer")
    result = compared(tmp_path, server, cases=2, contenders=contenders)
    assert any("The simulated user (customer) is of the same" in note for note in result.notes)


def test_dev_rows_are_dialogues_with_the_user_too(tmp_path: Path, server: Server) -> None:
    rows = [vague_row(at) for at in range(100, 140)]
    found = compare(with_shots(customer_job(tmp_path, f"{server.url}/v1", cases=20), rows))
    assert found.folder is not None
    assert '"contender":"simulated_user"' in (found.folder / "dev.jsonl").read_text()
    assert found.simulated_user is not None
    assert found.simulated_user.requests == len(sent(server, "customer"))
    assert set(vendor(server).seen.values()) == {1}
