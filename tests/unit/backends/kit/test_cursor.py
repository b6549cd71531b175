"""Cursors lose and repeat no event, however a vendor orders its list."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from unitune.backends.kit.hosted import count_of, unseen
from unitune.backends.protocol import Event


def message(time: int, number: int) -> Event:
    return Event(f"m{time}-{number}", "message", float(time), {"text": "news"})


def step(kind: Literal["step", "validation"], number: int, time: int) -> Event:
    return Event(f"{kind}-{number}", kind, float(time), {"step": number})


messages = st.builds(message, st.integers(0, 4), st.integers(0, 3))
kinds = st.sampled_from(["step", "validation"])
steps = st.builds(step, kinds, st.integers(0, 6), st.integers(0, 4))  # pyright: ignore[reportArgumentType] - of the literals


@given(st.lists(messages | steps, max_size=25), st.lists(st.integers(0, 25), max_size=4), st.data())
def test_polls_return_each_event_once_and_oldest_first(
    events: list[Event], cuts: list[int], data: st.DataObject
) -> None:
    ordered = sorted(events, key=lambda event: (event.time, count_of(event) or 0))
    ordered = [event for event in ordered if _is_in_order(event, ordered)]
    seen, cursor = list[str](), ""
    for end in [*sorted(cuts), len(ordered)]:
        shown = data.draw(st.permutations(ordered[:end]))
        new, cursor = unseen(shown, cursor)
        seen += [event.key for event in new]
    assert sorted(seen) == sorted({event.key for event in ordered})


def _is_in_order(event: Event, events: list[Event]) -> bool:
    """Whether no later step of its kind comes before it: steps are counted upwards in time."""
    before = events[: events.index(event)]
    return all(
        other.kind != event.kind or (count_of(other) or 0) <= (count_of(event) or 0)
        for other in before
    )


def test_nothing_new_leaves_the_cursor_as_it_is() -> None:
    event = Event("a", "message", 5.0, {"text": "news"})
    _, cursor = unseen([event], "")
    assert unseen([event], cursor) == ((), cursor)


def test_step_that_is_told_again_with_a_later_time_is_not_new() -> None:
    _, cursor = unseen([Event("step-3", "step", 5.0, {"step": 3})], "")
    new, _ = unseen([Event("step-3", "step", 9.0, {"step": 3})], cursor)
    assert new == ()
