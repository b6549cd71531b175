"""A training's losses in a terminal: where lines and marks stand, at any width."""

from __future__ import annotations

import pytest

from unitune.backends.protocol import Event
from unitune.render import terminal
from unitune.render.charts import drawn_curve, drawn_rates
from unitune.render.sections import Document, Fact, Facts, Figure, Section
from unitune.render.terminal_curves import LEAST_WIDTH, RATE_ROWS, curve_text
from unitune.run.curves import Curve, curve_of

CURVE = Curve(
    steps=(0, 1, 2, 3, 4),
    values=(4.0, 3.0, 2.0, 1.0, 0.0),
    validation_steps=(0, 2, 4),
    validation_values=(4.0, 2.0, 3.0),
    learning_rates=(1e-3, 1e-3, 1e-3, 1e-3, 1e-3),
    kept_step=2,
)


def lines_of(curve: Curve, width: int) -> list[str]:
    drawn = drawn_curve(curve)
    assert drawn is not None
    return curve_text(drawn, width).plain.split("\n")


def test_without_a_terminal_it_leaves_no_empty_lines() -> None:
    figures = [Figure(drawn_curve(CURVE), "loss"), Figure(drawn_rates(CURVE), "rates")]
    section = Section("The training", [Facts([Fact("Steps", "4")]), *figures])
    document = Document(title="run", about=("job",), sections=(section,))
    assert terminal.text(document).split("The training\n")[1].split() == ["Steps", "4"]
    assert terminal.text(document).endswith("Steps  4")


@pytest.mark.parametrize("width", [LEAST_WIDTH, 80, 120, 400])
def test_it_fits_any_width(width: int) -> None:
    lines = lines_of(CURVE, width)
    assert max(map(len, lines)) <= min(width, 101)
    assert lines[0] == "loss"
    assert lines[-1].endswith("4 steps")


def test_marks_stand_at_the_losses_of_the_validation_and_the_kept_one_is_another() -> None:
    """The loss is 4 to 0 over nine rows, so that each half is a row."""
    title, *rows, axis, _ = lines_of(CURVE, 80)
    assert (len(rows), title) == (9, "loss")
    start, end = axis.index("\u2514") + 1, len(axis) - 1
    assert (rows[0][start], rows[2][end]) == ("\u25cf", "\u25cf")
    assert abs(rows[4].index("\u25c6") - (start + end) / 2) <= 0.5
    assert [row[:1] for row in rows[::2]] == ["4", "3", "2", "1", "0"]
    assert rows[2].endswith("validation 3")
    assert rows[8].endswith("training 0")
    assert any(row.endswith("\u25c6 step 2 kept, 2") for row in rows)


def test_the_line_of_the_training_falls_from_corner_to_corner() -> None:
    """In braille the first dot of a cell is bit 0, the last one bit 7 (Unicode's U2800 chart)."""
    curve = CURVE.model_copy(update={"validation_steps": (), "validation_values": ()})
    _, *rows, axis, _ = lines_of(curve, 80)
    start, end = axis.index("\u2514") + 1, len(axis) - 1
    assert ord(rows[0][start]) & 0x01
    assert ord(rows[8][end]) & 0x80
    drawn = [[at for at, letter in enumerate(row[start:]) if letter >= "\u2800"] for row in rows]
    assert all(cells for cells in drawn), "without gaps"
    assert [cells[0] for cells in drawn] == sorted(cells[0] for cells in drawn)


def test_a_constant_learning_rate_is_a_level_line() -> None:
    rates = drawn_rates(CURVE)
    assert rates is not None
    title, *rows, _, _ = curve_text(rates, 80, RATE_ROWS).plain.split("\n")
    assert title == "learning rate"
    assert sum(any(letter >= "\u2800" for letter in row) for row in rows) == 1
    assert any(row.lstrip().startswith("1e-3 ") for row in rows)


def events(*data: tuple[str, dict[str, float]]) -> list[Event]:
    return [Event(f"{at}", kind, 0.0, dict(each)) for at, (kind, each) in enumerate(data)]  # type: ignore[arg-type] - kinds


def test_rates_are_none_where_one_is_unknown_and_the_last_kept_step_counts() -> None:
    first = ("step", {"step": 1, "loss": 2.0, "learning_rate": 0.1})
    second = ("step", {"step": 2, "loss": 1.0})
    kept = [("message", {"kept_step": step}) for step in (1, 2)]
    curve = curve_of(events(first, second, *kept))
    assert curve is not None
    assert (curve.steps, curve.learning_rates, curve.kept_step) == ((1, 2), (), 2)
    known = curve_of(events(first, ("step", {**second[1], "learning_rate": 0.2})))
    assert known is not None
    assert (known.learning_rates, known.kept_step) == ((0.1, 0.2), None)
    assert curve_of([]) is None
