"""Use two ledgers, keys and price lists in one program."""

from __future__ import annotations

from typing import assert_type

from workflow import job, run

import unitune
from unitune import PriceEntry

# [start:clients]
north = unitune.Client(home="north", keys={"openai": "sk-of-the-north"})
south = unitune.Client(home="south", prices=[PriceEntry(backend="openai", training="21.25")])

trained = north.launch(job, budget=5).wait(timeout=600)
print(trained.model.ask("What is 99 plus 99?"))
comparison = north.compare(job, trained)
print(north.registry.promote(trained, "production"))

print([each.id for each in north.runs()], south.runs())
# [end:clients]

assert_type(trained, unitune.Run)
assert_type(trained.wait(), unitune.Run)
assert_type(comparison, unitune.Comparison)
assert_type(north.check(job), unitune.types.DataReport)
assert_type(north.plan(job, vendor_counts=False), unitune.types.Plan)
assert_type(south.runs(everywhere=True), list[unitune.Run])
assert_type(south.deployments(standing=True), list[unitune.types.Deployment])
assert_type(north.registry.registered_models(), list[unitune.registry.RegisteredModel])

assert ([each.id for each in north.runs()], south.runs()) == ([trained.id], [])
assert [each.id for each in unitune.runs()] == [run.id], "the module's functions keep their ledger"
assert [each.id for each in north.comparisons()] == [comparison.id]
assert [each.name for each in north.registry.registered_models()] == ["doubling"]
