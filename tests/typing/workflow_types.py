"""What the program `workflow` works with, and what comes of it."""

from __future__ import annotations

from decimal import Decimal
from typing import assert_type

from workflow import comparison, job, plan, run, same

import unitune

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
assert repr(plan) == "<Plan 'doubling' on fake: 0 errors>"
assert repr(unitune.check(job)) == "<DataReport 2 files, 0 errors>"
assert repr(comparison) == f"<Comparison {comparison}>"
