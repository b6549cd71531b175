"""Define `HostedBackend`, the base class of every hosted vendor's backend.

A backend declares its address, key, states and options, and implements `submit`, `find`, `poll` and
`cancel` with `api`; one whose vendor tunes nothing implements none of them.
``unitune_providers/fireworks.py`` is a complete one.
"""

from __future__ import annotations

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
from unitune.documents import Frozen
from unitune.errors import CONFLICT, BackendError, Unreachable, Unsupported, UserError
from unitune.job.job import Job
from unitune.models import ChatModel, TunedModel
from unitune.workspace import user_settings

# Longest wait for the vendor to validate a file; the upload can be repeated after it
FILE_SECONDS = 1800.0
FILE_POLL_SECONDS = 2.0

Options = TypeVar("Options", bound=BaseModel)

# Increasing field in the data of an event, by the kind of event
COUNTED = {"step": "step", "validation": "step", "message": "progress"}


class NoOptions(BaseModel, extra="forbid", frozen=True):
    """Options of a backend without options."""


class HostedBackend(Generic[Options]):
    """A vendor's backend; subclasses are constructed without arguments."""

    name: ClassVar[str]
    guarantee: ClassVar[Guarantee] = Guarantee.SUFFIX_ONLY
    address: ClassVar[str]  # the vendor's own address
    address_variable: ClassVar[str]  # environment variable with another address
    key_variable: ClassVar[str]  # environment variable with the key
    key_header: ClassVar[str | None] = None  # header of the key; None for a bearer token
    # Environment variable with a bearer token, which is used instead of the key
    token_variable: ClassVar[str] = ""
    headers: ClassVar[Mapping[str, str]] = {}  # headers of each request, besides the key
    # Environment variable with further headers, ``NAME: VALUE`` per line, as in vendors' SDKs
    headers_variable: ClassVar[str] = ""
    sign_in_advice: ClassVar[str] = ""  # advice on signing in without a key, if `sign_in` can
    chat_path: ClassVar[str] = "/v1"  # path of chat completions, below the address
    # States by the vendor's words; any other word is `State.UNKNOWN`
    states: ClassVar[Mapping[str, State]] = {}
    options: ClassVar[type[Any]] = NoOptions  # model of a job's options; the parameter of the class
    # What to do next by HTTP status; extends `unitune.backends.kit.errors.ADVICE`
    advice: ClassVar[Mapping[int, str]] = {}
    # Names of the protocols in `unitune.backends.capabilities` that the class adds to its bases'
    capabilities: ClassVar[tuple[str, ...]] = ("ValidatesOptions",)

    def __init_subclass__(cls, **options: Any) -> None:
        """Raise TypeError for a backend with a name but wrong capabilities or missing variables."""
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            return
        registry.check_capabilities(cls)
        needed = ["key_variable"]
        if cls.base_url is HostedBackend[Any].base_url:
            needed += ["address", "address_variable"]
        missing = [each for each in needed if not hasattr(cls, each)]
        if missing and any(hasattr(cls, each) for each in ("key_variable", "address")):
            raise TypeError(f"{cls.__name__} does not set {' and '.join(missing)}.")

    @property
    def api(self) -> Api:
        """The vendor's API, with the current address and key in the environment."""
        return Api(self.endpoint())

    def base_url(self) -> str:
        """Return the vendor's address, from the environment or its own."""
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
        """Return a function that returns a bearer token without a key, if possible."""

    def endpoint_at(self, url: str, variable: str) -> Endpoint:
        """Return an address with the key or token in a variable, or raise `UserError`."""
        what = f"the key of {self.name}, for {url},"
        key = partial(required, variable, what, self.sign_in_advice)
        vendor = Vendor(self.name, variable, url, self.advice, secrets=(key(),))
        header = self.key_header if variable == self.key_variable else None
        return Endpoint(vendor, url, self.headers, key, header)

    def job_options(self, job: Job) -> Options:
        """Return a job's options for this backend; raise `JobError` if they are invalid."""
        return job_options(job, self.name, self.options)

    def validate_options(self, job: Job) -> None:
        """Raise `JobError` for invalid options."""
        self.job_options(job)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Refuse to tune; vendors that tune override these methods."""
        raise self.tunes_nothing()

    upload = submit = find = poll = cancel = _refuse

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a model for requests; a missing model fails at the first request."""
        from unitune.backends.kit.chat import ChatCompletions  # noqa: PLC0415 - loads aiohttp

        name = model if isinstance(model, str) else model.name
        return ChatCompletions(
            self.endpoint(self.chat_path),
            name,
            fingerprint=f"{self.name}:{self.model_behind(name)}",
            dialect=self.dialect(name),
        )

    def model_behind(self, name: str) -> str:
        """Return the model behind a name, if it differs and can be replaced."""
        return name

    def dialect(self, model: str) -> Dialect:
        """Return the known API differences of a model."""
        del model
        return Dialect()

    def state_of(self, word: str | None) -> State:
        """Map a state of the vendor to ours."""
        return self.states.get(word or "", State.UNKNOWN)

    def status(
        self,
        word: str | None,
        events: Iterable[Event],
        cursor: str,
        model: TunedModel | None = None,
        error: str | None = None,
    ) -> Status:
        """Return the result of a poll; a succeeded job without a model is not ended yet.

        `word` is the vendor's state, and `events` are all known ones, of which those after the
        previous poll's `cursor` are returned.
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
        return Unsupported(f"{self.name} cannot tune models, only answer: {reason}")


def required(variable: str, what: str, otherwise: str = "") -> str:
    """Return a variable's value by `key_in`, or raise `UserError`; `otherwise` is more advice."""
    if not (value := key_in(variable)):
        words = f"{what} is not set. Set the environment variable {variable}. {otherwise}"
        raise UserError(words.rstrip())
    return value


def _headers_in(variable: str) -> dict[str, str]:
    lines = (line.partition(":") for line in user_settings.variable(variable).split("\n"))
    return {
        name.strip(): checked_value(value.strip(), variable)
        for name, colon, value in lines
        if colon
    }


def create_named(
    api: Api, *path: str, parameter: str, name: str, action: str, body: Mapping[str, JsonValue]
) -> None:
    """Create a resource under this name, unless it exists."""
    try:
        api.post(*path, action=action, query={parameter: name}, body=body)
    except BackendError as error:
        if error.status != CONFLICT or api.find(*path, name, action=action) is None:
            raise


def explicit(value: JsonValue) -> JsonValue:
    """Return a setting for a create call: None, which is left out, for `auto`."""
    return None if value == "auto" else value


def without_none(body: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a body without unset values, so that the vendor's defaults apply."""
    return {name: value for name, value in body.items() if value is not None}


def content_name(sha256: str) -> str:
    """Return the name of a file at a vendor, made from its hash."""
    return f"unitune-{sha256[:32]}"


def wait_for_file(is_validated: Callable[[], bool], what: str) -> None:
    """Wait until a vendor has validated a file; raise `Unreachable` after `FILE_SECONDS`.

    `what` names vendor and file, as in "WHAT is still being validated".
    """
    if not wait_until(is_validated, FILE_SECONDS, FILE_POLL_SECONDS):
        raise Unreachable(
            f"{what} is still being validated after {FILE_SECONDS:.0f} seconds. Launch again "
            "later; it is not uploaded again."
        )


def wait_until(is_done: Callable[[], bool], seconds: float, poll_seconds: float) -> bool:
    """Wait until something is done, and return whether it was done in time."""
    until = time.monotonic() + seconds
    while not (done := is_done()) and time.monotonic() <= until:
        time.sleep(poll_seconds)
    return done


class Cursor(Frozen):
    """Position after the events of earlier polls."""

    time: float = 0.0  # time of the newest message, in seconds since 1970
    keys: tuple[str, ...] = ()  # keys of the messages at that time
    counts: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Parse the cursor of an earlier poll; an empty text is the beginning."""
        return cls.model_validate_json(text) if text else cls()

    def is_before(self, event: Event) -> bool:
        """Return whether an event is new."""
        if (count := count_of(event)) is not None:
            return count > self.counts.get(event.kind, -1)
        return event.time > self.time or (event.time == self.time and event.key not in self.keys)


def unseen(events: Iterable[Event], cursor: str) -> tuple[tuple[Event, ...], str]:
    """Return the events after a cursor, oldest first and each once, and the next cursor.

    Events may come in any order; those of the same time keep theirs. The first cursor is empty.
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
    """Return the number of a counted event; None for other events."""
    count = event.data.get(COUNTED.get(event.kind, ""))
    return count if isinstance(count, int) else None


BAD_REQUEST = 400


def check_size(vendor: str, requests: int, size: int, *, most: int, most_bytes: int) -> None:
    """Raise `Unsupported` for a batch that is empty or larger than a vendor accepts."""
    if not 1 <= requests <= most or size > most_bytes:
        raise Unsupported(
            f"A batch at {vendor} can hold 1 to {most:,} requests and {most_bytes / 1e6:,.0f} MB, "
            f"but this one has {requests:,} with {size / 1e6:,.1f} MB. Use fewer or shorter cases, "
            "or run without --batch."
        )


def cannot_take(model: str, request_id: str, problem: Exception) -> Unsupported:
    """Return the refusal of a request that a model's API cannot represent."""
    return Unsupported(
        f"{model} cannot accept request {request_id}: {problem}. Remove that case, or run without "
        "--batch, so that only this case fails."
    )


def cancel_unless_ended(cancel: Callable[[], object], is_running: Callable[[], bool]) -> None:
    """Cancel a batch; ignore a refusal because it has ended."""
    try:
        cancel()
    except BackendError as error:
        if error.status not in (BAD_REQUEST, CONFLICT) or is_running():
            raise
