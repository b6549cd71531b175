"""Jobs in a temporary folder, and a backend that answers by a rule of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from unitune.backends import registry
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Job
from unitune.models import ChatModel, Reply, Request, TunedModel

Rule = Callable[[str, Request], str]


@dataclass
class RuleModel:
    """Answers by a rule; what starts with ``ERROR`` is an error, with ``CUT`` it was cut off."""

    name: str
    rule: Rule
    log: list[str]
    requests: list[Request]

    @property
    def fingerprint(self) -> str:
        return f"rule:{self.name}"

    async def reply(self, request: Request) -> Reply:
        self.requests.append(request)
        await asyncio.sleep(0)
        text = self.rule(self.name, request)
        if text.startswith("ERROR"):
            return Reply(error=text, finish_reason="error")
        ended = "length" if text.startswith("CUT") else "stop"
        return Reply(
            text=text.removeprefix("CUT"),
            finish_reason=ended,
            prompt_tokens=10,
            completion_tokens=2,
            seconds=0.25,
        )

    async def aclose(self) -> None:
        self.log.append(f"close {self.name}")


@dataclass
class RuleBackend:
    """Models that answer by a rule from model name and request."""

    rule: Rule
    log: list[str] = field(default_factory=list[str])
    requests: list[Request] = field(default_factory=list[Request])

    def chat(self, model: str | TunedModel) -> ChatModel:
        name = model if isinstance(model, str) else model.name
        self.log.append(f"load {name}")
        return RuleModel(name, self.rule, self.log, self.requests)


@pytest.fixture
def backend_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rule], RuleBackend]:
    """Put a backend in the registry's place whose models answer by the given rule."""

    def put(rule: Rule) -> RuleBackend:
        backend = RuleBackend(rule)
        monkeypatch.setattr(registry, "backend", lambda _name: backend)
        return backend

    return put


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))


Rows = list[tuple[str, str]]


def _write(path: Path, rows: Rows) -> None:
    lines = (
        json.dumps(
            {
                "messages": [
                    {"role": "system", "content": "You sort mail."},
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ]
            }
        )
        for question, answer in rows
    )
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """Make a job of train, dev and test rows, each a question with its answer."""

    def make(
        evaluate: dict[str, Any],
        *,
        test: Rows | None = None,
        dev: Rows | None = None,
        train: Rows | None = None,
    ) -> Job:
        rows = {
            "train": train or [(f"train {at}", f"label-{at % 4}") for at in range(40)],
            "dev": dev or [(f"dev {at}", "yes") for at in range(20)],
            "test": test or [(f"test {at}", "yes") for at in range(60)],
        }
        for name, content in rows.items():
            _write(tmp_path / f"{name}.jsonl", content)
        return Job.model_validate(
            {
                "name": "demo",
                "model": "base",
                "backend": "fake",
                "data": {"train": "train.jsonl", "test": "test.jsonl", "validation": "dev.jsonl"},
                "evaluate": evaluate,
                "folder": tmp_path,
            }
        )

    return make


@pytest.fixture
def compare_by(
    make_job: Callable[..., Job], backend_of: Callable[[Rule], RuleBackend]
) -> Callable[..., Comparison]:
    """Compare contenders whose models answer by a rule; takes what `make_job` and `compare` do."""

    def compared(
        rule: Rule,
        evaluate: dict[str, Any],
        *,
        test: Rows | None = None,
        dev: Rows | None = None,
        train: Rows | None = None,
        **options: Any,
    ) -> Comparison:
        backend_of(rule)
        return compare(make_job(evaluate, test=test, dev=dev, train=train), **options)

    return compared
