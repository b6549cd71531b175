"""A task of several turns with tools, and a chat server whose models solve it by a script.

Each case asks to refund an order. The right way is get_order, then refund with its amount, then an
answer. `careful` goes it. `hasty` refunds 1 at once and claims the rest. `looping` looks again and
again.

With `customer_job`, the question leaves the order out, and the simulated user `customer` names it
when it is asked. `careful` asks; `hasty` refunds something.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from unitune.job.job import Job
from unitune.models import function_call
from unitune.testing.loopback import VendorRequest, VendorResponse

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in keys},
            },
        },
    }
    for name, keys in (
        ("get_order", [("order", "string")]),
        ("refund", [("order", "string"), ("amount", "number")]),
    )
]
CODE = """
def refund(order, amount):
    if amount > 10_000:
        raise ValueError("too much")
    return {"refunded": amount}
"""


def row(at: int) -> dict[str, Any]:
    """A row with its trajectory; each third order does not exist."""
    order, amount = f"A{at}", 10 + at
    steps: list[tuple[dict[str, JsonValue], JsonValue]] = [
        (function_call("get_order", {"order": order}, "c1"), {"amount": amount}),
        (function_call("refund", {"order": order, "amount": amount}, "c2"), {"refunded": amount}),
    ]
    answer = f"I refunded {amount} for {order}."
    if at % 3 == 0:
        steps = [(steps[0][0], {"error": "no such order"})]
        answer = f"There is no order {order}."
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"Refund order {order}."}]
    for call, result in steps:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        result_text = json.dumps(result)
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result_text})
    messages.append({"role": "assistant", "content": answer})
    return {"id": f"case-{at}", "messages": messages, "tools": TOOLS}


def duel(url: str, baseline: str, candidate: str) -> list[dict[str, Any]]:
    """Two models of a server as contenders."""
    return [
        {"type": "server", "url": url, "model": model, "role": role, "prompt": "zero-shot"}
        for model, role in ((baseline, "baseline"), (candidate, "candidate"))
    ]


def refund_job(folder: Path, url: str, cases: int = 30, **evaluate: Any) -> Job:
    """A comparison of `hasty` with `careful`; get_order is recorded, refund is a function."""
    rows = evaluate.pop("rows", [row(at) for at in range(cases)])
    (folder / "test.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    (folder / "tools.py").write_text(CODE)
    content = {
        "scorers": [{"type": "trajectory", "answer": "exact"}],
        "dialogue": {"tools": {"refund": "tools.py:refund"}, "max_turns": 4},
        "contenders": duel(url, "hasty", "careful"),
        **evaluate,
    }
    job = {"name": "refunds", "model": "careful", "backend": "fake", "data": {"test": "test.jsonl"}}
    (folder / "unitune.yaml").write_text(json.dumps({**job, "evaluate": content}))
    return Job.load(folder / "unitune.yaml")


def vague_row(at: int) -> dict[str, Any]:
    """The same row, whose question leaves the order to the goal of its user."""
    made = row(at)
    made["messages"][0]["content"] = f"Refund what I bought on day {at}, please."
    return {**made, "goal": f"Get a refund of order A{at}.", "mood": "in a hurry"}


def customer_job(folder: Path, url: str, cases: int = 30, **evaluate: Any) -> Job:
    """The same comparison with the simulated user; `user` has more of its fields."""
    user = {"model": "customer", "url": url, "goal": {"column": "goal"}, **evaluate.pop("user", {})}
    tools = {"tools": {"refund": "tools.py:refund"}, "max_turns": 6}
    rows = [vague_row(at) for at in range(cases)]
    return refund_job(folder, url, rows=rows, dialogue={**tools, "user": user}, **evaluate)


def with_shots(job: Job, rows: list[dict[str, Any]]) -> Job:
    """The job with these training rows, half of which choose the candidate's shots."""
    (job.folder / "train.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    path = job.folder / "unitune.yaml"
    content = json.loads(path.read_text())
    content["data"] |= {"train": "train.jsonl", "validation": 0.5}
    content["evaluate"]["contenders"][1]["prompt"] = "few-shot"
    path.write_text(json.dumps(content))
    return Job.load(path)


@dataclass
class AgentServer:
    """A chat server with the three models; `seen` counts equal requests that were answered.

    At the request with the number `hold_at` it sets `held` and waits for `released`; like those
    that wait behind it, that request is lost. Counting begins again with `revive`.
    """

    seen: Counter[str] = field(default_factory=Counter[str])
    hold_at: int | None = None
    lost: list[str] = field(default_factory=list[str])  # models of lost requests
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: VendorRequest) -> VendorResponse:
        """Answer a request for a chat completion."""
        body = request.json
        if self.seen.total() == self.hold_at:
            self.lost.append(body["model"])
            self.held.set()
            self.released.wait()
            return VendorResponse(status=500)
        self.seen[json.dumps(body, sort_keys=True)] += 1
        model, messages = body["model"], body["messages"]
        message = customer(messages) if model == "customer" else reply(model, messages)
        calls = bool(message.get("tool_calls"))
        choice: JsonValue = {"message": message, "finish_reason": "tool_calls" if calls else "stop"}
        usage: JsonValue = {"prompt_tokens": 10 * len(body["messages"]), "completion_tokens": 5}
        return VendorResponse({"choices": [choice], "usage": usage})

    def revive(self) -> None:
        """Lose the requests that wait, and answer later ones again."""
        self.released.set()
        time.sleep(0.5)  # until the last that waited is lost
        self.hold_at = None
        self.held.clear()
        self.released.clear()


def customer(messages: list[dict[str, Any]]) -> dict[str, JsonValue]:
    """The next message of the simulated user; the last one is the agent's."""
    if "Which" in messages[-1]["content"]:
        found = re.search(r"A\d+", messages[0]["content"])
        assert found, "the goal names the order"
        return {"role": "assistant", "content": f"It is order {found[0]}."}
    gone = "no order" in messages[-1]["content"]
    return {"role": "assistant", "content": "###GIVE-UP###" if gone else "Thanks. ###STOP###"}


def reply(model: str, messages: list[dict[str, Any]]) -> dict[str, JsonValue]:
    """The next message of a model."""
    asked = max(at for at, turn in enumerate(messages) if turn["role"] == "user")
    order = messages[asked]["content"].split()[-1].rstrip(".")
    if model == "careful" and order == "please":
        return {"role": "assistant", "content": "Which order is it?"}
    results = [json.loads(turn["content"]) for turn in messages[asked:] if turn["role"] == "tool"]
    look = function_call("get_order", {"order": order}, f"call_{order}_{len(results)}")
    if model == "looping":
        return {"role": "assistant", "content": None, "tool_calls": [look]}
    if not results:
        early = function_call("refund", {"order": order, "amount": 1}, f"call_{order}_0")
        calls: list[JsonValue] = [early if model == "hasty" else look]
        return {"role": "assistant", "content": "One moment.", "tool_calls": calls}
    if "error" in results[0]:
        return {"role": "assistant", "content": f"There is no order {order}."}
    if model == "careful" and len(results) == 1:
        amount = results[0]["amount"]
        then = function_call("refund", {"order": order, "amount": amount}, f"call_{order}_1")
        return {"role": "assistant", "content": None, "tool_calls": [then]}
    refunded = results[-1]["refunded"]
    return {"role": "assistant", "content": f"I refunded {refunded} for {order}."}
