"""Google's own count of a question's tokens.

Source: google-genai 3.6.1, models.py (`count_tokens`, which generates nothing).
"""

from __future__ import annotations

from typing import Protocol, cast

from google import genai
from google.genai import types
from pydantic import JsonValue

from unitune.backends.formats import UnrepresentableRow
from unitune.errors import Unreachable, Unsupported
from unitune.models import Request
from unitune_providers.vertex.chat import question
from unitune_providers.vertex.cloud import Cloud
from unitune_providers.vertex.errors import read


class _Models(Protocol):
    """The one call that is used, without the types of images and files that it could take too."""

    def count_tokens(
        self, *, model: str, contents: JsonValue, config: types.CountTokensConfig
    ) -> types.CountTokensResponse: ...


def count(cloud: Cloud, name: str, location: str, request: Request) -> int:
    """Return how many tokens a request's input is.

    Args:
        cloud: How Google is reached.
        name: A published model's name, or the resource name of an endpoint.
        location: Where it is asked.
        request: Its messages and tools.

    Raises:
        Unsupported: It says something that Gemini has no place for.
        BackendError: Google refused.
        Unreachable: It gave no answer.
    """
    try:
        row = question(request)
    except UnrepresentableRow as problem:
        raise Unsupported(f"Gemini cannot be asked this: {problem}") from problem
    settings: dict[str, object] = {
        "http_options": cloud.patience.retries,
        "system_instruction": row.get("systemInstruction"),
        "tools": row.get("tools"),
    }
    config = types.CountTokensConfig.model_validate(settings)
    models = _models(cloud.client(location))
    counted = read(
        f"count tokens for {name}",
        lambda: models.count_tokens(model=name, contents=row["contents"], config=config),
    )
    if counted.total_tokens is None:
        raise Unreachable(f"Google gave no count of tokens for {name}. Try again.")
    return counted.total_tokens


def _models(client: genai.Client) -> _Models:
    return cast("_Models", client.models)
