"""The vendor's own counts: asked for so many rows, and learned from for the others."""

from __future__ import annotations

import pytest

from unitune.cost.tokens import Count, VendorCounter, counter_for
from unitune.data.example import Example, Message
from unitune.errors import Unreachable, Unsupported
from unitune.models import Request, TunedModel

MODEL = "claude-sonnet-5-5"


class Vendor:
    """Counts a token for each character of the messages, and some for the framing."""

    def __init__(self, framing: int = 7, failure: Exception | None = None) -> None:
        self.framing = framing
        self.failure = failure
        self.requests: list[Request] = []

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        assert MODEL == model
        self.requests.append(request)
        if self.failure:
            raise self.failure
        return self.framing + sum(len(turn.text) for turn in request.messages)


def row(number: int) -> Example:
    asked = Message(role="user", content="How many? " * (1 + number % 3))
    return Example(messages=(asked, Message(role="assistant", content=f"As many as {number}.")))


def test_prompts_are_exact_while_the_vendor_is_asked() -> None:
    vendor = Vendor()
    counter = VendorCounter(vendor, MODEL, counter_for(MODEL))
    count = counter.row(row(1))

    assert Count.of(7 + 20) == count.prompt
    assert [Request(messages=row(1).prompt)] == vendor.requests
    assert count.prompt.expected < count.total.low


def test_what_the_vendor_was_not_asked_for_is_scaled_by_what_it_said() -> None:
    vendor, plain = Vendor(), counter_for(MODEL)
    counter = VendorCounter(vendor, MODEL, plain, rows=3)
    asked = [counter.row(row(number)).prompt for number in range(3)]
    later = counter.row(row(7))

    assert 3 == len(vendor.requests)
    ratios = [
        told.expected / plain.row(row(number)).prompt.expected for number, told in enumerate(asked)
    ]
    ours = plain.row(row(7)).prompt.expected
    assert min(ratios) * ours <= later.prompt.low <= min(ratios) * ours + 1
    assert max(ratios) * ours <= later.prompt.high <= max(ratios) * ours + 1
    assert later.prompt.low <= later.prompt.expected <= later.prompt.high
    assert f"{min(ratios):.2f} to {max(ratios):.2f} times" in counter.assumptions[0]
    assert "the vendor's own count of 3 prompts; characters" == counter.basis


def test_before_anything_was_asked_counts_are_our_own() -> None:
    plain = counter_for(MODEL)
    counter = VendorCounter(Vendor(), MODEL, plain)

    assert plain.text("How many?") == counter.text("How many?")
    assert plain.assumptions == counter.assumptions


def test_a_row_that_cannot_be_asked_is_counted_by_ourselves() -> None:
    plain = counter_for(MODEL)
    counter = VendorCounter(Vendor(failure=Unsupported("no such turn")), MODEL, plain)
    assert plain.row(row(1)) == counter.row(row(1))


def test_a_vendor_that_does_not_answer_is_told() -> None:
    counter = VendorCounter(Vendor(failure=Unreachable("no answer")), MODEL, counter_for(MODEL))
    with pytest.raises(Unreachable):
        counter.row(row(1))
