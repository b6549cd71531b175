"""Create something at a vendor exactly once: a job, a batch or a deployment.

A create call is recorded before it is sent, so a process that dies leaves a key to search for. The
next step depends on the response and on the backend's `Guarantee`:

    an id               done
    refused             nothing was created; after a conflict (409), search for the key first
    rate limited (429)  wait, search for the key, send again: a proxy may have sent the call twice
                        and passed on the second response
    ambiguous           TOKEN, OWN_ID: send again under the same key
                        FINDABLE: search for the key; send again if nothing carries it
                        SUFFIX_ONLY: search for the key; `Uncertain` if nothing carries it

A vendor's list may be late, so a search lasts for the offer's settle time, by a monotonic clock,
even if another process repeats it. The caller subclasses `CreateCall` to record all of this.

Names of runs and launches fit every vendor's metadata, label, tag or suffix. A run id reads
``r251125-1k3fq7d0x2ab``: the date (UTC), the time of day in five digits of base 32 (steps of 2.6
ms), and seven random digits. Ids sort by time, start with a letter, never end in a dash and have 20
characters; their 35 random bits keep several ledgers apart at one vendor. A launch key is run id
and attempt, at most 26 characters of ``[a-z0-9-]``. The key of a batch and the id of a comparison
are like run ids but begin with b and c.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, Protocol

from unitune.backends.protocol import SAFE_TO_REPEAT, Guarantee
from unitune.backends.retry import (
    delays,
    is_delay_too_long,
    report_retry,
    retry_delay,
    retry_rate_limited,
    sleep,
)
from unitune.errors import CONFLICT, BackendError, UnituneError
from unitune.observability.logs import Log, cause_of
from unitune.observability.traces import span

CREATE_CALLS = 2  # create calls without a clear response before giving up until a resume
# Rate-limited create calls before giving up until a resume
RATE_LIMITED_CALLS = 6
log = Log(__name__)
FIND_SECONDS = 60.0  # how long a rate-limited search is retried


class Uncertain(Exception):
    """State in which only the user can know which object, of `ids`, the call created."""

    def __init__(self, reason: str, ids: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.ids = tuple(ids)


class CreateCall(Protocol):
    """A create call under one key and the recording of its progress; to be subclassed."""

    guarantee: Guarantee = Guarantee.FINDABLE
    settle_seconds: float = 0.0  # time until the vendor's list shows what was created, at most

    def create(self) -> str:
        """Send the create call and return the vendor's id."""
        ...

    def find(self) -> list[str]:
        """Return the ids of the vendor's objects with the key."""
        ...

    def announce(self) -> None:
        """Record that the call is about to be sent; raise if it must not be sent."""

    def cancel_submit(self) -> None:
        """Record that the announced call created nothing."""

    def refuse(self, error: UnituneError) -> None:
        """Record that the vendor refused and created nothing."""

    def note(self, key: Literal["submit.ambiguous", "submit.searching"], text: str) -> None:
        """Record why the call takes time."""

    def sleep(self, seconds: float) -> None:
        """Wait; Ctrl-C interrupts it."""
        sleep(seconds)


def exactly_once(call: CreateCall, *, rate_limited: bool = False) -> str:
    """Send a create call and return the id of the created object.

    Except for a rate-limited call, no earlier call may have created it; otherwise call `recover`
    first.

    Args:
        call: What to create.
        rate_limited: Whether the last call under this key was rate-limited.

    Raises:
        Uncertain: Several objects carry the key, or none does and a second call could duplicate it.
        UnituneError: The call was refused, which is recorded; or the call or the search kept
            failing without a clear response, so that `recover` is needed later.
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
    """Return the id of what an earlier process created; None if it created nothing.

    Args:
        call: The announced call.
        reason: Why the outcome is unknown, for `Uncertain`.
        repeatable: Whether `exactly_once` follows if nothing is found. If a second call is safe,
            one search is then enough.

    Raises:
        Uncertain: As in `exactly_once`.
        BackendError: The search got no response.
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
    """Search once for the object with the key; raise `Uncertain` if there are several."""
    ids = retry_rate_limited(call.find, FIND_SECONDS)
    if len(ids) > 1:
        raise Uncertain(f"several carry its key ({', '.join(ids)})", ids)
    return ids[0] if ids else None


def _send(call: CreateCall, *, search_first: bool) -> str | UnituneError:
    """Send the call until it is not rate-limited; return the new id or an ambiguous error."""
    for sent, pause in enumerate(delays(), start=1):
        if search_first and call.guarantee not in SAFE_TO_REPEAT:
            created = search(call)
            if created is not None:
                return created
        call.announce()
        try:
            with span("unitune.submit", {"unitune.submit.attempt": sent}):
                created = call.create()
        except UnituneError as raised:
            error = raised
        else:
            log.info("the create call returned %s", created)
            return created
        if error.is_ambiguous:
            log.info("the create call got no clear response", **cause_of(error))
            return error
        if not error.is_rate_limited:
            return _refused(call, error)
        call.cancel_submit()
        if sent == RATE_LIMITED_CALLS or is_delay_too_long(error):
            raise error
        wait = retry_delay(error, pause)
        report_retry(sent, wait, **cause_of(error))
        call.sleep(wait)
        search_first = True
    raise AssertionError("unreachable: the pauses are endless")


def _refused(call: CreateCall, error: UnituneError) -> str:
    """Return the id of the conflicting object if it carries the key; otherwise raise."""
    if isinstance(error, BackendError) and error.status == CONFLICT:
        created = search(call) if call.guarantee in SAFE_TO_REPEAT else _search_until_shown(call)
        if created is not None:
            return created
    call.refuse(error)
    raise error


def _search_until_shown(call: CreateCall) -> str | None:
    """Search until the vendor's list must show what was created; raise if the last one fails."""
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
                "show the created object late",
            )
        call.sleep(min(wait, max(end - time.monotonic(), 0.0)))
    raise AssertionError("unreachable: the pauses are endless")


# Base 32 digits in order, without i, l, o and u, which are easily misread. Source:
# Crockford, Base 32, https://www.crockford.com/base32.html (2026-11-25), in lower case.
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
RANDOM_DIGITS = 7
CLOCK_DIGITS = 5
SECONDS_PER_DAY = 86_400
MOST_ATTEMPTS = 99_999
DEPLOYMENT_NAME = re.compile(rf"r\d{{6}}-[{DIGITS}]{{12}}-d\d{{1,4}}")
LAUNCH_KEY = re.compile(rf"\br\d{{6}}-[{DIGITS}]{{12}}-\d{{1,5}}\b")


def run_id(time: float) -> str:
    """Return a new run id for a Unix time; ids sort by it from the year 2000 to 2099."""
    day = datetime.fromtimestamp(time, UTC).strftime("%y%m%d")
    share = time % SECONDS_PER_DAY / SECONDS_PER_DAY
    clock = _digits(int(share * len(DIGITS) ** CLOCK_DIGITS), CLOCK_DIGITS)
    chance = _digits(secrets.randbits(5 * RANDOM_DIGITS), RANDOM_DIGITS)
    return f"r{day}-{clock}{chance}"


def launch_key(run: str, attempt: int) -> str:
    """Return the key of an attempt's job at its backend."""
    if not 1 <= attempt <= MOST_ATTEMPTS:
        raise ValueError(f"attempt is {attempt}; it must be from 1 to {MOST_ATTEMPTS}")
    return f"{run}-{attempt}"


def run_of(key: str) -> str:
    """Return the run id in a launch key."""
    return key.rpartition("-")[0]


def deployment_name(run: str, number: int) -> str:
    """Return the name of a run's deployment at its backend."""
    return f"{run}-d{number}"


def is_deployment_name(name: str) -> bool:
    """Return whether unitune made this deployment name."""
    return DEPLOYMENT_NAME.fullmatch(name) is not None


def launch_key_in(text: str) -> str | None:
    """Return the launch key in a job's name, suffix or label, or None."""
    match = LAUNCH_KEY.search(text)
    return match and match[0]


def batch_key(time: float) -> str:
    """Return a new key for a batch at its backend."""
    return f"b{run_id(time)[1:]}"


def comparison_id(time: float) -> str:
    """Return a new comparison id; ids sort by time."""
    return f"c{run_id(time)[1:]}"


def _digits(value: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        value, digit = divmod(value, len(DIGITS))
        digits = DIGITS[digit] + digits
    return digits
