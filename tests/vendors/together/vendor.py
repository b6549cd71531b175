"""Together on loopback: files, trainings, endpoints and answers, with state.

    with serve(TogetherVendor(ServerBehavior(steps=2))) as server:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)

Files and trainings (``/v1``) are held against togethercomputer/openapi of 2026-04-28 by the tests;
endpoints (``/v2``) against the types of the SDK 3.1, because that description has an older kind.
Where the two disagree, an answer carries what both ask for. What is where: `together_files`,
`together_jobs`, `together_endpoints`; here are the paths, the key, and the answers of models.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from pydantic import JsonValue

from unitune.testing.loopback import UNREADABLE, ServerBehavior, VendorRequest, VendorResponse
from unitune.testing.omissions import thinned
from vendors import shapes
from vendors.together.endpoints import Endpoints
from vendors.together.files import Files
from vendors.together.jobs import Jobs
from vendors.together.parts import NAMESPACE, PROJECT_ID, Refused, fresh, needed, said

KEY = "loopback-key"
MODELS = ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B")
"""Base models that can be tuned, and answer without an endpoint."""

Route = tuple[str, str, Callable[..., VendorResponse], bool]
"""Method, pattern of the path, who answers (called with what the pattern's brackets hold), and
whether it is handed the request too."""


class TogetherVendor:
    """Plays Together.

    Args:
        behavior: How it behaves.
        models: Base models that it has.
    """

    def __init__(
        self, behavior: ServerBehavior | None = None, models: tuple[str, ...] = MODELS
    ) -> None:
        self.behavior = behavior or ServerBehavior()
        self.models = models
        self.files = Files(self.behavior)
        self.jobs = Jobs(self.files, models, self.behavior)
        self.endpoints = Endpoints(self.jobs, self.behavior)
        self._routes = self._all_routes()

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request, changing state as Together would."""
        try:
            if not asked.path.startswith("/storage/"):
                _check_key(asked)
            return thinned(self.behavior.omits, self._answer(asked), asked, shapes.together)
        except Refused as no:
            return no.answer
        except UNREADABLE as problem:
            return Refused(400, f"invalid request: {problem}").answer

    def _answer(self, asked: VendorRequest) -> VendorResponse:
        for method, pattern, handle, wants_request in self._routes:
            found = re.fullmatch(pattern, asked.path)
            if found and method == asked.method:
                return handle(*found.groups(), *([asked] if wants_request else []))
        raise Refused(404, f"no such path: {asked.method} {asked.path}", "not_found")

    def _all_routes(self) -> list[Route]:
        files, jobs, ends = self.files, self.jobs, self.endpoints
        one, project = "([^/]+)", f"/v2/projects/{PROJECT_ID}"
        file, job = f"/v1/files/{one}", f"/v1/fine-tunes/{one}"
        end = f"{project}/endpoints/{one}"
        return [
            ("GET", "/v3/whoami", _caller, False),
            ("GET", "/v1/files", files.listed, False),
            ("POST", "/v1/files", files.place, True),
            ("PUT", f"/storage/{one}", files.store, True),
            ("POST", f"{file}/preprocess", files.preprocess, False),
            ("GET", file, files.retrieve, False),
            ("GET", f"{file}/content", files.content, False),
            ("DELETE", file, files.delete, False),
            ("GET", "/v1/fine-tunes/models/limits", jobs.limits, True),
            ("POST", "/v1/fine-tunes/estimate-price", jobs.estimate, True),
            ("POST", "/v1/fine-tunes", jobs.create, True),
            ("GET", "/v1/fine-tunes", jobs.listed, False),
            ("GET", "/v1/finetune/download", jobs.download, True),
            ("GET", job, jobs.retrieve, False),
            ("DELETE", job, jobs.delete, False),
            ("POST", f"{job}/cancel", jobs.cancel, False),
            ("GET", f"{job}/events", jobs.events, False),
            ("GET", f"{job}/metrics", jobs.metrics, True),
            ("GET", f"{job}/checkpoints", jobs.checkpoints, False),
            ("GET", f"{project}/models/{one}", ends.model, False),
            ("GET", f"{project}/configs", ends.configs, True),
            ("GET", f"{project}/endpoints", ends.listed, True),
            ("POST", f"{project}/endpoints", ends.create, True),
            ("GET", end, ends.retrieve, False),
            ("PATCH", end, ends.update, True),
            ("DELETE", end, ends.delete, False),
            ("POST", f"{end}/deployments", ends.deploy, True),
            ("PATCH", f"{end}/deployments/{one}", ends.scale, True),
            ("DELETE", f"{end}/deployments/{one}", ends.remove, False),
            ("POST", "/v1/chat/completions", self._chat, True),
        ]

    def _chat(self, asked: VendorRequest) -> VendorResponse:
        body = asked.json
        model, messages = needed(body, "model", str), needed(body, "messages", list)
        if not messages:
            raise Refused(400, "messages must not be empty")
        serves = model in self.models or self.endpoints.answers(model)
        if not serves:
            raise _not_served(model, exists=serves is not None)
        question = _last_question(messages)
        text = self.behavior.otherwise
        if model not in self.models:
            text = self.behavior.replies.get(question, text)
        words = text.split()
        most = body.get("max_tokens") or len(words)
        usage = {"prompt_tokens": len(question.split()), "completion_tokens": min(len(words), most)}
        return said(
            {
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
        )


def _check_key(asked: VendorRequest) -> None:
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        raise Refused(401, "Invalid API key provided", "invalid_api_key")


def _caller() -> VendorResponse:
    return said(
        {
            "type": "project_api_key",
            "api_key": {"id": "key_loopback"},
            "organization": {"id": "org_loopback", "name": "loopback"},
            "project": {"id": PROJECT_ID, "name": "loopback", "slug": NAMESPACE},
        }
    )


def _not_served(model: str, *, exists: bool) -> Refused:
    """The vendor's words, seen in github.com/HeyPuter/puter issue 3168 (2026)."""
    if exists:
        return Refused(
            400,
            f"The dedicated endpoint for {model} is not running. Please visit "
            "https://api.together.ai/models to start the endpoint.",
            "dedicated_endpoint_not_running",
        )
    return Refused(
        400,
        f"Unable to access non-serverless model {model}. Please visit "
        f"https://api.together.ai/models/{model} to create and start a new dedicated endpoint for "
        "the model.",
        "model_not_available",
    )


def _last_question(messages: list[dict[str, JsonValue]]) -> str:
    asked = [message.get("content") for message in messages if message.get("role") == "user"]
    last = asked[-1] if asked else ""
    if isinstance(last, list):
        return "".join(str(part.get("text")) for part in last if isinstance(part, dict))
    return str(last or "")
