"""Files that people and unitune write: jobs, prices, budgets, plans, recorded rows, baselines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hostile import examples
from hostile.attempts import Attempt
from hostile.examples import FILES, JOBS, as_file
from hostile.schema import described, part
from hostile.values import as_json, damaged, edited, spoilt, spoilt_lines
from hypothesis import strategies as st

from unitune.cli.job_files import document_model
from unitune.job.job import Evaluate, Job

OF_A_JOB = (
    ("check", "job.yaml"),
    ("check", "job.yaml", "--json"),
    ("plan", "job.yaml"),
    ("plan", "job.yaml", "--markdown"),
    ("plan", "job.yaml", "--all", "--json"),
    ("plan", "job.yaml", "--show-tokens"),
    ("plan", "job.yaml", "-o", "plan.json"),
    ("run", "job.yaml", "--quiet", "--allow-unpriced"),
    ("run", "job.yaml"),
    ("compare", "job.yaml", "--output", "rows"),
    ("compare", "job.yaml", "--replay"),
    ("compare", "job.yaml", "--json", "--use-cache"),
    ("cost", "job.yaml"),
)
JOB_SCHEMA = Job.model_json_schema()
EVALUATE_SCHEMA = Evaluate.model_json_schema()


@st.composite
def job_trees(draw: st.DrawFn) -> Any:
    """Return a valid job with parts that the schema describes, and then often with changes."""
    tree = json.loads(json.dumps(JOBS[draw(st.sampled_from(sorted(JOBS)))]))
    kept = ("name", "model", "backend", "data", "version", "evaluate")
    names = [name for name in JOB_SCHEMA["properties"] if name not in kept]
    for name in draw(st.lists(st.sampled_from(names), max_size=1)):
        tree[name] = draw(part(JOB_SCHEMA, name))
    inner = tree.setdefault("evaluate", {})
    for name in draw(st.lists(st.sampled_from(sorted(EVALUATE_SCHEMA["properties"])), max_size=2)):
        inner[name] = draw(part(EVALUATE_SCHEMA, name))
    return draw(st.just(tree) | edited(tree))


@st.composite
def job_files(draw: st.DrawFn) -> Attempt:
    """Return a job file that is not as it should be."""
    tree = draw(job_trees())
    content = draw(st.just(as_json(tree)) | st.just(as_json(tree)) | damaged(as_json(tree)))
    commands = draw(st.lists(st.sampled_from(OF_A_JOB), min_size=1, max_size=3, unique=True))
    return Attempt(tuple(commands), {**FILES, "job.yaml": content})


def _beside(
    name: str, schema_of: str, valid: Any, commands: tuple[tuple[str, ...], ...]
) -> Callable[[], st.SearchStrategy[Attempt]]:
    """Return how a file beside the job is thrown."""
    model = document_model(schema_of)  # type: ignore[arg-type]

    @st.composite
    def files(draw: st.DrawFn) -> Attempt:
        tree = draw(st.just(valid) | described(model.model_json_schema(mode="validation")))
        content = draw(spoilt(tree) | st.just(as_json(tree)))
        job = as_file(JOBS["priced"])
        return Attempt(
            (draw(st.sampled_from(commands)),), {**FILES, "job.yaml": job, name: content}
        )

    return files


budgets = _beside(
    "budget.yaml",
    "budget",
    {"month_usd": 100, "project_usd": "200.50"},
    (("plan", "job.yaml"), ("run", "job.yaml", "--quiet"), ("cost", "job.yaml")),
)
prices = _beside(
    "prices.yaml",
    "prices",
    {
        "prices": [
            {"backend": "openai", "model": "gpt-4.1", "input": "2.00/1M", "output": 8},
            {"backend": "openai", "training": 25, "from": "2026-01-01", "source": "https://x"},
            {"backend": "local", "machine": 0.85},
        ]
    },
    (
        ("plan", "job.yaml"),
        ("prices", "show"),
        ("prices", "openai"),
        ("prices", "openai", "--json"),
        ("prices", "refresh", "openai", "--yes"),
        ("cost", "job.yaml"),
        ("plan", "job.yaml", "--backend", "local", "--price", "machine=1"),
    ),
)


@st.composite
def plans(draw: st.DrawFn) -> Attempt:
    """Return a saved plan that is not as it was saved."""
    files = examples.planned()
    content = draw(spoilt(json.loads(files["plan.json"])))
    commands = (
        ("run", "--plan", "plan.json", "--quiet"),
        ("run", "--plan", "plan.json", "--detach", "--allow-unpriced"),
        ("plan", "job.yaml", "--against", "plan.json", "--markdown"),
    )
    return Attempt((draw(st.sampled_from(commands)),), {**files, "plan.json": content})


READ_BACK = (
    "rows/rows.jsonl",
    "rows/dev.jsonl",
    "rows/verdict.json",
    "baseline.jsonl",
    "old.jsonl",
)


@st.composite
def recorded(draw: st.DrawFn) -> Attempt:
    """Return rows, verdicts, baselines and answers that are not as they were written."""
    files = draw(st.sampled_from((examples.compared(), examples.trained())))
    name = draw(st.sampled_from([one for one in READ_BACK if one in files]))
    whole = files[name]
    if name.endswith(".jsonl"):
        content = draw(spoilt_lines([json.loads(line) for line in whole.splitlines()]))
    else:
        content = draw(spoilt(json.loads(whole)))
    compare = ("compare", "job.yaml", "--output", "rows")
    more = draw(st.sampled_from(((), ("--replay",), ("--update-baseline",), ("--json",))))
    also = draw(st.sampled_from(((), (("cost", "job.yaml"),))))
    return Attempt(((*compare, *more), *also), {**files, name: content})


OWN = {
    "prices.yaml": {"prices": [{"backend": "openai", "training": 25}]},
    "config.yaml": {"keys": {"http://127.0.0.1:1": ["MY_KEY"], "https://llm.example.com": []}},
    "secret": "0123456789abcdef" * 4,
}


@st.composite
def own_files(draw: st.DrawFn) -> Attempt:
    """Return files of the user's own configuration that are not valid."""
    name = draw(st.sampled_from(sorted(OWN)))
    content = draw(spoilt(OWN[name]))
    files = {**FILES, "job.yaml": as_file(JOBS["elsewhere"]), f"config/unitune/{name}": content}
    commands = (
        ("prices", "show"),
        ("doctor",),
        ("keys",),
        ("keys", "allow", "http://127.0.0.1:2", "OTHER_KEY"),
        ("keys", "remove", "http://127.0.0.1:1"),
        ("run", "job.yaml", "--quiet", "--backend", "fake"),
        ("compare", "job.yaml", "--quiet"),
        ("plan", "job.yaml"),
        ("prices", "refresh", "--user", "--yes"),
    )
    return Attempt((draw(st.sampled_from(commands)),), files)
