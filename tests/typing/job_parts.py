"""A job with all of its parts, as Python and as the same YAML."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import assert_type

from unitune import (
    Budget,
    Columns,
    Constraint,
    Data,
    Economics,
    Evaluate,
    FewShot,
    Gate,
    Instructed,
    Job,
    Lora,
    Model,
    PriceEntry,
    Recorded,
    Server,
    TrainingBudget,
    Tuned,
    Tuning,
    Usage,
    ZeroShot,
)
from unitune.scorers import JsonFields, JsonValid, Latency

job = Job(
    name="invoices",
    model={"openai": "gpt-4.1-mini-2025-04-14", "local": "smollm2-135m-instruct"},
    backend="openai",
    data=Data(
        train="train.csv",
        test="test.csv",
        validation=0.2,
        columns=Columns(user="letter", assistant="fields"),
    ),
    tuning=Tuning(epochs=2, seed=0, lora=Lora(rank=16)),
    budget=TrainingBudget(usd=Decimal(20), hours=Decimal(3)),
    evaluate=Evaluate(
        scorers=(JsonFields(), JsonValid(), Latency()),
        contenders=(
            ZeroShot(),
            Instructed(instructions="Return JSON."),
            FewShot(shots=4),
            Tuned(),
            Model(backend="openai", model="gpt-5"),
            Server(url="http://127.0.0.1:8000/v1", model="qwen3"),
            Recorded(name="old-model", answers="old.jsonl"),
        ),
        gate=Gate(mode="no-regress", constraints=(Constraint(metric="json_valid", at_least=0.99),)),
        economics=Economics(requests=100_000, value_per_correct_usd=Decimal("0.10")),
        budget=Budget(usd=Decimal(5)),
    ),
    usage=Usage(requests_month=50_000),
    prices=(PriceEntry.model_validate({"backend": "openai", "training": "21.00"}),),
)
job.save("unitune.yaml")

assert_type(job, Job)
assert_type(job.base_model, str)
assert_type(job.evaluate.gate, Gate | None)
assert_type(job.with_backend("local"), Job)
assert job == Job.load("unitune.yaml").model_copy(update={"folder": Path()})
assert job.with_backend("local").base_model == "smollm2-135m-instruct"
