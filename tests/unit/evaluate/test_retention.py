"""The probe set and what it says of a tuned model."""

from __future__ import annotations

import pytest

from unitune.evaluate.records import Record
from unitune.evaluate.retention import Probe, probes, questions, retained
from unitune.evaluate.statistics.paired import own_score


def answers(
    name: str, wrong: set[str] | None = None, errors: set[str] | None = None
) -> list[Record]:
    return [
        Record(
            contender=name,
            case=probe.id,
            request_hash="h",
            text="I do not know." if probe.id in (wrong or set()) else f"It is {probe.accept[0]}.",
            error="down" if probe.id in (errors or set()) else None,
        )
        for probe in probes()
    ]


def test_the_set_is_fixed_and_each_question_stands_once() -> None:
    asked = [probe.ask for probe in probes()]
    assert 50 <= len(asked) <= 100
    assert len(set(asked)) == len(asked) == len({probe.id for probe in probes()})
    assert [probe.id for probe in probes()] == [question.case for question in questions()]


@pytest.mark.parametrize("probe", probes(), ids=lambda probe: probe.id)
def test_every_accepted_answer_is_right_and_the_question_alone_is_not(probe: Probe) -> None:
    for accepted in probe.accept:
        assert probe.is_right(accepted)
        assert probe.is_right(f"The answer is {accepted.upper()}.")
    assert not probe.is_right("")
    if probe.id not in REPEATED:
        assert not probe.is_right(probe.ask)


REPEATED = {"nature-15", "numbers-15"}
"""Questions that offer a choice, and so name their answer."""


def test_what_the_base_could_and_the_tuned_model_cannot_is_lost() -> None:
    found = retained(
        answers("base", wrong={"nature-1", "nature-2"}),
        answers("tuned", wrong={"nature-2", "words-1", "words-2"}),
    )
    n = len(probes())
    assert (n, n - 2) == (found.probes, found.base_right)
    assert (("words-1", "words-2"), ("nature-1",)) == (found.lost, found.gained)
    assert (n - 4) / (n - 2) == found.share
    wilson = own_score([1.0] * (n - 4) + [0.0] * 2, level=0.95)
    assert (wilson.low, wilson.high) == found.interval


def test_a_question_without_an_answer_is_left_out_on_both_sides() -> None:
    found = retained(answers("base", errors={"nature-1"}), answers("tuned", errors={"words-1"}))
    assert len(probes()) - 2 == found.probes
    assert 1.0 == found.share


def test_a_base_that_knows_nothing_has_nothing_to_keep() -> None:
    nothing = {probe.id for probe in probes()}
    found = retained(answers("base", wrong=nothing), answers("tuned"))
    assert (None, None) == (found.share, found.interval)
