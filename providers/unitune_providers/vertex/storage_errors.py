"""What Cloud Storage's libraries raise, in our words; `errors` looks here last.

Apart from it because these libraries are large, and whoever only watches trainings needs none.
"""

from __future__ import annotations

from typing import cast

import requests
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, RetryError
from google.cloud.storage.exceptions import (  # pyright: ignore[reportMissingTypeStubs] - it has none
    DataCorruption,
    InvalidResponse,
)

from unitune.errors import UnituneError
from unitune_providers.vertex import errors

FOREIGN = (GoogleAPIError, InvalidResponse, DataCorruption, requests.RequestException)
"""What google-cloud-storage and its HTTP client raise when a request fails."""


def ours(error: Exception, doing: str) -> UnituneError:
    """Return our error for one of `FOREIGN`, or for what made the library give up repeating.

    Args:
        error: As raised.
        doing: What was being asked, after "to".
    """
    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        return ours(error.cause, doing)
    if isinstance(error, errors.FOREIGN):
        return errors.ours(error, doing)
    return errors.told(error, _status(error), doing)


def _status(error: Exception) -> int | None:
    if isinstance(error, GoogleAPICallError):
        return int(error.code) if error.code else None
    if isinstance(error, InvalidResponse):
        return int(cast("requests.Response", vars(error)["response"]).status_code)
    return None
