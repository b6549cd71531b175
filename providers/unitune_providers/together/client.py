"""Together's client, and its errors in our words: the one place where they are mapped.

Keys come from the environment alone. One client serves a backend; reads are repeated by the SDK,
writes never. `translated` wraps every call to the vendor, `ours` says what an error of the SDK, or
of the HTTP client below it, means: an answer with a status is a `BackendError`, no answer or a
broken one is `Unreachable`. What is not here: what is asked (the siblings).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from typing import TypeVar
from urllib.parse import quote

from together import (
    APIConnectionError,
    APIStatusError,
    DefaultHttpxClient,
    Together,
    TogetherError,
)
from together.types import WhoamiProjectAPIKey

from unitune.backends.credentials import environment_address
from unitune.backends.kit.bodies import GZIP_ONLY, LARGEST_FILE, hooks
from unitune.backends.kit.chat_model import Endpoint
from unitune.backends.kit.errors import (
    HTTPX_ERRORS,
    ErrorTable,
    Vendor,
    error_of_response,
    vendor_errors,
)
from unitune.errors import BackendError, UserError

KEY = "TOGETHER_API_KEY"
ADDRESS = "TOGETHER_BASE_URL"
URL = "https://api.together.ai"
PROJECT = "TOGETHER_PROJECT_ID"
TIMEOUT_SECONDS = 60.0
"""For each wait on the wire; the SDK's own default."""
READ_RETRIES = 2
TRAININGS = "/v1/fine-tunes"
VENDOR = Vendor("together", KEY)
SDK_ERRORS = ErrorTable(
    {APIStatusError: error_of_response, **HTTPX_ERRORS.responses},
    (APIConnectionError, *HTTPX_ERRORS.silent),
    (TogetherError,),
)
"""What a call to the SDK raises; its file transfers let the HTTP client's own errors through."""

Answer = TypeVar("Answer")


def api_key() -> str:
    """Return the key from the environment.

    Raises:
        UserError: It is not set.
    """
    key = os.environ.get(KEY)
    if not key:
        raise UserError(
            f"backend 'together' needs a key, and the environment variable {KEY} is not set. "
            f"Make a key at https://api.together.ai/settings/api-keys and export {KEY}."
        )
    return key


def chat_endpoint() -> Endpoint:
    """Return where models answer.

    Raises:
        UserError: There is no key.
    """
    url = environment_address(ADDRESS) or URL
    return Endpoint(VENDOR, f"{url}/v1", {"Authorization": f"Bearer {api_key()}"})


class Connections(DefaultHttpxClient):
    """The SDK's HTTP client; like the SDK's own one it is closed when nobody holds it any more.

    Args:
        follow_redirects: Not where a key or a question is sent.
    """

    def __init__(self, *, follow_redirects: bool = False) -> None:
        # Weights are files of any size, written to the disk as they come.
        bounds = {} if follow_redirects else hooks(LARGEST_FILE)
        super().__init__(follow_redirects=follow_redirects, event_hooks=bounds, headers=GZIP_ONLY)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


class Connection:
    """The client of one backend, made when it is first needed."""

    @cached_property
    def writes(self) -> Together:
        """For calls that must not be repeated."""
        return self._new(follow_redirects=False, max_retries=0)

    @cached_property
    def reads(self) -> Together:
        """For calls that may be repeated."""
        return self.writes.with_options(max_retries=READ_RETRIES)

    @cached_property
    def files(self) -> Together:
        """For reading files, which may lie elsewhere: there the HTTP client sends no key."""
        return self._new(follow_redirects=True, max_retries=READ_RETRIES)

    def _new(self, *, follow_redirects: bool, max_retries: int) -> Together:
        return Together(
            api_key=api_key(),
            base_url=environment_address(ADDRESS),
            timeout=TIMEOUT_SECONDS,
            max_retries=max_retries,
            http_client=Connections(follow_redirects=follow_redirects),
        )

    def training(self, answer: type[Answer], *path: str, **query: object) -> Answer:
        """Return what Together says of its trainings.

        By its path, because the SDK's `fine_tuning` loads the types of all that Together offers:
        6 MiB, and who only watches trainings needs none of them.

        Args:
            answer: The SDK's type of it.
            path: Below that of all trainings.
            query: Parameters.
        """
        below = "".join(f"/{quote(part, safe='')}" for part in path)
        return self.reads.get(f"{TRAININGS}{below}", cast_to=answer, options={"params": query})

    @cached_property
    def project(self) -> str:
        """The project that endpoints stand in: the environment's, or the key's own.

        Raises:
            UserError: The key belongs to no project.
        """
        chosen = os.environ.get(PROJECT)
        if chosen:
            return chosen
        with translated("look up the project of the key"):
            caller = self.reads.whoami()
        if isinstance(caller, WhoamiProjectAPIKey):
            return caller.project.id
        raise UserError(
            f"the key in {KEY} belongs to no single project. Set {PROJECT} to the project that "
            "endpoints shall stand in; `tg projects list` shows them."
        )


def translated(what: str) -> AbstractContextManager[None]:
    """Raise what goes wrong at the vendor as an error of ours; see `vendor_errors`."""
    return vendor_errors(VENDOR, what, SDK_ERRORS)


def is_gone(error: BackendError) -> bool:
    """Return whether the vendor said that there is no such thing."""
    return error.is_not_found
