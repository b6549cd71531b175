"""Steps are told by what they have: a loss, a reward, or nothing but their number."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from pydantic import JsonValue
from rich.console import Console
from rich.text import Text
from support.command_line import Command
from support.job_files import write_job, write_rows

from unitune.backends.protocol import Event
from unitune.cli import watch
from unitune.cli.output import Terminal
from unitune.render.terminal import view
from unitune.report.run_document import describe, training_facts
from unitune.report.runs import event_line, step_facts
from unitune.run.curves import curve_of
from unitune.run.run import Run, runs
from unitune.testing import fake, fake_vendor


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"step": 2, "steps": 8, "loss": 0.5}, "step 2/8  loss 0.500"),
        ({"step": 2, "steps": 8, "reward": 0.25}, "step 2/8  reward 0.250"),
        (
            {"step": 2, "reward": 0.25, "no_signal": 0.125, "kl": 0.01},
            "step 2  reward 0.250  no signal 0.125  kl 0.010",
        ),
        ({"step": 2, "steps": 8}, "step 2/8"),
        ({"step": 2, "loss": None}, "step 2"),
        ({"loss": "low"}, ""),
    ],
)
def test_a_step_is_told_by_what_it_has(data: dict[str, object], words: str) -> None:
    assert words == step_facts(Event("k", "step", 0.0, data))  # type: ignore[arg-type] - JSON


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("validation", {"step": 3, "reward": 0.5}, "after step 3: validation reward 0.500"),
        ("validation", {"loss": 0.5}, "validation loss 0.500"),
        ("validation", {"step": 3}, ""),
        (
            "warning",
            {"text": "billing limit reached"},
            "billing limit reached",
        ),
        ("message", {"text": None}, ""),
    ],
)
def test_other_events_are_told_where_they_say_anything(
    kind: str, data: dict[str, object], words: str
) -> None:
    assert words == event_line(Event("k", kind, 0.0, data))  # type: ignore[arg-type] - JSON


def write_colours(folder: Path) -> None:
    write_rows(
        folder / "train.jsonl", [{"prompt": f"{n}?", "completion": "red"} for n in range(40)]
    )
    write_job(folder)


def test_a_backend_whose_steps_have_no_loss_is_followed_and_shown(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def silent(*arguments: object, **settings: object) -> tuple[Event, ...]:
        told = fake_vendor.events(*arguments, **settings)  # type: ignore[arg-type] - as it was called
        numbers = ({k: v for k, v in one.data.items() if k != "loss"} for one in told)
        return tuple(replace(one, data=data) for one, data in zip(told, numbers, strict=True))

    monkeypatch.setattr(fake, "events", silent)
    write_colours(tmp_path)
    ended = unitune("run", "unitune.yaml")
    assert ended.code == 0, ended.err
    assert "loss" not in ended.err
    (run,) = (tmp_path / ".unitune" / "runs").iterdir()
    shown = unitune("runs", "show", run.name)
    assert shown.code == 0
    assert "4 of 4" in shown.out
    assert "loss" not in shown.out


@pytest.fixture
def run(unitune: Command, tmp_path: Path) -> Run:
    write_colours(tmp_path)
    assert unitune("run", "unitune.yaml").code == 0
    return runs()[0]


def terminal(width: int, height: int = 40) -> Terminal:
    return Terminal(file=StringIO(), force_terminal=True, width=width, height=height)


def printed(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return Text.from_ansi(console.file.getvalue()).plain


def test_a_run_is_shown_with_its_losses_drawn_where_they_fit(run: Run) -> None:
    for width, draws in ((80, True), (120, True), (40, False)):
        console = terminal(width)
        console.print(view(describe(run)))
        lines = printed(console).splitlines()
        assert draws == any(line.rstrip().endswith("steps") for line in lines)
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("height", "draws"), [(40, True), (12, False)])
def test_losses_are_drawn_below_the_bar_while_there_is_room(height: int, *, draws: bool) -> None:
    console = terminal(80, height)
    with watch.TrainingProgress(console=console, transient=True) as progress:
        for step in (1, 2, 3):
            data: dict[str, JsonValue] = {"step": step, "loss": 4.0 / step}
            progress.events.append(Event(f"step-{step}", "step", 0.0, data))
    assert draws == ("training 1.33" in printed(console))


def test_a_run_is_told_why_it_ended_and_which_step_is_the_model(run: Run) -> None:
    text = "ended early, at step 4 of 9, after 2 evaluations without a gain; kept step 2"
    kept = Event("kept", "message", 0.0, {"text": text, "kept_step": 2})
    step = Event("step-4", "step", 0.0, {"step": 4, "steps": 9, "loss": 1.0})
    figures = {
        fact.term: fact for fact in training_facts(run, [step, kept], curve_of([step, kept]))
    }
    assert figures["Step kept"][1:3] == ("2", text)
    assert text == event_line(kept)


def test_the_requests_of_a_judge_are_shown_with_their_cost(run: Run) -> None:
    judge: dict[str, JsonValue] = {
        "judge_requests": 1592, "judge_usd": 0.031, "judge_failed": 0.0125
    }  # fmt: skip
    step = Event("step-4", "step", 0.0, {"step": 4, "steps": 9, "reward": 0.5, **judge})
    figures = {fact.term: fact for fact in training_facts(run, [step], curve_of([step]))}
    expected = ("1,592", "$0.04 at the last step, 1.2 % without a verdict")
    assert figures["Judge's requests"][1:3] == expected
