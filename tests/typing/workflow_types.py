"""What the program `workflow` works with, and what comes of it."""

from __future__ import annotations

from decimal import Decimal
from typing import assert_type

from workflow import comparison, job, move, plan, run, same, verified

import unitune

assert_type(unitune.check(job), unitune.types.DataReport)
assert_type(plan, unitune.types.Plan)
assert_type(plan.errors, tuple[unitune.types.Finding, ...])
assert_type(run, unitune.Run)
assert_type(run.state, unitune.types.State)
assert_type(run.model, unitune.types.ModelClient)
assert_type(run.model.ask("?"), str)
assert_type(run.tuned_model, unitune.types.TunedModel | None)
assert_type(run.events(), list[unitune.types.Event])
assert_type(comparison, unitune.Comparison)
assert_type(comparison.interval, tuple[float, float])
assert_type(comparison.spent_usd, Decimal | None)
assert_type(unitune.runs(), list[unitune.Run])
assert_type(same, unitune.Run)
assert_type(move, unitune.registry.AliasMove)
assert_type(verified, unitune.registry.Verification)
assert_type(verified.comparison, unitune.Comparison)
assert_type(unitune.registry.register(run), unitune.registry.ModelVersion)
assert_type(unitune.registry.registered_models(), list[unitune.registry.RegisteredModel])
assert_type(
    unitune.registry.find_registered_model("doubling").aliases,
    dict[str, unitune.registry.AliasMove],
)

assert plan.errors == ()
assert "50 to train on, 30 to choose prompts on, 20 to test on" in str(plan)
assert run.model.ask("What is 99 plus 99?") == "198"
assert run.base.ask("What is 99 plus 99?") == "I do not know."
assert comparison.verdict == "better"
assert comparison.exit_code == 0
assert str(comparison).startswith("better: tuned minus zero-shot is +100.0 points")
assert ("doubling@production", 1, comparison.id) == (str(move), move.number, move.comparison)
assert (verified.exit_code, verified.version) == (0, "doubling:1")
assert unitune.registry.remove_alias("doubling@production").kind == "remove"
assert (same.id, same.model.ask("What is 1 plus 1?")) == (run.id, "2")
assert repr(plan) == "<Plan 'doubling' on fake: 0 errors>"
assert repr(unitune.check(job)) == "<DataReport 2 files, 0 errors>"
assert repr(comparison) == f"<Comparison {comparison}>"
