"""What a job, a plan and a run show in a notebook, and the line that goes on below a cell."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import unitune
from unitune.backends.protocol import Event
from unitune.run.curves import step_words
from unitune.workspace.progress import live

HOSTILE = "</td><script>alert(1)</script>"
ROW = '{"prompt": "q%d", "completion": "a"}\n'


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> unitune.Job:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text("".join(ROW % n for n in range(60)))
    return unitune.Job(
        name="demo", model="tiny", backend="fake", data=unitune.Data(train="train.jsonl")
    )


def html(value: Any) -> str:
    return value._repr_html_()


def rows(shown: str) -> dict[str, str]:
    return dict(re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", shown, re.DOTALL))


def test_a_job_shows_what_it_says_and_no_defaults(job: unitune.Job) -> None:
    shown = html(job)
    assert "<b>Job demo: " in shown
    said = {"model": "tiny", "backend": "fake", "data": "train: train.jsonl"}
    assert said == rows(shown)


def test_a_plan_shows_its_figures_and_findings(job: unitune.Job) -> None:
    shown = rows(html(unitune.plan(job)))
    assert shown["rows"].startswith("30 to train on, 30 to choose prompts on")
    without = job.model_copy(update={"data": unitune.Data(train="nope.jsonl")})
    assert "nope.jsonl" in rows(html(unitune.plan(without)))["error"]


def test_a_run_shows_its_state_and_last_step(job: unitune.Job) -> None:
    run = unitune.launch(job).wait()
    shown = rows(html(run))
    assert shown["Steps"].startswith("4 of 4")
    assert f"<b>{run.id}: demo: succeeded" in html(run)


def test_whatever_a_document_holds_is_text(job: unitune.Job) -> None:
    shown = html(job.model_copy(update={"name": HOSTILE, "model": HOSTILE}))
    assert not re.search("<script|<style|<link|src=|href=", shown)
    assert shown.count("&lt;script&gt;") == 2


def test_a_plan_prints_as_its_sections(job: unitune.Job) -> None:
    printed = str(unitune.plan(job))
    assert printed.startswith("demo  ")
    assert re.search(r"^rows +30 to train on", printed, re.MULTILINE)
    assert "\x1b" not in printed


def test_a_step_is_said_with_what_is_known() -> None:
    step = Event("k", "step", 0.0, {"step": 3, "steps": 15, "loss": 0.4123})
    assert step_words(step) == "step 3 of 15, loss 0.412"
    assert step_words(Event("k", "step", 0.0, {"step": 3})) == "step 3"
    assert step_words(Event("k", "message", 0.0, {"text": "hello"})) == ""


def test_a_line_goes_on_in_a_notebook_alone(
    job: unitune.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPython is no package of ours: this stands for what a kernel has in `sys.modules`."""
    assert live() is None
    lines: list[str] = []
    shell, handle = SimpleNamespace(), SimpleNamespace(update=lines.append)

    def shown(_: str, display_id: bool) -> SimpleNamespace:  # noqa: FBT001 - as IPython's
        assert display_id
        return handle

    display = SimpleNamespace(HTML=str, display=shown)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # type: ignore[arg-type]
    assert live() is None, "its own prompt is a terminal"
    shell.kernel = object()
    run = unitune.launch(job).wait()
    assert lines
    assert re.fullmatch(rf"<pre>{run.id}: step \d+ of \d+, loss [\d.]+</pre>", lines[-1])
