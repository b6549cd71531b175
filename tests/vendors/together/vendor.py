"""Together on loopback: files, trainings, endpoints and answers, with state.

    with serve(TogetherVendor(ServerBehavior(steps=2))) as server:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)

Files and trainings (``/v1``) are held against togethercomputer/openapi of 2026-04-28 by the tests;
endpoints (``/v2``) against the types of the SDK 3.1, because that description has an older kind.
Where the two disagree, a response carries what both require. Files, trainings and endpoints are in
modules of their own, each a class upon the one before; here are the key and the answers of models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.omissions import Shape
from unitune.testing.vendor_setup import Refused, route
from vendors import shapes
from vendors.bodies import last_question
from vendors.together.endpoints import Endpoints
from vendors.together.jobs import MODELS
from vendors.together.parts import NAMESPACE, PROJECT_ID, fresh, needed

KEY = "loopback-key"
NOT_FOUND = 404


class TogetherVendor(Endpoints):
    """Plays Together."""

    key = KEY

    def error(self, refusal: Refused) -> JsonValue:
        """As ``ErrorData`` of the description."""
        code = "not_found" if refusal.status == NOT_FOUND else None
        kind = "invalid_request_error"
        return {"error": {"message": refusal.message, "type": kind, "param": None, "code": code}}

    def shapes(self) -> Sequence[Shape]:
        """Answers of Together, by its SDK."""
        return shapes.together()

    @route("GET", "/v3/whoami")
    def caller(self, _: VendorRequest) -> JsonValue:
        """Answer whose the key is."""
        return {
            "type": "project_api_key",
            "api_key": {"id": "key_loopback"},
            "organization": {"id": "org_loopback", "name": "loopback"},
            "project": {"id": PROJECT_ID, "name": "loopback", "slug": NAMESPACE},
        }

    @route("POST", "/v1/chat/completions")
    def chat(self, request: VendorRequest) -> JsonValue:
        """Answer as a model."""
        body = request.json
        model, messages = needed(body, "model", str), needed(body, "messages", list)
        if not messages:
            raise Refused(400, "messages must not be empty")
        serves = model in MODELS or self.answers(model)
        if not serves:
            raise _not_served(model, exists=serves is not None)
        question = last_question(messages)
        text = self.behavior.otherwise
        if model not in MODELS:
            text = self.behavior.replies.get(question, text)
        words = text.split()
        most = body.get("max_tokens") or len(words)
        usage = {"prompt_tokens": len(question.split()), "completion_tokens": min(len(words), most)}
        return {
            "id": fresh("chat-"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "prompt": [],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "length" if len(words) > most else "eos",
                    "message": {"role": "assistant", "content": " ".join(words[:most])},
                }
            ],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }


def _not_served(model: str, *, exists: bool) -> Refused:
    """The vendor's words, seen in github.com/HeyPuter/puter issue 3168 (2026)."""
    if exists:
        return Refused(
            400,
            f"The dedicated endpoint for {model} is not running. Please visit "
            "https://api.together.ai/models to start the endpoint.",
        )
    return Refused(
        400,
        f"Unable to access non-serverless model {model}. Please visit "
        f"https://api.together.ai/models/{model} to create and start a new dedicated endpoint for "
        "the model.",
    )
