"""Style: the distance of answers to the training answers, in the house's own spread."""

from __future__ import annotations

import json
import random
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.told import PAIR, told

from unitune.errors import JobError
from unitune.evaluate.compare import compare
from unitune.report.files import html_page as page
from unitune.report.files import markdown_summary
from unitune.scorers.interface import Measured
from unitune.scorers.style import MOST, SMALLEST_YARDSTICK, Style, Terms, describe


def seeded(text: str) -> random.Random:
    return random.Random(text)  # noqa: S311 - for samples


def house_answer(draw: random.Random) -> str:
    """A short reply of a cheerful house that never lists anything."""
    opening = draw.choice(["Hi there!", "Hello!", "Hi!"])
    middle = " ".join(
        f"We'll {draw.choice(['check', 'send', 'fix'])} {draw.choice(['your card', 'the order'])} "
        f"{draw.choice(['today', 'right away', 'by tomorrow', 'for you this week'])}."
        for _ in range(draw.randint(1, 3))
    )
    return f"{opening} {middle} {draw.choice(['Thanks!', 'Have a great day!', 'Bye for now.'])}"


def other_answer(draw: random.Random) -> str:
    """A long answer with a heading and a list, as an untuned model gives it."""
    points = "\n".join(
        f"{at}. **Step {at}**: The customer is advised to contact the responsible department "
        f"regarding the {draw.choice(['card', 'transaction', 'order'])}."
        for at in range(1, draw.randint(3, 6))
    )
    return f"## Answer\n\nThe following steps are recommended:\n\n{points}"


HOUSE = [house_answer(seeded(f"house {at}")) for at in range(200)]
OTHERS = [other_answer(seeded(f"other {at}")) for at in range(60)]


def distances(style: Style, texts: list[str]) -> list[float]:
    found = [style.figure([Measured(text)]) for text in texts]
    return [each for each in found if each is not None]


@pytest.mark.parametrize(
    ("text", "feature", "value"),
    [
        ("One two three. Four!", "words", 4),
        ("One two three. Four!", "words per sentence", 2),
        ("One two three. Four!", "exclamation marks per sentence", 0.5),
        ("It costs 3.50 today. No.", "words per sentence", 2),
        ("Intro:\n- one\n* two\n1. three\nend", "lists, share of lines", 3 / 5),
        ("a - b\nc", "lists, share of lines", 0),
        ("# Title\n**Bold title**\ntext **bold** text\n", "headings, share of lines", 2 / 3),
        ("run `ls`", "code, share of characters", 0.5),
        ("```\nx = 1\n```", "code, share of characters", 1),
        ("Done \U0001f389\U0001f389. Bye \u2705.", "emoji per sentence", 1.5),
        ("I'm here, it\u2019s fine", "contractions, share of words", 0.5),
        ("I told my friend", "\u201cI\u201d, share of words", 0.5),
        ("Wir helfen Ihnen", "\u201cyou\u201d, share of words", 1 / 3),
        ("Nous vous aidons", "\u201cwe\u201d, share of words", 1 / 3),
        ("", "words", 0),
        ("", "readability (ARI)", 0),
    ],
)
def test_features_of_a_text(text: str, feature: str, value: float) -> None:
    assert describe(text).numbers[feature] == pytest.approx(value)


def test_ari_is_that_of_its_formula() -> None:
    """12 letters in 3 words and 1 sentence: 4.71 * 4 + 0.5 * 3 - 21.43."""
    found = describe("Cats chase mice").numbers["readability (ARI)"]
    assert found == pytest.approx(4.71 * 13 / 3 + 0.5 * 3 - 21.43)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The card is in the mail and you are fine", "English"),
        ("Die Karte ist in der Post und es ist gut", "German"),
        ("La carte est dans le courrier pour vous", "French"),
        ("La tarjeta est\u00e1 en el correo para los clientes y una carta", "Spanish"),
        ("\u041a\u0430\u0440\u0442\u0430 \u0432 \u043f\u0443\u0442\u0438", "Cyrillic"),
        ("\u30ab\u30fc\u30c9\u306f\u90f5\u9001\u4e2d", "Katakana"),
        ("Ok", "unknown"),
        ("123", ""),
    ],
)
def test_the_language_of_a_text(text: str, language: str) -> None:
    assert describe(text).words["language"] == language


def test_house_terms_are_whole_words_in_any_case() -> None:
    text = "Customer or client, not clients. A C++ customer!"
    found = describe(text, ("customer", "C++"), ("client",)).numbers
    assert found["preferred terms per sentence"] == pytest.approx(3 / 2)
    assert found["avoided terms per sentence"] == pytest.approx(1 / 2)
    with pytest.raises(ValidationError, match="a term must not be empty"):
        Terms(avoid=(" ",))


def test_held_out_answers_of_the_house_are_1_away() -> None:
    style = Style().prepared(HOUSE)
    fresh = [house_answer(seeded(f"fresh {at}")) for at in range(200)]
    assert fmean(distances(style, fresh)) == pytest.approx(1.0, abs=0.1)
    assert fmean(distances(style, OTHERS)) > 3


@given(st.permutations(HOUSE[:60]))
def test_the_order_of_the_training_answers_does_not_matter(answers: list[str]) -> None:
    texts = [*OTHERS[:5], *HOUSE[100:105]]
    found = distances(Style().prepared(answers), texts)
    assert found == pytest.approx(distances(Style().prepared(HOUSE[:60]), texts))


@given(st.text())
def test_any_text_has_a_bounded_distance(text: str) -> None:
    style = Style().prepared(HOUSE[:40])
    (found,) = distances(style, [text])
    assert 0 <= found <= MOST / SMALLEST_YARDSTICK


def test_a_term_to_avoid_is_farther_away() -> None:
    plain, bad = "Hi! We'll check it today. Thanks!", "Hi! We'll check it, client. Thanks!"
    style = Style(terms=Terms(avoid=("client",))).prepared(HOUSE)
    without = Style().prepared(HOUSE)
    close, far = (
        fmean(distances(each, [bad])) - fmean(distances(each, [plain])) for each in (without, style)
    )
    assert far > close


def test_equal_answers_still_have_a_unit() -> None:
    style = Style().prepared(["Yes."] * 30)
    assert distances(style, ["Yes."]) == [0]
    assert distances(style, ["# No\n- no!"])[0] > 1


def test_too_few_training_answers_are_refused(make_job: Any, backend_of: Any) -> None:
    backend_of(lambda _model, _request: "yes")  # pyright: ignore[reportUnknownLambdaType]
    train = [(f"question {at}", "yes") for at in range(9)]
    job = make_job({"contenders": PAIR, "scorers": ["exact", "style"]}, train=train)
    with pytest.raises(JobError, match="needs at least 10 training answers"):
        compare(job)


def talk(_model: str, request: Any) -> str:
    """Answer in the house's style if it is told to."""
    draw = seeded(request.messages[-1].text)
    return house_answer(draw) if told(request) else other_answer(draw)


def styled(make_job: Any, **evaluate: Any) -> Any:
    train = [(f"question {at}", answer) for at, answer in enumerate(HOUSE)]
    scorers = ["exact", {"type": "style", "terms": {"avoid": ["department"]}}]
    return make_job({"contenders": PAIR, "scorers": scorers, **evaluate}, train=train)


def test_a_comparison_reports_both_sides_with_their_difference(
    make_job: Any, backend_of: Any
) -> None:
    backend_of(talk)
    gate = {"mode": "no-regress", "constraints": [{"metric": "style", "at_most": 1.5}]}
    found = compare(styled(make_job, gate=gate))
    (style,) = found.measured
    assert (style.name, style.type, style.n) == ("style", "style", 60)
    assert style.candidate == pytest.approx(1.0, abs=0.15)
    assert style.baseline > 3
    low, high = style.interval
    assert low < style.difference < high < -2
    features = {each.name: each for each in found.style}
    assert features["avoided terms per sentence"].house == 0
    assert features["avoided terms per sentence"].means["instructed"] == 0
    assert features["avoided terms per sentence"].means["zero-shot"] > 0
    assert features["lists, share of lines"].deviations["zero-shot"] == 5
    assert "first word \u201chi\u201d" in features
    assert found.gate is not None
    assert found.gate.checks[-1].exit_code in (0, None)
    sentence = f"instructed {style.candidate:.1f}, zero-shot {style.baseline:.1f}: difference"
    assert sentence in markdown_summary(found)
    assert "words per sentence" in page(found)
    assert json.loads(found.verdict_json())["style"][0]["name"] == "words"


def test_shuffled_contenders_do_not_differ(make_job: Any, backend_of: Any) -> None:
    """A control: with the sides exchanged at random in each case, the interval includes 0."""

    def shuffled(_model: str, request: Any) -> str:
        question = request.messages[-1].text
        draw = seeded(question)
        in_house = told(request)
        if seeded(f"swap {question}").random() < 0.5:
            in_house = not in_house
        return house_answer(draw) if in_house else other_answer(draw)

    backend_of(shuffled)
    (style,) = compare(styled(make_job)).measured
    assert style.interval[0] < 0 < style.interval[1]
    assert abs(style.difference) < 1
