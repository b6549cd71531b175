"""`HostedBackend`: what every hosted vendor's backend is, so that each states only its own.

A backend declares where its vendor is, which key it takes, its states and its options, and writes
`submit`, `find`, `poll` and `cancel` by way of `api`. One whose vendor tunes nothing writes none of
them. ``unitune_providers/fireworks.py`` is a complete one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, JsonValue

from unitune.backends import registry
from unitune.backends.credentials import checked_value, environment_address, key_in
from unitune.backends.kit.api import Api
from unitune.backends.kit.chat_completions import Dialect
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.options import job_options
from unitune.backends.protocol import Event, Guarantee, State, Status
from unitune.errors import CONFLICT, BackendError, Unreachable, Unsupported, UserError
from unitune.job.job import Job
from unitune.models import ChatModel, TunedModel
from unitune.security.spec import Frozen

# Longest wait for the vendor to validate a file; after that an upload can be repeated
FILE_SECONDS = 1800.0
FILE_POLL_SECONDS = 2.0

Options = TypeVar("Options", bound=BaseModel)

# Field of an event's data that counts upwards, by the kind of event
COUNTED = {"step": "step", "validation": "step", "message": "progress"}


class NoOptions(BaseModel, extra="forbid", frozen=True):
    """Options of a backend that has none."""


class HostedBackend(Generic[Options]):
    """A vendor's backend; a subclass is constructed without arguments."""

    name: ClassVar[str]
    guarantee: ClassVar[Guarantee] = Guarantee.SUFFIX_ONLY
    address: ClassVar[str]
    """The vendor's own."""
    address_variable: ClassVar[str]
    """Environment variable that names another."""
    key_variable: ClassVar[str]
    """Environment variable that holds the key."""
    key_header: ClassVar[str | None] = None
    """Header that takes the key; None: the key is a bearer token."""
    token_variable: ClassVar[str] = ""
    """Environment variable that may hold a bearer token, which is then used instead of the key."""
    headers: ClassVar[Mapping[str, str]] = {}
    """Sent with each request, beside the key."""
    headers_variable: ClassVar[str] = ""
    """Environment variable with further headers, ``NAME: VALUE`` a line, which the vendor's SDK
    reads too."""
    sign_in_advice: ClassVar[str] = ""
    """How to do without a key, where `sign_in` can."""
    chat_path: ClassVar[str] = "/v1"
    """Where chat completions stand, below the address."""
    states: ClassVar[Mapping[str, State]] = {}
    """Our states by the vendor's words; any other word is `State.UNKNOWN`."""
    options: ClassVar[type[Any]] = NoOptions
    """Model of a job's options, the parameter of the class."""
    advice: ClassVar[Mapping[int, str]] = {}
    """What to do next by HTTP status, over `unitune.backends.kit.errors.ADVICE`."""

    @property
    def api(self) -> Api:
        """The vendor's API, with the address and the key that the environment has now.

        Raises:
            UserError: There is no key.
        """
        return Api(self.endpoint())

    def base_url(self) -> str:
        """Return the vendor's address: that of the environment, or its own."""
        return environment_address(self.address_variable) or self.address

    def endpoint(self, path: str = "") -> Endpoint:
        """Return the vendor's address, or a path below it, with the token or key."""
        url = f"{self.base_url()}{path}"
        has_token = self.token_variable and key_in(self.token_variable)
        variable = self.token_variable if has_token else self.key_variable
        if key_in(variable) is None and (token := self.sign_in()):
            vendor = Vendor(self.name, url=url, advice=self.advice)
            endpoint = Endpoint(vendor, url, self.headers, token)
        else:
            endpoint = self.endpoint_at(url, variable)
        own = _headers_in(self.headers_variable)
        return replace(endpoint, headers={**endpoint.headers, **own}) if own else endpoint

    def sign_in(self) -> Callable[[], str] | None:
        """Return what gives a bearer token where no key is set; None: nothing does."""

    def endpoint_at(self, url: str, variable: str) -> Endpoint:
        """Return an address with the key or token that an environment variable holds.

        Raises:
            UserError: It is not set.
        """
        what = f"the key of {self.name}, for {url},"
        key = partial(required, variable, what, self.sign_in_advice)
        vendor = Vendor(self.name, variable, url, self.advice, secrets=(key(),))
        header = self.key_header if variable == self.key_variable else None
        return Endpoint(vendor, url, self.headers, key, header)

    def job_options(self, job: Job) -> Options:
        """Return a job's options for this backend.

        Raises:
            JobError: A key is unknown, or a value not allowed.
        """
        return job_options(job, self.name, self.options)

    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options are not valid.

        Raises:
            JobError: A key is unknown, or a value not allowed.
        """
        self.job_options(job)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Refuse what a vendor that tunes nothing cannot do; any other has verbs of its own."""
        raise self.tunes_nothing()

    upload = submit = find = poll = cancel = _refuse

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a model for requests; whether it exists shows at the first request.

        Raises:
            UserError: There is no key.
        """
        from unitune.backends.kit.chat import ChatCompletions  # noqa: PLC0415 - loads aiohttp

        name = model if isinstance(model, str) else model.name
        return ChatCompletions(
            self.endpoint(self.chat_path),
            name,
            fingerprint=f"{self.name}:{self.model_behind(name)}",
            dialect=self.dialect(name),
        )

    def model_behind(self, name: str) -> str:
        """Return the model that answers to a name, where that is another and can be replaced."""
        return name

    def dialect(self, model: str) -> Dialect:
        """Return what is known of a model's wire."""
        del model
        return Dialect()

    def state_of(self, word: str | None) -> State:
        """Return a state in our words."""
        return self.states.get(word or "", State.UNKNOWN)

    def status(
        self,
        word: str | None,
        events: Iterable[Event],
        cursor: str,
        model: TunedModel | None = None,
        error: str | None = None,
    ) -> Status:
        """Return what a poll saw; a job that has succeeded and names no model yet goes on.

        Args:
            word: The vendor's state.
            events: All that are known; those after the cursor are returned.
            cursor: Of the poll before.
            model: What the job leaves behind, once it has succeeded.
            error: Why it failed, in the vendor's words.
        """
        state = self.state_of(word)
        if state is State.SUCCEEDED and model is None:
            state = State.UNKNOWN
        new, after = unseen(events, cursor)
        return Status(
            state=state,
            raw=word or "no state",
            events=new,
            cursor=after,
            model=model if state is State.SUCCEEDED else None,
            error=(error or f"{self.name} gave no reason") if state is State.FAILED else None,
        )

    def tunes_nothing(self) -> Unsupported:
        """Return the refusal to tune, with the offer's reason."""
        reason = registry.offer(self.name).terms(self.name).refusal or "Choose another backend."
        return Unsupported(f"{self.name} answers, and tunes no models: {reason}")


def required(variable: str, what: str, otherwise: str = "") -> str:
    """Return the value of an environment variable, or what the user's command for it prints.

    Raises:
        UserError: It is not set; `otherwise` is a sentence on what to do instead.
    """
    if not (value := key_in(variable)):
        words = f"{what} is not set. Set the environment variable {variable}. {otherwise}"
        raise UserError(words.rstrip())
    return value


def _headers_in(variable: str) -> dict[str, str]:
    """Return the headers in an environment variable, a line each, as vendors' SDKs read them."""
    lines = (line.partition(":") for line in os.environ.get(variable, "").split("\n"))
    return {
        name.strip(): checked_value(value.strip(), variable)
        for name, colon, value in lines
        if colon
    }


def create_named(
    api: Api, *path: str, parameter: str, name: str, action: str, body: Mapping[str, JsonValue]
) -> None:
    """Create a resource under a name of the caller's; one that is there already is the same."""
    try:
        api.post(*path, action=action, query={parameter: name}, body=body)
    except BackendError as error:
        if error.status != CONFLICT or api.find(*path, name, action=action) is None:
            raise


def explicit(value: JsonValue) -> JsonValue:
    """Return a setting as a create call has it: None, which is left out, for `auto`."""
    return None if value == "auto" else value


def without_none(body: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a body without what was not set, so that the vendor's own default holds."""
    return {name: value for name, value in body.items() if value is not None}


def content_name(sha256: str) -> str:
    """Return the name of a file at a vendor, by the hash of its content."""
    return f"unitune-{sha256[:32]}"


def wait_for_file(is_validated: Callable[[], bool], what: str) -> None:
    """Wait until a vendor has validated a file.

    Args:
        is_validated: Asks the vendor; raises where it has refused the file.
        what: Vendor and file, as in "WHAT is still being validated".

    Raises:
        Unreachable: It took longer than `FILE_SECONDS`.
    """
    if not wait_until(is_validated, FILE_SECONDS, FILE_POLL_SECONDS):
        raise Unreachable(
            f"{what} is still being validated after {FILE_SECONDS:.0f} seconds. Launch again "
            "later; it is not sent again."
        )


def wait_until(is_done: Callable[[], bool], seconds: float, poll_seconds: float) -> bool:
    """Wait until something is done, and return whether it was within the seconds."""
    until = time.monotonic() + seconds
    while not (done := is_done()) and time.monotonic() <= until:
        time.sleep(poll_seconds)
    return done


class Cursor(Frozen):
    """What polls have returned.

    Args:
        time: Of the newest message, in seconds since 1970.
        keys: Of the messages at that time.
        counts: Last number by the kind of event.
    """

    time: float = 0.0
    keys: tuple[str, ...] = ()
    counts: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Return the cursor of an earlier poll; empty text is the beginning."""
        return cls.model_validate_json(text) if text else cls()

    def is_before(self, event: Event) -> bool:
        """Whether an event is new."""
        if (count := count_of(event)) is not None:
            return count > self.counts.get(event.kind, -1)
        return event.time > self.time or (event.time == self.time and event.key not in self.keys)


def unseen(events: Iterable[Event], cursor: str) -> tuple[tuple[Event, ...], str]:
    """Return the events after a cursor, oldest first and each once, and the cursor after them.

    Args:
        events: In any order; those of one time stay in theirs.
        cursor: Of the poll before; empty: none was returned yet.
    """
    before = Cursor.read(cursor)
    new = {event.key: event for event in events if before.is_before(event)}
    if not new:
        return (), cursor
    ordered = sorted(new.values(), key=lambda event: event.time)
    messages = [event for event in ordered if count_of(event) is None]
    newest = max((event.time for event in messages), default=before.time)
    keys = tuple(event.key for event in messages if event.time == newest)
    counts = dict(before.counts)
    for event in ordered:
        if (count := count_of(event)) is not None:
            counts[event.kind] = max(count, counts.get(event.kind, count))
    after = Cursor(
        time=newest,
        keys=(*before.keys, *keys) if newest == before.time else keys,
        counts=counts,
    )
    return tuple(ordered), after.model_dump_json()


def count_of(event: Event) -> int | None:
    """Return the number of an event that is counted; None of any other."""
    count = event.data.get(COUNTED.get(event.kind, ""))
    return count if isinstance(count, int) else None


BAD_REQUEST = 400


def check_size(vendor: str, requests: int, size: int, *, most: int, most_bytes: int) -> None:
    """Refuse a batch that is empty, or larger than a vendor takes.

    Raises:
        Unsupported: It is.
    """
    if not 1 <= requests <= most or size > most_bytes:
        raise Unsupported(
            f"A batch at {vendor} holds 1 to {most:,} requests and {most_bytes / 1e6:,.0f} MB, "
            f"and these are {requests:,} with {size / 1e6:,.1f} MB. Take fewer or shorter cases, "
            "or run without --batch."
        )


def cannot_take(model: str, request_id: str, problem: Exception) -> Unsupported:
    """Return the refusal of a request that a model's wire has no place for."""
    return Unsupported(
        f"{model} cannot take request {request_id}: {problem}. Leave that case out, or run "
        "without --batch, where it alone fails."
    )


def cancel_unless_ended(cancel: Callable[[], object], is_running: Callable[[], bool]) -> None:
    """Ask for the end of a batch; a refusal because it has ended is no error.

    Raises:
        BackendError: There is no such batch, or the vendor refused and the batch goes on.
    """
    try:
        cancel()
    except BackendError as error:
        if error.status not in (BAD_REQUEST, CONFLICT) or is_running():
            raise
