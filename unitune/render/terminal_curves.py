"""Draw figures by step or by rows in a terminal: lines of dots with marks.

The drawing is readable without colour. A cell has two by four dots (Unicode's braille patterns).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.text import Text

from unitune.render.charts import Axis, DrawnCurve, short_number

# Approximate numbers of rows; the numbers at the left are equally far apart
ROWS, RATE_ROWS = 9, 4
LEAST_WIDTH, MOST_WIDTH = 60, 100  # columns: below, nothing is shown; above, nothing is gained
# By row and column of a cell. Source: the Unicode Standard 16.0, chart U2800.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
MARK, KEPT, SPAN = "●", "◆", "│"
ACCENT = "cyan"


def curve_text(curve: DrawnCurve, width: int, rows: int = ROWS) -> Text:
    """Return a drawing, including its axes, that fits a width in columns."""
    gaps = len(curve.y.ticks) - 1
    rows = max(1, round((rows - 1) / gaps)) * gaps + 1
    axis = {_row(curve.y, tick, rows): short_number(tick) for tick in curve.y.ticks}
    ends = _line_labels(curve, rows)
    left, right = (max(map(len, labels.values()), default=0) for labels in (axis, ends))
    columns = min(width, MOST_WIDTH) - left - right - 3
    cells, marks = _cells(curve, columns, rows), _marks(curve, columns, rows)
    text = Text(f"{curve.figure}\n", "bold", no_wrap=True)
    for row in range(rows):
        text.append(f"{axis.get(row, ''):>{left}} {'┤' if row in axis else '│'}", "dim")
        for column in range(columns):
            mark, dots = marks.get((row, column)), cells.get((row, column))
            text.append(mark or (chr(0x2800 + dots) if dots else " "), ACCENT if mark else "")
        label = ends.get(row, "")
        text.append(
            f" {label}".rstrip() + "\n", ACCENT if label.startswith((curve.marked, KEPT)) else ""
        )
    text.append(f"{'':{left}} └{'─' * columns}\n", "dim")
    return text.append(f"{'':{left + 2}}{_step_numbers(curve, columns)}", "dim")


def _line_labels(curve: DrawnCurve, rows: int) -> dict[int, str]:
    """Return the labels at the right by row: each line's name and last value, one per row."""
    texts = [(label.y, f"{label.name} {short_number(label.value, 3)}") for label in curve.labels]
    if (kept := curve.kept) is not None:
        y = 100 - curve.y.position(kept.value)
        texts.append((y, f"{KEPT} step {kept.step:.0f} kept, {kept.value:.3g}"))
    labels: dict[int, str] = {}
    lowest = -1
    for left, (y, text) in zip(reversed(range(len(texts))), sorted(texts), strict=True):
        lowest = max(min(round(y / 100 * (rows - 1)), rows - 1 - left), lowest + 1)
        labels[lowest] = text
    return labels


def _cells(curve: DrawnCurve, columns: int, rows: int) -> dict[tuple[int, int], int]:
    cells: dict[tuple[int, int], int] = {}
    for name, line in curve.lines.items():
        for x, y in _dots(curve.positions(line), columns, rows) if name != curve.marked else ():
            place = (y // 4, x // 2)
            cells[place] = cells.get(place, 0) | DOTS[y % 4][x % 2]
    return cells


def _dots(
    positions: Sequence[tuple[float, float]], columns: int, rows: int
) -> Iterator[tuple[int, int]]:
    """Yield the dots of a line through positions in percent, without gaps."""
    wide, high = 2 * columns - 1, 4 * rows - 1
    places = [(x / 100 * wide, y / 100 * high) for x, y in positions]
    for (x, y), (next_x, next_y) in pairwise([*places[:1], *places]):
        count = max(1, math.ceil(max(abs(next_x - x), abs(next_y - y))))
        for part in range(1, count + 1):
            share = part / count
            yield round(x + share * (next_x - x)), round(y + share * (next_y - y))


def _marks(curve: DrawnCurve, columns: int, rows: int) -> dict[tuple[int, int], str]:
    """Return ranges and marks by row and column; marks take precedence, first the kept step's."""
    points = curve.lines.get(curve.marked, ())
    ordered = sorted(points, key=lambda point: point == curve.kept)
    spans = {
        (row, _column(curve.x, span.step, columns)): SPAN
        for span in curve.spans
        for row in range(_row(curve.y, span.high, rows), _row(curve.y, span.low, rows) + 1)
    }
    return spans | {
        (_row(curve.y, point.value, rows), _column(curve.x, point.step, columns)): KEPT
        if point == curve.kept
        else MARK
        for point in ordered
    }


def _step_numbers(curve: DrawnCurve, columns: int) -> str:
    line = ""
    for tick in curve.x.ticks:
        number = f"{tick:,g}"
        start = max(0, _column(curve.x, tick, columns) - len(number) // 2)
        if not line or start > len(line):
            line = f"{line:{start}}{number}"
    return f"{line} {curve.unit}"


def _row(axis: Axis, value: float, rows: int) -> int:
    return round((100 - axis.position(value)) / 100 * (rows - 1))


def _column(axis: Axis, value: float, columns: int) -> int:
    return round(axis.position(value) / 100 * (columns - 1))
