"""What goes wrong at Google Cloud, in our words: the one place where foreign errors are mapped.

Four libraries speak to Google here (google-genai, google-cloud-storage, google-auth, and the HTTP
clients beneath them), each with errors of its own. An answer with a status becomes a
`BackendError`; no answer, or one that cannot be read to its end, becomes `Unreachable`; no
credentials become a `UserError`. What Cloud Storage raises is told apart in `storage_errors`. Not
here: what a job says of itself (`vertex_jobs`).
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TypeVar, cast

import httpx
import httpx2
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.genai.errors import APIError
from pydantic import ValidationError

from unitune.backends.rate_limits import parse_retry_after
from unitune.errors import BackendError, UnituneError, Unreachable, UserError
from unitune.security.addresses import is_redirect, redirected
from unitune.security.redaction import redacted

FOREIGN = (
    APIError,
    GoogleAuthError,
    httpx.TransportError,
    httpx2.TransportError,
    ConnectionError,
    TimeoutError,
    # Answers that are no JSON, or other JSON than the SDK knows:
    json.JSONDecodeError,
    ValidationError,
)
"""What google-genai, google-auth and their HTTP clients raise when a request fails."""

T = TypeVar("T")
UNAUTHORISED = 401
PRECONDITION_FAILED = 412
TOKEN = re.compile(r"ya29\.[\w.~+/-]+|(?<=Bearer )\S+")
"""Google's access tokens, as they look, and whatever else stands where one belongs."""
SIGN_IN = (
    "Sign in with `gcloud auth application-default login`, or let GOOGLE_APPLICATION_CREDENTIALS "
    "name a key file."
)


@contextmanager
def vendor_errors(doing: str) -> Generator[None]:
    """Map what the libraries raise in the body, and keep their warnings from users.

    Args:
        doing: What is being asked, after "to": ``read job 17``.

    Raises:
        BackendError: An answer with an error status.
        Unreachable: No answer, or none that can be read.
        UserError: There are no credentials.
    """
    with warnings.catch_warnings():
        # Tuning in the SDK is called experimental, and a new word for a state is a warning.
        warnings.filterwarnings("ignore", message="The SDK's tuning implementation")
        warnings.filterwarnings("ignore", message=".* is not a valid ")
        try:
            yield
        except UnituneError:
            raise
        except FOREIGN as error:
            raise ours(error, doing) from error
        except Exception as error:
            from unitune_providers.vertex import storage_errors  # noqa: PLC0415 - loads its libraries

            if not isinstance(error, storage_errors.FOREIGN):
                raise
            raise storage_errors.ours(error, doing) from error


@contextmanager
def made_before_is_fine() -> Generator[None]:
    """Let a 412 pass: another process, or an attempt before this one, has written the file."""
    try:
        yield
    except BackendError as error:
        if error.status != PRECONDITION_FAILED:
            raise


def read(doing: str, ask: Callable[[], T]) -> T:
    """Return what a request brings that changes nothing, and map what the libraries raise.

    The SDK repeats such requests itself, except where a server closed a connection in the moment
    in which it was taken up again: that is repeated here.

    Args:
        doing: As for `vendor_errors`.
        ask: Sends the request.

    Raises:
        BackendError: An answer with an error status.
        Unreachable: No answer, or none that can be read.
    """
    with vendor_errors(doing):
        try:
            return ask()
        except httpx2.RemoteProtocolError:
            return ask()


def ours(error: Exception, doing: str) -> UnituneError:
    """Return our error for one of the libraries'; what is not known is taken for no answer.

    Args:
        error: As raised.
        doing: What was being asked, after "to".
    """
    if isinstance(error, DefaultCredentialsError):
        return UserError(f"There are no credentials for Google Cloud to {doing}. {SIGN_IN}")
    if isinstance(error, TransportError):
        return told(error, None, doing)
    if isinstance(error, GoogleAuthError):
        return BackendError(
            f"Google Cloud does not accept the credentials to {doing}: {_first(error)}. {SIGN_IN}",
            status=UNAUTHORISED,
        )
    return told(error, (error.code or None) if isinstance(error, APIError) else None, doing)


def told(error: Exception, status: int | None, doing: str) -> BackendError:
    """Return our error for an answer of Google's, or for none.

    Args:
        error: As raised.
        status: Of the answer; None when there was none that could be read.
        doing: What was being asked, after "to".
    """
    if status is None:
        said = _first(error)
        return Unreachable(
            f"Google Cloud gave no answer that could be read to {doing} "
            f"({type(error).__name__}{': ' + said if said else ''})."
        )
    hint = f" {SIGN_IN}" if status == UNAUTHORISED else ""
    moved = is_redirect(status)
    said = f"{redirected(_headers(error).get('location'))}." if moved else _words(error)
    return BackendError(
        f"Google Cloud refused to {doing} (HTTP {status}): {said}{hint}",
        status=status,
        request_id=_headers(error).get("x-goog-request-id"),
        retry_after=parse_retry_after(_headers(error)),
    )


def _headers(error: Exception) -> Mapping[str, str]:
    """The headers of the answer that an error came of; each library keeps it in the same place."""
    answer = vars(error).get("response", vars(error).get("_response"))
    return cast("Mapping[str, str]", getattr(answer, "headers", None) or {})


def _words(error: Exception) -> str:
    said = str(getattr(error, "message", None) or _first(error))
    return safe(said.strip().rstrip(".") + ".")


def _first(error: Exception) -> str:
    """The first line of an error; a body that could not be parsed is not shown."""
    text = str(error.args[0]) if error.args else ""
    return safe(text.strip().partition("\n")[0])


def safe(words: str) -> str:
    """Take access tokens out, in case that Google or a proxy repeats one.

    Args:
        words: Of an answer.
    """
    return redacted(TOKEN.sub("***", words), [])
