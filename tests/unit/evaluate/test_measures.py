"""Length, latency, cost and consistency: figures of answers that decide nothing."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unitune.evaluate.documents.records import Record
from unitune.evaluate.scoring.scorers import measured_answer
from unitune.job.job import Evaluate, TokenPrice
from unitune.scorers.measures import Consistency, Cost, Latency, Length, Measure


def record(text: str = "two words", **keys: Any) -> Record:
    figures = {"prompt_tokens": 1000, "completion_tokens": 10, "seconds": 0.5}
    return Record(contender="tuned", case="c", request_hash="h", text=text, **{**figures, **keys})


def measure(spec: Measure, records: list[Record], price: TokenPrice | None = None) -> float | None:
    return spec.figure([measured_answer(one, price) for one in records if one.error is None])


PRICE = TokenPrice(input=Decimal("0.1"), output=Decimal("0.4"))


@pytest.mark.parametrize(
    ("spec", "figure"),
    [
        (Length(), 2),
        (Length(unit="characters"), 9),
        (Length(unit="tokens"), 10),
        (Latency(), 0.5),
        (Cost(), 1000 * 0.1e-6 + 10 * 0.4e-6),
    ],
)
def test_a_measure_has_its_figure(spec: Measure, figure: float) -> None:
    assert pytest.approx(figure) == measure(spec, [record()], PRICE)


@pytest.mark.parametrize("spec", [Length(unit="tokens"), Latency(), Cost(), Consistency()])
def test_what_is_not_known_is_none_and_never_zero(spec: Measure) -> None:
    unknown = record(prompt_tokens=None, completion_tokens=None, seconds=None)
    assert measure(spec, [unknown], PRICE) is None
    assert measure(spec, [record(error="down")]) is None


def test_repeats_have_their_mean() -> None:
    assert measure(Length(), [record("a"), record("a b c"), record("", error="down")]) == 2


def test_consistency_is_the_share_of_pairs_that_agree() -> None:
    repeats = [record("yes"), record(" yes\n"), record("no"), record("yes")]
    assert pytest.approx(3 / 6) == measure(Consistency(), repeats)


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=9))
def test_consistency_is_a_share_and_1_only_where_all_agree(answers: list[str]) -> None:
    found = measure(Consistency(), [record(answer) for answer in answers])
    assert found is not None
    pairs = [(i, j) for i in range(len(answers)) for j in range(i)]
    same = Counter(answers[i] == answers[j] for i, j in pairs)
    assert pytest.approx(same[True] / len(pairs)) == found
    assert (found == 1) == (len(set(answers)) == 1)


def test_no_verdict_rests_on_a_measure() -> None:
    with pytest.raises(ValidationError, match="the scorers only measure"):
        Evaluate.model_validate({"scorers": ["length", "latency"]})
    with pytest.raises(ValidationError, match="primary is 'length', but the scorers are exact"):
        Evaluate.model_validate({"scorers": ["length", "exact"], "primary": "length"})
    assert Evaluate.model_validate({"scorers": ["length", "exact"]}).primary_scorer == "exact"


def test_measures_stand_beside_the_scores_and_not_among_them(compare_by: Any) -> None:
    contenders = ["zero-shot", {"type": "instructed", "role": "candidate", "instructions": "x"}]
    scorers = ["exact", "length", {"type": "latency", "name": "seconds"}, "consistency"]
    found = compare_by(
        lambda _model, _request: "yes it is", {"scorers": scorers, "contenders": contenders}
    )
    for result in found.contenders:
        assert result.scores == {"exact": 0.0}
        assert result.measures == {"length": 3.0, "seconds": 0.25}
    assert found.cases[0].answers["zero-shot"].measures == {"length": 3.0, "seconds": 0.25}
    assert [(each.name, each.n, each.difference) for each in found.measured] == [
        ("length", 60, 0),
        ("seconds", 60, 0),
    ]


def test_cost_goes_by_the_jobs_prices_and_consistency_by_its_repeats(compare_by: Any) -> None:
    contenders = ["zero-shot", {"type": "instructed", "role": "candidate", "instructions": "x"}]
    found = compare_by(
        lambda _model, request: "yes" if request.seed < 2 else "no",
        {
            "scorers": ["exact", "cost", "consistency"],
            "contenders": contenders,
            "prices": {"zero-shot": {"input": "1", "output": "10"}},
            "repeats": 3,
            "temperature": 1,
        },
    )
    zero_shot, instructed = found.contenders
    repeated = {"pass^2": 1 / 3, "pass^3": 0, "unstable": 1, "consistency": 1 / 3}
    assert zero_shot.measures == pytest.approx({"cost": 30e-6, **repeated})
    assert instructed.measures == pytest.approx(repeated)
    assert pytest.approx(2 / 3) == zero_shot.score
    assert (found.n, found.graded) == (60, True)
    assert zero_shot.usd == Decimal("0.0054")
    assert instructed.usd is None
