"""Describe a learning curve: the benefit of more rows, the curve, and its runs."""

from __future__ import annotations

from collections.abc import Iterator

from unitune.curve import documents as document
from unitune.curve.documents import FARTHEST, LearningCurve, RowsForGoal
from unitune.render.charts import Axis, DrawnCurve, LogAxis, Point, Span
from unitune.render.sections import Cell, Document, Fact, Facts, Figure, Section, Table
from unitune.render.typography import counted, decimal, moment, percent, points, two_digits

PAGE = "learning-curve.html"
FITTED_POINTS = 60  # points of the drawn line
ADVICE = "More --seeds and more validation rows make the ranges narrower."


def headline(curve: LearningCurve) -> str:
    """Return a sentence on the benefit of twice as many rows."""
    if not curve.predictions:
        return "The scores do not show what more rows would bring"
    low, high = _ends(curve.predictions[0].gain)
    return f"Twice the rows would bring {low} to {high} points"


def describe(curve: LearningCurve) -> Document:
    """Return the document of a learning curve."""
    return Document(
        title=headline(curve),
        about=(curve.job, f"{curve.base_model} on {curve.backend}", moment(curve.created)),
        text=_measured(curve),
        notes=curve.notes,
        tone="doubtful" if curve.doubts else "good",
        sections=(
            Section("What more rows would bring", [Facts([*facts(curve)], "figures")]),
            Section("The curve", [Figure(drawn(curve), _caption(curve))]),
            Section("The runs", [_runs(curve)]),
        ),
    )


def _measured(curve: LearningCurve) -> str:
    return (
        f"Mean {curve.metric} on {curve.cases:,} validation rows, of runs with several seeds on "
        "nested parts of the training rows. The test rows had no part in it."
    )


def facts(curve: LearningCurve) -> Iterator[Fact]:
    """Yield the results of the curve with their ranges, or the reason for their absence."""
    for each in curve.predictions:
        gained = f"{_range(each.gain, sign=True)} points beyond {curve.rows:,} rows"
        yield Fact(f"{each.rows:,} rows", _score(each.score), gained)
    if curve.doubts:
        yield Fact("More rows", "cannot tell", " ".join([*curve.doubts, ADVICE]))
    if curve.goal is not None:
        yield _goal(curve, curve.goal)
    if (check := curve.check) is not None and check.measured is not None:
        low, high = check.score.low or 0, check.score.high or 0
        where = "within" if low <= check.measured <= high else "outside"
        yield Fact(
            "Check",
            _score(check.score),
            f"{check.rows:,} rows as the smaller sizes alone predict them; measured "
            f"{percent(check.measured)}, {where} that range",
        )


def _goal(curve: LearningCurve, goal: RowsForGoal) -> Fact:
    term = f"For {percent(goal.score)}"
    if goal.reached:
        return Fact(term, "reached", f"{curve.rows:,} rows score {_score(curve.points[-1].score)}")
    if goal.rows is None:
        return Fact(term, "cannot tell", "for the same reason")
    if goal.rows.low is None:
        return Fact(term, _rows(curve, None), "too far beyond the measured sizes to estimate")
    low, high = _rows(curve, goal.rows.low), _rows(curve, goal.rows.high)
    return Fact(term, f"{_rows(curve, goal.rows.value)} rows", f"{low} to {high} rows")


def _rows(curve: LearningCurve, rows: float | None) -> str:
    """Return a number of rows with two significant digits."""
    if rows is None:
        return f"more than {FARTHEST * curve.rows:,}"
    return two_digits(rows)


def _score(figure: document.Figure) -> str:
    return f"{percent(figure.value or 0)} ({_range(figure)})"


def _range(figure: document.Figure, *, sign: bool = False) -> str:
    low, high = _ends(figure)
    return f"{'+' if sign and not low.startswith('-') else ''}{low} to {high}"


def _ends(figure: document.Figure) -> tuple[str, str]:
    return decimal(100 * (figure.low or 0)), decimal(100 * (figure.high or 0))


def drawn(curve: LearningCurve) -> DrawnCurve:
    """Return the drawing: measured scores and, if there is a fit, its curve."""
    ahead = [each.rows for each in curve.predictions]
    sizes = [point.rows for point in curve.points]
    x = LogAxis(float(sizes[0]), float((sizes + ahead)[-1]), tuple(map(float, sizes + ahead)))
    means = tuple(Point(point.rows, 100 * (point.score.value or 0)) for point in curve.points)
    figures = [(each.rows, each.score) for each in (*curve.points, *curve.predictions)]
    spans = tuple(
        Span(rows, 100 * (score.low or 0), 100 * (score.high or 0)) for rows, score in figures
    )
    lines = {"measured": means}
    if ahead:
        ratio = x.high / x.low
        steps = (x.low * ratio ** (at / FITTED_POINTS) for at in range(FITTED_POINTS + 1))
        lines = {"fitted": tuple(Point(n, 100 * curve.law.score(n)) for n in steps)} | lines
    values = [value for span in spans for value in (span.low, span.high)]
    values += [point.value for line in lines.values() for point in line]
    return DrawnCurve(
        "score, %", lines, x, Axis.around(values), marked="measured", unit="rows", spans=spans
    )


def _caption(curve: LearningCurve) -> str:
    text = (
        "Score by the number of training rows; each step to the right has twice the rows. A bar is "
        f"the {100 * curve.level:.0f} % range, over seeds and cases."
    )
    if not curve.predictions:
        return text
    return (
        f"{text} The line is the power law through the measured scores; beyond {curve.rows:,} rows "
        "it is a prediction."
    )


def _runs(curve: LearningCurve) -> Table:
    seeds = [f"#Seed {run.seed}" for run in curve.points[0].runs]
    gain = f"{points(curve.last_gain.value or 0, sign=True)} ({_range(curve.last_gain)})"
    rows: list[list[Cell]] = []
    for point in curve.points:
        cells = [Cell(f"{point.rows:,}", strong=True)]
        for run in point.runs:
            errors = f", {counted(run.errors, 'error')}" if run.errors else ""
            cells.append(Cell(decimal(100 * run.score), f"{run.run}{errors}"))
        mean = percent(point.score.value or 0)
        rows.append([*cells, Cell(mean, _range(point.score), strong=True)])
    return Table(
        ["Rows", *seeds, f"#Mean, {100 * curve.level:.0f} % range"],
        rows,
        f"{curve.metric}, %. The last doubling of the rows brought {gain}.",
    )
