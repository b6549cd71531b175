from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from crash.postgres import STORES, a_store
from pydantic import JsonValue
from support.known import known

from unitune.backends import exactly_once, registry, retry
from unitune.backends.offer import Billing
from unitune.job.job import Data, Job, TrainingBudget
from unitune.job.prices import PriceEntry
from unitune.ledger import sqlite
from unitune.planning.plan import plan
from unitune.run.run import Run
from unitune.workspace.home import home
from unitune.workspace.user_settings import today

MakeJob = Callable[[dict[str, JsonValue]], Job]
Priced = Callable[..., Job]


def high(job: Job) -> Decimal:
    """Return the most that the training of a job, or of all its runs, may cost."""
    return known(known(plan(job).estimate).launch_usd).high


def ended(run: Run) -> Run:
    """Watch a run until it is at rest, whatever becomes of it."""
    for _ in run.watch(0):
        pass
    return run


def change_ledger(statement: str, *values: object) -> None:
    """Change the ledger's file as no version of the product does."""
    with closing(sqlite3.connect(home() / "ledger.db")) as connection, connection:
        connection.execute(statement, values)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of the databases that a ledger can live in, without a run."""
    with a_store(request.param) as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        yield request.param


@dataclass
class Clock:
    """A clock that goes on only where somebody sleeps; its time of day can be set."""

    now: float = 1_800_000_000.0
    slept: list[float] = field(default_factory=list[float])
    set_forward: float = 0.0

    def time(self) -> float:
        return self.now + self.set_forward

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the vendor's patience and of a ledger in a file."""
    made = Clock()
    monkeypatch.setattr(retry, "time", made)
    monkeypatch.setattr(sqlite, "time", made)
    monkeypatch.setattr(exactly_once, "time", made)
    return made


@pytest.fixture
def settling(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Say how long the fake vendor's list takes to show a job."""

    def settle(seconds: float) -> None:
        offer = registry.offer("fake").model_copy(update={"settle_seconds": seconds})
        monkeypatch.setattr(registry, "offer", lambda _: offer)

    return settle


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data files and no ledger, which is the current one."""
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.chdir(tmp_path)
    for name, count in (("train", 6), ("validation", 2)):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"{name} question {number}"},
                    {"role": "assistant", "content": f"answer {number}"},
                ]
            }
            for number in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.fixture
def make_job(workplace: Path) -> MakeJob:
    """A job for the fake backend with a script."""

    def make(script: dict[str, JsonValue]) -> Job:
        return Job(
            name="demo",
            model="tiny",
            backend="fake",
            data=Data(train="train.jsonl", validation="validation.jsonl"),
            options={"fake": script},
            folder=workplace,
        )

    return make


@pytest.fixture
def priced(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> Priced:
    """A job for the fake, which takes money: $1 a thousand tokens, unless told otherwise."""
    fake = registry.offer("fake")

    def make(
        usd: str | None = None,
        price: str = "1000",
        script: dict[str, JsonValue] | None = None,
        **rules: str,
    ) -> Job:
        entry: dict[str, object] = {"training": price, "as_of": today(), "source": "a test"}
        billing = {"epochs_auto": 2, "validation": "free", **rules}
        offer = fake.model_copy(
            update={
                "training_price": None,
                "trains_on": "vendor",
                "prices": (PriceEntry.model_validate(entry),) if price else (),
                "billing": Billing.model_validate(billing),
            }
        )
        monkeypatch.setattr(registry, "offer", {"fake": offer}.__getitem__)
        job = make_job(script or {})
        budget = TrainingBudget(usd=Decimal(usd)) if usd else None
        return job.model_copy(update={"budget": budget})

    return make
