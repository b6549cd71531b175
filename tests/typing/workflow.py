"""From rows to a verdict: a first program with unitune, which needs no account and no GPU."""

from __future__ import annotations

# --8<-- [start:rows]
import json
from decimal import Decimal
from pathlib import Path
from typing import assert_type

import unitune
from unitune import Data, Evaluate, Exact, Gate, Job, Tuned, ZeroShot

answers = {f"What is {n} plus {n}?": str(2 * n) for n in range(100)}
rows = [json.dumps({"prompt": question, "completion": answers[question]}) for question in answers]
Path("train.jsonl").write_text("\n".join(rows[:80]), encoding="utf-8")
Path("test.jsonl").write_text("\n".join(rows[80:]), encoding="utf-8")
# --8<-- [end:rows]

# --8<-- [start:job]
job = Job(
    name="doubling",
    model="tiny",
    backend="fake",  # plays a vendor; "local" trains on this machine
    data=Data(train="train.jsonl", test="test.jsonl"),
    evaluate=Evaluate(
        scorers=(Exact(),),
        contenders=(ZeroShot(), Tuned()),
        gate=Gate(mode="improve"),
    ),
    options={"fake": {"tuned": {"replies": dict(answers)}}},  # what the fake model learns
)
print(unitune.check(job))
plan = unitune.plan(job)
print(plan)
# --8<-- [end:job]

# --8<-- [start:run]
run = unitune.launch(job, budget=5).wait()
print(run.model.ask("What is 99 plus 99?"))
print(run.base.ask("What is 99 plus 99?"))

comparison = unitune.compare(job, run)
print(comparison)
print(unitune.write_report(comparison))
# --8<-- [end:run]

# --8<-- [start:later]
for earlier in unitune.runs():
    print(earlier.id, earlier.name, earlier.state)
same = unitune.find_run(run.id)
# --8<-- [end:later]

assert_type(unitune.check(job), unitune.DataReport)
assert_type(plan, unitune.Plan)
assert_type(plan.errors, tuple[unitune.Finding, ...])
assert_type(run, unitune.Run)
assert_type(run.state, unitune.State)
assert_type(run.model, unitune.ModelClient)
assert_type(run.model.ask("?"), str)
assert_type(run.tuned_model, unitune.TunedModel | None)
assert_type(run.events(), list[unitune.Event])
assert_type(comparison, unitune.Comparison)
assert_type(comparison.interval, tuple[float, float])
assert_type(comparison.spent_usd, Decimal | None)
assert_type(unitune.runs(), list[unitune.Run])
assert_type(same, unitune.Run)

assert plan.errors == ()
assert "rows: 50 train, 30 validation, 20 test" in str(plan)
assert run.model.ask("What is 99 plus 99?") == "198"
assert run.base.ask("What is 99 plus 99?") == "I do not know."
assert comparison.verdict == "better"
assert comparison.exit_code == 0
assert str(comparison).startswith("better: tuned minus zero-shot is +100.0 points")
assert (same.id, same.model.ask("What is 1 plus 1?")) == (run.id, "2")
