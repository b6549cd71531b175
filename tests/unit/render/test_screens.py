"""Each screen as it is printed, 80 columns wide: the one place where its whole wording is asserted.

After a change that is meant, write the files again with UNITUNE_WRITE_SCREENS=1 and read the diff.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from support.command_line import Command
from support.job_files import write_rows
from support.sample_comparison import VERDICTS, gated, sample_comparison
from support.sample_total_cost import example_cost
from support.trained_runs import IMPROVE, trained, triage_job

from unitune.curve import page
from unitune.curve.documents import CurvePoint, CurveRun, Figure, Law, LearningCurve, Prediction
from unitune.curve.fit import Form
from unitune.decision import evidence, rules
from unitune.evaluate.compare import compare
from unitune.evaluate.statistics.paired import Verdict
from unitune.job.job import Gate
from unitune.ownership import page as total_cost
from unitune.render import terminal
from unitune.render.sections import Document
from unitune.report import comparison

SCREENS = Path(__file__).parent / "screens"
CREATED = "2026-11-28T10:00:00+00:00"
# What differs between two runs of the test, replaced by text of the same length
VARIABLE = (
    (r"\b[rc]\d{6}-[0-9a-z]{12}\b", "r261128-000000000000"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d", "2026-11-28 10:00"),
    (r"\b[0-9a-f]{12,64}\b", None),
)
PLANNED = """
name: demo
model: gpt-4o-mini
backend: openai
data: {train: train.jsonl, validation: 0.2}
tuning: {epochs: 2}
prices: [{backend: openai, training: 30.00, hosting: 0, as_of: 2026-11-20}]
budget: {usd: 20}
"""


@pytest.fixture(autouse=True)
def _in_a_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-28")
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.setenv("UNITUNE_USER", "ana")


def rows(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"Where is parcel {at}?", "completion": f"P{at}"} for at in range(count)]


def check(unitune: Command) -> str:
    twice = [{"prompt": "Where is parcel 7?", "completion": "lost"}]
    write_rows(Path("train.jsonl"), [*rows(40), *twice, {"prompt": "", "completion": "P1"}])
    return unitune("check", "train.jsonl").out


def plan(unitune: Command) -> str:
    write_rows(Path("train.jsonl"), rows(100))
    Path("unitune.yaml").write_text(PLANNED, encoding="utf-8")
    return unitune("plan").out


def run(unitune: Command) -> str:
    trained(triage_job(50))
    shown = unitune("runs", "show", "newest").out.replace(str(Path.cwd()), "PROJECT")
    return re.sub(r"(Took +).* s  ", r"\g<1>0 s  ", shown)


def registry(unitune: Command) -> str:
    job = triage_job(50, IMPROVE)
    passed = trained(job)
    compare(job, passed)
    unitune("models", "promote", passed.id, "--as", "production")
    shown = f"{unitune('models').out}\n{unitune('models', 'triage').out}"
    return re.sub(r"\d{4}-\d\d-\d\d", "2026-11-28", shown)


def compared(_: Command) -> str:
    made = sample_comparison(VERDICTS["better"], errors=3)
    return drawn(comparison.describe(gated(made, Gate(mode="improve"), required=4)))


def cost(_: Command) -> str:
    return drawn(total_cost.describe(example_cost()))


def curve(_: Command) -> str:
    return drawn(page.describe(learning_curve()))


def decision(_: Command) -> str:
    given = evidence.Evidence(
        job="demo",
        metric="exact",
        graded=False,
        margin=0.05,
        training_rows=100,
        validation_rows=60,
        test_cases=200,
        months=12,
        months_given=False,
        volume_given=False,
        options=(
            evidence.TuningOption(
                backend="local",
                base_model="small",
                trains_here=True,
                min_rows=10,
                curve_rows=40,
                prompts=(evidence.Score(name="few-shot", value=0.6, low=0.5, high=0.69),),
                tuned=evidence.Score(name="tuned", value=0.85, low=0.77, high=0.9),
                gain=evidence.Gain(
                    value=0.25, low=0.15, high=0.35, verdict=Verdict.BETTER, mean_square=0.3
                ),
                runs=("r261128-000000000000",),
                curve=learning_curve(),
            ),
        ),
    )
    made = evidence.Decision(created=CREATED, conclusion=rules.conclude(given), evidence=given)
    return drawn(evidence.describe(made))


def learning_curve() -> LearningCurve:
    """Return a curve whose error falls as 0.1 + 1.6 / sqrt(rows)."""

    def figure(value: float) -> Figure:
        return Figure(value=value, low=value - 0.03, high=value + 0.03)

    def score(size: int) -> float:
        return 0.9 - 1.6 / size**0.5

    sizes = (25, 50, 100)
    return LearningCurve(
        job="demo",
        backend="local",
        base_model="small",
        created=CREATED,
        metric="exact",
        cases=60,
        points=tuple(
            CurvePoint(
                rows=size,
                score=figure(score(size)),
                runs=tuple(
                    CurveRun(run=f"r{seed}", seed=seed, rows=size, score=score(size), errors=0)
                    for seed in range(2)
                ),
            )
            for size in sizes
        ),
        last_gain=figure(score(100) - score(50)),
        law=Law(form=Form.POWER, floor=0.1, scale=1.6, shape=figure(0.5), fitting=(Form.POWER,)),
        doubts=(),
        check=None,
        predictions=tuple(
            Prediction(rows=size, score=figure(score(size)), gain=figure(score(size) - score(100)))
            for size in (200, 400)
        ),
    )


def drawn(document: Document) -> str:
    file = io.StringIO()
    Console(file=file, width=80, highlight=False, force_terminal=True, color_system=None).print(
        terminal.view(document)
    )
    return file.getvalue()


def steady(text: str) -> str:
    """Return a text without what differs between two runs of the test."""
    for pattern, same in VARIABLE:
        text = re.sub(pattern, same or (lambda found: "0" * len(found[0])), text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    "screen",
    [check, plan, run, registry, compared, cost, curve, decision],
    ids=lambda f: f.__name__,
)
def test_a_screen_is_as_it_was_reviewed(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, screen: Callable[[Command], str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200" if screen is run else "80")  # it prints paths
    shown = steady(screen(unitune))
    file = SCREENS / f"{screen.__name__}.txt"
    if os.environ.get("UNITUNE_WRITE_SCREENS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(shown, encoding="utf-8")
    assert shown == file.read_text(encoding="utf-8")
