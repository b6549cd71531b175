"""Create something at a vendor exactly once: a job, a batch or a deployment.

A create call is written down before it is sent, so a process that dies leaves a key to search for.
What follows depends on the response, and on what the backend promises (`Guarantee`):

    an id               done
    refused             nothing was created; after a conflict (409) the key is searched for first
    rate limited (429)  wait, search for the key, send again: a proxy may have sent the call twice,
                        and have passed on the second response
    ambiguous           TOKEN, OWN_ID: send again under the same key
                        FINDABLE: search for the key; send again if nothing carries it
                        SUFFIX_ONLY: search for the key; `Uncertain` if nothing carries it

A vendor's list may show what was created only some time later. So a search lasts for the offer's
settle time, by a monotonic clock, in whichever process it begins anew.

Where all this is written down is the caller's business: it subclasses `CreateCall`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, Protocol

from unitune.backends.protocol import SAFE_TO_REPEAT, Guarantee
from unitune.backends.retry import delays, is_delay_too_long, retry_delay, retry_rate_limited, sleep
from unitune.errors import CONFLICT, BackendError, UnituneError

CREATE_CALLS = 2  # create calls without a clear response before the run stops and is resumed later
# Create calls that are refused for their rate before the run stops and is resumed later
RATE_LIMITED_CALLS = 6
FIND_SECONDS = 60.0  # how long one search is repeated while it is refused for its rate


class Uncertain(Exception):
    """Only the user can know which object at the vendor is the one that the call created.

    Args:
        reason: Why, as the beginning of a sentence.
        ids: The candidates.
    """

    def __init__(self, reason: str, ids: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.ids = tuple(ids)


class CreateCall(Protocol):
    """What is created under one key, and where that is written down; to be subclassed."""

    guarantee: Guarantee = Guarantee.FINDABLE
    settle_seconds: float = 0.0
    """How long the vendor's list may take to show what was created."""

    def create(self) -> str:
        """Send the create call and return the vendor's id."""
        ...

    def find(self) -> list[str]:
        """Return the ids of what carries the key at the vendor."""
        ...

    def announce(self) -> None:
        """Write down that the call is about to be sent; raise where it must not be."""

    def cancel_submit(self) -> None:
        """Write down that the announced call has created nothing."""

    def refuse(self, error: UnituneError) -> None:
        """Write down that the vendor has refused, and created nothing."""

    def note(self, key: Literal["submit.ambiguous", "submit.searching"], text: str) -> None:
        """Tell whoever watches why it takes time."""

    def sleep(self, seconds: float) -> None:
        """Wait; Ctrl-C ends it."""
        sleep(seconds)


def exactly_once(call: CreateCall, *, rate_limited: bool = False) -> str:
    """Send a create call, and return the id of what it has created.

    No earlier call may have created it (else: `recover` first), except for `rate_limited`.

    Args:
        call: What to create.
        rate_limited: Whether the last call under this key was refused for its rate.

    Raises:
        Uncertain: Several objects carry the key, or none does and a second call could create two.
        UnituneError: Refused, which is written down; refused for its rate again and again; no clear
            response came, or none to a search: then `recover` goes on later.
    """
    for left in reversed(range(CREATE_CALLS)):
        response = _send(call, search_first=rate_limited)
        if isinstance(response, str):
            return response
        problem = f"the create call got no clear response ({response})"
        call.note("submit.ambiguous", problem)
        if call.guarantee not in SAFE_TO_REPEAT:
            if (created := _search_until_shown(call)) is not None:
                return created
            if call.guarantee is Guarantee.SUFFIX_ONLY:
                raise Uncertain(problem)
            if left:
                call.cancel_submit()
        if not left:
            raise response
    raise AssertionError("the last call returns or raises")


def recover(call: CreateCall, reason: str, *, repeatable: bool = True) -> str | None:
    """Return the id of what an earlier process may have created; None: it has created nothing.

    Args:
        call: What was announced.
        reason: Why it is not known, should only the user be able to know.
        repeatable: Whether `exactly_once` follows where nothing is found. Where a second call
            creates nothing new, one search is then enough.

    Raises:
        Uncertain: As of `exactly_once`.
        BackendError: The search got no response, so nothing is known.
    """
    repeats = repeatable and call.guarantee in SAFE_TO_REPEAT
    once = repeats or call.guarantee is Guarantee.OWN_ID
    created = search(call) if once else _search_until_shown(call)
    if created is None and call.guarantee is Guarantee.SUFFIX_ONLY:
        raise Uncertain(reason)
    if created is None and not repeats:
        call.cancel_submit()
    return created


def search(call: CreateCall) -> str | None:
    """Search once for what carries the key.

    Raises:
        Uncertain: Several objects do.
        BackendError: The search got no response.
    """
    ids = retry_rate_limited(call.find, FIND_SECONDS)
    if len(ids) > 1:
        raise Uncertain(f"several carry its key ({', '.join(ids)})", ids)
    return ids[0] if ids else None


def _send(call: CreateCall, *, search_first: bool) -> str | UnituneError:
    """Send the call until it is not refused for its rate.

    Returns:
        The id of what was created, or the error that says neither that nor the contrary.
    """
    for sent, pause in enumerate(delays(), start=1):
        if search_first and call.guarantee not in SAFE_TO_REPEAT:
            created = search(call)
            if created is not None:
                return created
        call.announce()
        try:
            return call.create()
        except UnituneError as raised:
            error = raised
        if error.is_ambiguous:
            return error
        if not error.is_rate_limited:
            return _refused(call, error)
        call.cancel_submit()
        if sent == RATE_LIMITED_CALLS or is_delay_too_long(error):
            raise error
        call.sleep(retry_delay(error, pause))
        search_first = True
    raise AssertionError("delays never end")


def _refused(call: CreateCall, error: UnituneError) -> str:
    """Return the id of what a call conflicts with, if that is its own; else raise the refusal."""
    if isinstance(error, BackendError) and error.status == CONFLICT:
        created = search(call) if call.guarantee in SAFE_TO_REPEAT else _search_until_shown(call)
        if created is not None:
            return created
    call.refuse(error)
    raise error


def _search_until_shown(call: CreateCall) -> str | None:
    """Search until the vendor's list must show what was created.

    Raises:
        BackendError: The last search got no response.
    """
    end = time.monotonic() + call.settle_seconds
    for tries, pause in enumerate(delays()):
        over = time.monotonic() >= end  # read first: the last search starts after the window
        wait = pause
        try:
            created = search(call)
        except BackendError as error:
            if over or not error.is_retryable:
                raise
            wait = retry_delay(error, pause)
        else:
            if created is not None or over:
                return created
        if tries == 0:
            call.note(
                "submit.searching",
                f"searching for up to {call.settle_seconds:.0f} s, because the vendor's list may "
                "show late what the create call has created",
            )
        call.sleep(min(wait, max(end - time.monotonic(), 0.0)))
    raise AssertionError("delays never end")
