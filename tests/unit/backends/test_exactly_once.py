"""A create call is sent as often as it may be, and searched for where a second one could double."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from unitune.backends import exactly_once as module
from unitune.backends.exactly_once import CreateCall, Uncertain, exactly_once, recover
from unitune.backends.protocol import Guarantee
from unitune.errors import BackendError, UnituneError, Unreachable

SAFE = (Guarantee.TOKEN, Guarantee.OWN_ID)
SEARCHED = (Guarantee.FINDABLE, Guarantee.SUFFIX_ONLY)
SETTLE_SECONDS = 60.0


@dataclass
class Call(CreateCall):
    """A vendor with a list that lags, and a record of what was done.

    Args:
        responses: What comes of each create call: an error; else it is answered.
        created: Whether the calls of these numbers create an object in spite of an error.
        shown_after: Seconds until the list shows an object.
    """

    guarantee: Guarantee = Guarantee.FINDABLE
    responses: Sequence[UnituneError] = ()
    created: Sequence[int] = ()
    shown_after: float = 0.0
    settle_seconds: float = SETTLE_SECONDS
    now: float = 0.0
    objects: dict[str, float] = field(default_factory=dict[str, float])
    done: list[str] = field(default_factory=list[str])

    def announce(self) -> None:
        self.done.append("announce")

    def create(self) -> str:
        self.done.append("create")
        sent = self.done.count("create")
        name = f"object-{sent if self.guarantee not in SAFE else 1}"
        error = self.responses[sent - 1] if sent <= len(self.responses) else None
        if error is None or sent in self.created:
            self.objects.setdefault(name, self.now)
        if error is not None:
            raise error
        return name

    def find(self) -> list[str]:
        self.done.append("find")
        return [name for name, at in self.objects.items() if self.now >= at + self.shown_after]

    def cancel_submit(self) -> None:
        self.done.append("cancel")

    def refuse(self, error: UnituneError) -> None:
        self.done.append(f"refuse: {error}")

    def note(self, key: str, text: str) -> None:
        assert text
        self.done.append(key)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Call]:
    def make(guarantee: Guarantee, *responses: UnituneError, **others: object) -> Call:
        made = Call(guarantee, responses, **others)  # pyright: ignore[reportArgumentType]
        clock = type("Clock", (), {"monotonic": staticmethod(lambda: made.now)})
        monkeypatch.setattr(module, "time", clock)
        return made

    return make


def refused(status: int) -> BackendError:
    return BackendError(f"status {status}", status=status)


@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_a_call_that_is_answered_is_announced_and_sent_once(
    call: Callable[..., Call], guarantee: Guarantee
) -> None:
    sent = call(guarantee)
    assert exactly_once(sent) == "object-1"
    assert sent.done == ["announce", "create"]


@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_a_refusal_creates_nothing_and_is_written_down(
    call: Callable[..., Call], guarantee: Guarantee
) -> None:
    sent = call(guarantee, refused(400))
    with pytest.raises(BackendError, match="400"):
        exactly_once(sent)
    assert sent.done == ["announce", "create", "refuse: status 400"]


@pytest.mark.parametrize("guarantee", SAFE)
def test_where_the_vendor_knows_the_key_an_ambiguous_call_is_sent_again(
    call: Callable[..., Call], guarantee: Guarantee
) -> None:
    sent = call(guarantee, Unreachable("gone"), created=[1])
    assert exactly_once(sent) == "object-1"
    assert sent.done == ["announce", "create", "submit.ambiguous", "announce", "create"]


@pytest.mark.parametrize("guarantee", SEARCHED)
@pytest.mark.parametrize("shown_after", [0.0, 30.0, SETTLE_SECONDS])
def test_what_an_ambiguous_call_has_created_is_found_however_late_the_list_shows_it(
    call: Callable[..., Call], guarantee: Guarantee, shown_after: float
) -> None:
    sent = call(guarantee, refused(503), created=[1], shown_after=shown_after)
    assert exactly_once(sent) == "object-1"
    assert sent.done.count("create") == 1


def test_what_is_not_found_in_the_whole_window_is_sent_again(call: Callable[..., Call]) -> None:
    sent = call(Guarantee.FINDABLE, Unreachable("gone"))
    assert exactly_once(sent) == "object-2"
    assert sent.now == SETTLE_SECONDS
    assert sent.done[-3:] == ["cancel", "announce", "create"]


def test_where_only_a_suffix_carries_the_key_the_user_must_know(call: Callable[..., Call]) -> None:
    sent = call(Guarantee.SUFFIX_ONLY, Unreachable("gone"))
    with pytest.raises(Uncertain, match="no clear response"):
        exactly_once(sent)
    assert sent.done.count("create") == 1


@pytest.mark.parametrize("guarantee", SEARCHED)
@pytest.mark.parametrize("status", [409, 429])
def test_a_refusal_that_follows_a_call_which_took_effect_adopts_what_that_created(
    call: Callable[..., Call], guarantee: Guarantee, status: int
) -> None:
    sent = call(guarantee, refused(status), created=[1])
    assert exactly_once(sent) == "object-1"
    assert sent.done.count("create") == 1


def test_a_call_refused_for_its_rate_is_sent_again_and_given_up_in_the_end(
    call: Callable[..., Call],
) -> None:
    sent = call(Guarantee.FINDABLE, *[refused(429)] * 9)
    with pytest.raises(BackendError, match="429"):
        exactly_once(sent)
    assert sent.done.count("create") == module.RATE_LIMITED_CALLS
    assert sent.done[-1] == "cancel"


def test_several_that_carry_the_key_are_left_to_the_user(call: Callable[..., Call]) -> None:
    sent = call(Guarantee.FINDABLE, objects={"a": 0.0, "b": 0.0})
    with pytest.raises(Uncertain) as error:
        recover(sent, "interrupted")
    assert error.value.ids == ("a", "b")


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_nothing_is_taken_for_certain_before_its_search_is_over(
    call: Callable[..., Call], guarantee: Guarantee, *, repeatable: bool
) -> None:
    sent = call(guarantee)
    if guarantee is Guarantee.SUFFIX_ONLY:
        with pytest.raises(Uncertain, match="interrupted"):
            recover(sent, "interrupted", repeatable=repeatable)
    else:
        assert recover(sent, "interrupted", repeatable=repeatable) is None
    one_search = guarantee is Guarantee.OWN_ID or (guarantee in SAFE and repeatable)
    assert (0 if one_search else SETTLE_SECONDS) == sent.now
    proven = guarantee is not Guarantee.SUFFIX_ONLY and not (guarantee in SAFE and repeatable)
    assert proven == ("cancel" in sent.done)
