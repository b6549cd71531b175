"""The vendor's own counts: asked for a sample, and all rows scaled by them."""

from __future__ import annotations

import pytest

from unitune.cost.tokens import Count, VendorCounter, counter_for
from unitune.data.example import Example, Message
from unitune.errors import Unreachable, Unsupported
from unitune.models import Request, TunedModel

MODEL = "claude-sonnet-5-5"


class Vendor:
    """Counts a token for each character of the messages, and some for the framing."""

    def __init__(self, framing: int = 7, refused: frozenset[int] = frozenset()) -> None:
        self.framing = framing
        self.refused = refused
        self.failure: Exception | None = None
        self.requests: list[Request] = []

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        assert model == MODEL
        self.requests.append(request)
        if self.failure:
            raise self.failure
        if len(self.requests) in self.refused:
            raise Unsupported("it cannot count this")
        return self.framing + sum(len(turn.text) for turn in request.messages)


def row(number: int) -> Example:
    asked = Message(role="user", content="How many? " * (1 + number % 3))
    return Example(messages=(asked, Message(role="assistant", content=f"As many as {number}.")))


def test_all_rows_are_scaled_by_what_the_vendor_said_of_a_sample() -> None:
    vendor, plain = Vendor(), counter_for(MODEL)
    sample = [row(number) for number in range(3)]
    counter = VendorCounter.sampled(vendor, MODEL, plain, sample)
    counted = counter.row(row(7))

    assert [Request(messages=one.prompt) for one in sample] == vendor.requests
    ratios = [
        (7 + 10 * (number + 1)) / plain.row(row(number)).prompt.expected for number in range(3)
    ]
    ours = plain.row(row(7)).prompt.expected
    assert min(ratios) * ours - 1 < counted.prompt.low <= min(ratios) * ours
    assert max(ratios) * ours <= counted.prompt.high < max(ratios) * ours + 1
    assert counted.prompt.low <= counted.prompt.expected <= counted.prompt.high
    assert counted.prompt.expected < counted.total.expected
    assert f"{min(ratios):.2f} to {max(ratios):.2f} times" in counter.assumptions[0]
    assert (
        counter.basis
        == "the vendor's own count of 3 prompts; o200k_base instead of an unpublished vocabulary"
    )


def test_where_the_vendor_always_counts_twice_as_many_so_do_we() -> None:
    plain = counter_for("gpt-4o-mini")

    class Twice:
        def count_tokens(self, model: str | TunedModel, request: Request) -> int:
            assert model == MODEL
            last = Message(role="assistant", content="")
            whole = Example(messages=(*request.messages, last))
            return 2 * plain.row(whole).prompt.expected

    counter = VendorCounter.sampled(Twice(), MODEL, plain, map(row, range(9)))
    assert Count.of(2 * plain.row(row(1)).prompt.expected) == counter.row(row(1)).prompt


def test_a_row_that_the_vendor_cannot_count_is_left_out_of_the_sample() -> None:
    counter = VendorCounter.sampled(
        Vendor(refused=frozenset({2})), MODEL, counter_for(MODEL), map(row, range(3))
    )
    assert counter.prompts == 2


@pytest.mark.parametrize("sample", [[], [row(0)]])
def test_a_vendor_that_counts_nothing_is_told(sample: list[Example]) -> None:
    with pytest.raises(Unsupported):
        VendorCounter.sampled(Vendor(refused=frozenset({1})), MODEL, counter_for(MODEL), sample)


def test_a_vendor_that_does_not_answer_is_told() -> None:
    vendor = Vendor()
    vendor.failure = Unreachable("no answer")
    with pytest.raises(Unreachable):
        VendorCounter.sampled(vendor, MODEL, counter_for(MODEL), [row(1)])
