from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sample_comparison import VERDICTS, sample_comparison

from unitune.render.charts import (
    LABEL_GAP,
    LOWEST_LABEL,
    Axis,
    CaseStrip,
    Point,
    Stroke,
    drawn_curve,
    drawn_rates,
    short_number,
    thinned,
)
from unitune.render.html import environment
from unitune.render.sections import Interval
from unitune.report import words
from unitune.report.charts import PERCENT, case_strip, difference_chart
from unitune.run.curves import Curve


def drawn(name: str, *arguments: object) -> ET.Element:
    """Draw a chart of ``charts.html.j2``."""
    macro = getattr(environment().get_template("charts.html.j2").module, name)
    return ET.fromstring(str(macro(*arguments)))  # noqa: S314 - our own drawing


def training_curve(curve: Curve) -> ET.Element:
    return drawn("training_curve", drawn_curve(curve))


def percent(mark: ET.Element, name: str) -> float:
    return float(mark.attrib[name].removesuffix("%"))


def mark(svg: ET.Element, name: str) -> ET.Element:
    """The one element of a class."""
    (found,) = (element for element in svg.iter() if element.attrib.get("class") == name)
    return found


def dots(svg: ET.Element) -> list[ET.Element]:
    return list(svg.iter("circle"))


def line(svg: ET.Element, name: str) -> list[tuple[float, float]]:
    places = (pair.split(",") for pair in mark(svg, name).attrib["points"].split())
    return [(float(x), float(y)) for x, y in places]


def test_a_score_is_drawn_where_its_share_stands_between_0_and_100_percent() -> None:
    tuned = words.contender(sample_comparison(), "tuned")
    low, high = (100 * end for end in tuned.interval)
    svg = drawn("interval", PERCENT, Interval(100 * tuned.score, low, high))

    (dot,) = dots(svg)
    span = mark(svg, "span")

    assert percent(dot, "cx") == pytest.approx(100 * tuned.score, abs=0.01)
    assert percent(span, "x1") == pytest.approx(100 * tuned.interval[0], abs=0.01)
    assert percent(span, "x2") == pytest.approx(100 * tuned.interval[1], abs=0.01)


def test_only_the_candidate_is_drawn_in_the_accent_colour() -> None:
    shades = (Interval(50, 40, 60, "accent"), Interval(50, 40, 60))
    classes = [drawn("interval", PERCENT, each).attrib["class"].split() for each in shades]

    assert classes == [["interval", "accent"], ["interval"]]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_difference_its_interval_and_the_margin_share_one_scale(verdict: str) -> None:
    comparison = sample_comparison(VERDICTS[verdict])
    svg = drawn("difference", difference_chart(comparison))
    zero, zone = mark(svg, "zero"), mark(svg, "zone")
    span, (dot,) = mark(svg, "span"), dots(svg)
    origin = percent(zero, "x1")
    point = percent(zone, "width") / (200 * comparison.margin)  # percent of the width

    def position(difference: float) -> float:
        return origin + 100 * difference * point

    assert percent(zone, "x") == pytest.approx(position(-comparison.margin), abs=0.1)
    assert percent(dot, "cx") == pytest.approx(position(comparison.difference), abs=0.1)
    assert percent(span, "x1") == pytest.approx(position(comparison.interval[0]), abs=0.1)
    assert percent(span, "x2") == pytest.approx(position(comparison.interval[1]), abs=0.1)
    assert all(0 <= percent(span, end) <= 100 for end in ("x1", "x2"))


def test_the_difference_is_also_told_in_words() -> None:
    comparison = sample_comparison()
    svg = drawn("difference", difference_chart(comparison))
    title, text = svg.attrib["aria-label"].split(": ")

    assert svg.attrib["role"] == "img"
    assert title == "Difference of tuned and few-shot, in points"
    assert text == "+46.7 points, 95 % interval from 38.6 to 54.4, margin from -5.0 to 5.0."


def test_the_loss_curve_draws_every_validation_loss_and_ends_at_the_last_loss() -> None:
    curve = Curve(
        steps=(1, 2, 3, 4),
        values=(4.0, 3.0, 2.0, 1.0),
        validation_steps=(2, 4),
        validation_values=(3.0, 2.0),
    )
    svg = training_curve(curve)

    assert line(svg, "training") == [(25, 0), (50, 25), (75, 50), (100, 75)]
    assert line(svg, "validation") == [(50, 25), (100, 50)]
    assert [(percent(dot, "cx"), percent(dot, "cy")) for dot in dots(svg)] == [(50, 25), (100, 50)]
    ends = [text.text for text in svg.iter("text") if "end" in text.attrib.get("class", "")]
    assert ends == ["validation 2", "training 1"]


def test_lines_that_end_together_keep_their_names_apart() -> None:
    curve = Curve(steps=(1, 2), values=(2, 1), validation_steps=(1, 2), validation_values=(2, 1))
    svg = training_curve(curve)
    places = [
        percent(text, "y") for text in svg.iter("text") if "end" in text.attrib.get("class", "")
    ]

    assert abs(places[0] - places[1]) >= LABEL_GAP


def test_the_names_of_lines_stay_above_the_numbers_of_the_steps() -> None:
    flat = Curve(steps=(1, 150), values=(2, 0), validation_steps=(150,), validation_values=(0,))
    curve = drawn_curve(flat)
    assert curve is not None
    assert [label.y for label in curve.labels] == [LOWEST_LABEL - LABEL_GAP, LOWEST_LABEL]


def test_lines_end_at_the_end_of_the_axis() -> None:
    curve = drawn_curve(Curve(steps=(1, 170), values=(2, 1)))
    assert curve is not None
    assert (curve.x.high, curve.x.ticks) == (170, (0, 50, 100, 150))


def test_the_strip_has_a_line_for_each_case_that_was_gained_or_lost() -> None:
    strip = case_strip(["gained", "both right", "lost", "both wrong", "gained"])
    gained, lost = (Stroke(0.5, 1, 1), Stroke(4.5, 1, 1)), (Stroke(2.5, 1, 1),)
    assert strip == CaseStrip(5, 1, gained, lost)
    svg = drawn("case_strip", strip)
    assert [path.attrib["d"].count("M") for path in svg.iter("path")] == [2, 1]
    assert case_strip(["both right", "both wrong"]) is None


def test_a_line_of_a_long_strip_stands_for_several_cases() -> None:
    """20,000 lines would be a solid bar."""
    outcomes = (["gained"] * 5 + ["lost"] * 10 + ["both right"] * 5) * 1000
    strip = case_strip(outcomes)
    assert strip is not None
    assert (strip.cases, strip.step) == (20_000, 20)
    assert strip.gained[1] == Stroke(30, 5, 0.5)
    assert strip.lost[1] == Stroke(30, 10, 1)
    assert len(strip.gained) == len(strip.lost) == 1000


def test_the_loss_curve_is_also_told_in_words() -> None:
    svg = training_curve(Curve(steps=(1, 9), values=(4.0, 1.5)))
    told = "The training loss goes from 4 at step 1 to 1.5 at step 9."
    assert svg.attrib["aria-label"].endswith(told)


@pytest.mark.parametrize(
    "curve",
    [
        Curve(steps=(), values=()),
        Curve(steps=(1, 2), values=(math.nan, math.inf)),
    ],
)
def test_without_a_finite_loss_there_is_no_chart(curve: Curve) -> None:
    assert drawn_curve(curve) is None


def test_a_single_loss_of_zero_can_be_drawn() -> None:
    svg = training_curve(Curve(steps=(1,), values=(0.0,)))

    assert line(svg, "training") == [(100, 100)]


def test_a_long_line_is_averaged_in_runs() -> None:
    points = [Point(step, 2.0 * step) for step in range(10)]

    assert thinned(points, 4) == (Point(1, 2), Point(4, 8), Point(7, 14), Point(9, 18))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_an_axis_holds_its_values_between_few_round_ticks(values: list[float]) -> None:
    axis = Axis.around(values)

    hair = 1e-8 * (axis.high - axis.low)
    assert axis.low <= min(values) + hair
    assert axis.high >= max(values) - hair
    assert 2 <= len(axis.ticks) <= 6
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])
    assert (axis.position(axis.low), axis.position(axis.high)) == (0, 100)


EVALUATED = Curve(
    steps=(1, 2, 3, 4),
    values=(4.0, 2.0, 1.0, 0.5),
    validation_steps=(2, 4),
    validation_values=(2.0, 3.0),
    learning_rates=(1e-4, 2e-4, 1e-4, 0.0),
    kept_step=2,
)


def test_the_kept_step_has_a_ring_where_its_loss_stands() -> None:
    svg = training_curve(EVALUATED)
    ring, first = mark(svg, "kept"), dots(svg)[0]
    assert (percent(ring, "cx"), percent(ring, "cy")) == (50.0, 50.0)
    assert (percent(first, "cx"), percent(first, "cy")) == (50.0, 50.0)
    assert svg.attrib["aria-label"].endswith(
        "The model is that of step 2, whose validation loss is 2."
    )
    plain = EVALUATED.model_copy(update={"kept_step": None})
    assert "kept" not in ET.tostring(training_curve(plain), "unicode")


def test_learning_rates_are_drawn_where_they_are_known() -> None:
    rates = drawn_rates(EVALUATED)
    assert rates is not None
    assert (Point(1, 1e-4), Point(4, 0.0)) == (
        rates.lines["training"][0],
        rates.lines["training"][-1],
    )
    assert "learning rate goes from 0.0001 at step 1 to 0 at step 4." in rates.description
    assert drawn_rates(Curve(steps=(1, 2), values=(2, 1))) is None


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (1500, "1500"),
        (2.5e-4, "2.5e-4"),
        (1e-5, "1e-5"),
        (-5e-3, "-5e-3"),
    ],
)
def test_small_numbers_are_short(value: float, short: str) -> None:
    assert short == short_number(value)
