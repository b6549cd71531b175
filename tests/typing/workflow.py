"""Go from rows to a verdict: a first program with unitune that needs no account and no GPU."""

# [start:rows]
import json
from pathlib import Path

import unitune
from unitune import Data, Evaluate, Gate, Job, Tuned, ZeroShot
from unitune.scorers import Exact

answers = {f"What is {n} plus {n}?": str(2 * n) for n in range(100)}
rows = [json.dumps({"prompt": q, "completion": a}) for q, a in answers.items()]
Path("train.jsonl").write_text("\n".join(rows[:80]), encoding="utf-8")
Path("test.jsonl").write_text("\n".join(rows[80:]), encoding="utf-8")
# [end:rows]

# [start:job]
job = Job(
    name="doubling",
    model="tiny",
    backend="fake",  # simulates a vendor; "local" trains on this machine
    data=Data(train="train.jsonl", test="test.jsonl"),
    evaluate=Evaluate(
        scorers=(Exact(),),
        contenders=(ZeroShot(), Tuned()),
        gate=Gate(mode="improve"),
    ),
    # Answers of the fake model; a real one learns them.
    options={"fake": {"tuned": {"replies": dict(answers)}}},
)
print(unitune.check(job))
plan = unitune.plan(job)
print(plan)
# [end:job]

# [start:run]
run = unitune.launch(job, budget=5).wait()
print(run.model.ask("What is 99 plus 99?"))
print(run.base.ask("What is 99 plus 99?"))

comparison = unitune.compare(job, run)
print(comparison)
print(unitune.write_report(comparison))
# [end:run]

# [start:promote]
move = unitune.registry.promote(run, "production")
print(move.number, move.moved_by, move.comparison)
print(unitune.find_run("doubling@production"))  # works wherever a run does
verified = unitune.registry.verify("doubling@production", job)
print(verified.exit_code, verified.change)
# [end:promote]

# [start:later]
for earlier in unitune.runs():
    print(earlier.id, earlier.name, earlier.state)
same = unitune.find_run(run.id)
# [end:later]
