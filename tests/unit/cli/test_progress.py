"""What is seen while one waits: bars that can be read at any width, lines where there are none."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from unitune.backends.protocol import Event
from unitune.cli import progress, watch
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.report.runs import step_facts
from unitune.workspace.progress import counted, report

STEP = Event(
    "1",
    "step",
    0.0,
    {"step": 12, "steps": 87, "loss": 0.4123, "tokens_per_second": 1234.0, "seconds_left": 290.0},
)
BAR = "\u2501\u2578\u257a"
DRAWN_SECONDS = 2.5 / progress.REFRESHES_PER_SECOND
"""After that, whatever was counted has been drawn."""
COLOURS = "standard"
"""Without colours rich draws only what is done of a bar."""


def terminal(monkeypatch: pytest.MonkeyPatch, width: int, *, live: bool = True) -> io.StringIO:
    screen = io.StringIO()
    console = Console(
        file=screen, width=width, height=20, force_terminal=live, color_system=COLOURS
    )
    for module in (progress, watch):
        monkeypatch.setattr(module, "aside", lambda: console)
    return screen


def lines_of(screen: io.StringIO) -> list[str]:
    """Return the lines that were drawn, without colours and movements."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()))


class Training:
    """A run that makes one step."""

    id = "r261127-pttrrwmpj4kb"
    estimate = None

    def watch(self) -> list[Event]:
        return [STEP]


@pytest.mark.parametrize(("width", "bar"), [(80, 12), (120, 24)])
def test_a_training_has_a_bar_and_its_time_left_on_one_line(
    width: int, bar: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch, width)
    watch._follow_live(Training())  # pyright: ignore[reportArgumentType] - as much of a run as is used
    (line,) = {line.rstrip()[2:] for line in lines_of(screen) if "loss 0.412  " in line}
    assert "step 12/87" in line
    assert "5 min left" in line
    assert bar == sum(line.count(piece) for piece in "━╸╺")


def test_brief_facts_leave_out_what_is_not_needed_to_wait() -> None:
    assert step_facts(STEP) == "step 12/87  loss 0.412  1,234 tokens/s  5 min left"
    assert step_facts(STEP, brief=True) == "step 12/87  loss 0.412  5 min left"


def answered(done: int) -> EvaluationProgress:
    return EvaluationProgress("few-shot", "dev", "8 nearest shots, with instructions", done, 200)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_prompt_leaves_the_bar_its_width(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch, width)
    with progress.evaluation_progress(quiet=False) as show:
        assert show is not None
        show(answered(50))
    lines = [line for line in lines_of(screen) if "50/200" in line]
    assert lines
    assert all(sum(line.count(piece) for piece in "━╸╺") >= 12 for line in lines)
    assert all("-:--" in line or "0:00" in line for line in lines)


def test_a_pipe_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of one contender in a log of CI would else be silence."""
    screen, clock = terminal(monkeypatch, 120, live=False), iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with progress.evaluation_progress(quiet=False) as show:
        assert show is not None
        for done in (1, 2, 3, 4, 200):
            show(answered(done))
    title = "dev: few-shot: 8 nearest shots, with instructions, "
    assert lines_of(screen)[:-1] == [
        f"{title}2 of 200 cases answered",
        f"{title}4 of 200 cases answered",
        f"{title}200 cases answered",
    ]


@pytest.mark.parametrize(("live", "quiet", "shown"), [(True, False, True), (True, True, False)])
def test_a_step_without_a_measure_shows_that_it_works(
    monkeypatch: pytest.MonkeyPatch, *, live: bool, quiet: bool, shown: bool
) -> None:
    screen = terminal(monkeypatch, 80, live=live)
    with progress.working("reading rows", quiet=quiet):
        pass
    assert shown == ("reading rows …" in screen.getvalue())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_step_that_counts_itself_has_a_bar_and_its_time_left(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half done in four seconds takes four more."""
    screen, now = terminal(monkeypatch, width), {"seconds": 0.0}
    monkeypatch.setattr(progress.aside(), "get_time", lambda: now["seconds"])
    monkeypatch.setattr(progress, "DRAW_SECONDS", 0.0)
    with progress.working("reading rows", quiet=False):
        for seconds, done in ((0.0, 0), (2.0, 250), (4.0, 500)):
            now["seconds"] = seconds
            report("reading train.jsonl", done, 1000)
        time.sleep(DRAWN_SECONDS)
        half = lines_of(screen)[-1]
        report("reading train.jsonl", 1000, 1000)
        time.sleep(DRAWN_SECONDS)
        waiting = lines_of(screen)[-1]
    assert half[2:].startswith("reading train.jsonl ")
    assert half.rstrip().endswith("50 %  00:04 left")
    assert (12 if width < 100 else 24) == sum(half.count(piece) for piece in BAR)
    assert waiting[2:].startswith("reading rows \u2026 ")


def test_no_one_counts_where_no_bar_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = range(10)
    for live, quiet in ((False, False), (True, True)):
        terminal(monkeypatch, 80, live=live)
        with progress.working("reading rows", quiet=quiet):
            assert rows is counted(rows, "reading", 10)
