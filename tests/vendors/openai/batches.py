"""Batches at OpenAI: the create call checked, the lines checked, and the two files that come out.

The messages for what is refused in a file are Azure's, which documents them; OpenAI does not.

Sources: openai/openai-openapi 2.3.0, /batches; OpenAI's batch guide, a copy; MicrosoftDocs/
azure-ai-docs, how-to-batch-content, 2026-03-19 (codes); openai/openai-openapi issue 302.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from unitune.testing.vendor_setup import Progress, Refused, ServerBehavior
from vendors.openai.checks import Body, check_metadata
from vendors.openai.files import LoopbackFile
from vendors.openai.lists import Json

ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
ARGUMENTS = {
    "input_file_id",
    "endpoint",
    "completion_window",
    "metadata",
    "output_expires_after",
}
LINE = {"custom_id": str, "method": str, "url": str, "body": dict}
MOST_REQUESTS = 50_000
WINDOW_SECONDS = 24 * 60 * 60
ENDED = ("completed", "failed", "expired", "cancelled")
EXPIRED: Json = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


@dataclass(slots=True)
class LoopbackBatch:
    """A batch with its state."""

    id: str
    request: Body  # the create call's body
    lines: list[Json]  # lines of its input file
    problem: Json | None = None  # what is wrong with that file
    progress: Progress = field(default_factory=Progress)
    # requests that were answered when it was cancelled; None unless it was
    stopped: int | None = None
    answered: int | None = None  # how many requests are answered before the window ends; None: all
    # ids of what came out, by their name in the batch; None before the end
    files: Mapping[str, str] | None = None
    failed: int = 0  # requests that failed

    def look(self, behavior: ServerBehavior) -> None:
        """Let a poll's worth of time pass, unless it has ended."""
        if self.status(behavior) not in ENDED:
            self.progress.look()

    def stop(self, behavior: ServerBehavior) -> None:
        """Let it end with what is answered."""
        status = self.status(behavior)
        if status in ENDED:
            raise Refused(409, f"Cannot cancel a batch with status '{status}'.")
        if self.stopped is None:
            self.stopped, self.progress = self.done(behavior), Progress(self.progress.created)

    def status(self, behavior: ServerBehavior) -> str:
        """Return the vendor's word."""
        if self.stopped is not None:
            return "cancelled" if self.progress.polls else "cancelling"
        bad = self.problem or behavior.rejects_files
        if bad and self.progress.polls:
            return "failed"
        if self.progress.done(behavior) and self.progress.started(behavior):
            return "failed" if behavior.fails else self._end()
        if behavior.state:
            return behavior.state
        return "in_progress" if self.progress.started(behavior) and not bad else "validating"

    def _end(self) -> str:
        return "completed" if self.answered is None else "expired"

    def done(self, behavior: ServerBehavior) -> int:
        """Return how many requests are done."""
        if self.stopped is not None:
            return self.stopped
        if self.status(behavior) == "expired":
            return min(len(self.lines), self.answered or 0)
        if self.status(behavior) == "failed":
            return 0
        return len(self.lines) * self.progress.steps(behavior) // max(1, behavior.steps)

    def as_json(self, behavior: ServerBehavior) -> Json:
        """Return the batch as the vendor shows it; what is not there is left out."""
        status, created = self.status(behavior), int(self.progress.created)
        begun = status not in ("validating", "failed")
        shown: Json = {
            "id": self.id,
            "object": "batch",
            "endpoint": self.request["endpoint"],
            "input_file_id": self.request["input_file_id"],
            "completion_window": self.request["completion_window"],
            "status": status,
            "created_at": created,
            "expires_at": created + WINDOW_SECONDS,
            "request_counts": {
                "total": len(self.lines) if begun else 0,
                "completed": self.done(behavior) - self.failed if begun else 0,
                "failed": self.failed,
            },
            "metadata": self.request.get("metadata"),
            **(self.files or {}),
        }
        if begun and self.lines:
            shown |= {"model": _model(self.lines[0]), "in_progress_at": created}
        if status in (*ENDED, "cancelling", "finalizing"):
            shown[f"{status}_at"] = created + self.progress.polls
        if status == "failed":
            shown["errors"] = {"object": "list", "data": [self._error(behavior)]}
        return shown

    def _error(self, behavior: ServerBehavior) -> Json:
        if self.problem:
            return self.problem
        code = "invalid_request" if behavior.rejects_files else "server_error"
        return {"code": code, "message": behavior.rejects_files or behavior.fails, "param": None}

    def settle(
        self,
        behavior: ServerBehavior,
        respond: Callable[[Body], Json],
        keep: Callable[[bytes], str],
    ) -> None:
        """Write both files once the end is there."""
        status = self.status(behavior)
        if self.files is not None or status not in ENDED or status == "failed":
            return
        done = self.done(behavior)
        results = [
            _result(number, line, response=respond(cast("Body", line["body"])))
            for number, line in enumerate(self.lines[:done])
        ]
        good = [result for result in results if _status(result) == 200]
        bad = [result for result in results if _status(result) != 200]
        self.failed = len(bad)
        if status == "expired":
            bad += [
                _result(number, line, error=EXPIRED)
                for number, line in enumerate(self.lines[done:], done)
            ]
        # The order of answers is not that of the requests.
        contents = {"output_file_id": good[::-1], "error_file_id": bad}
        self.files = {name: keep(_jsonl(lines)) for name, lines in contents.items() if lines}


def open_batch(
    batch_id: str, body: Body, files: Mapping[str, LoopbackFile], models: Collection[str]
) -> LoopbackBatch:
    """Return a new batch, whose file is looked through already."""
    _check_create(body)
    file = files.get(body["input_file_id"])
    if file is None or file.purpose != "batch":
        message = f"No file for batches: {body['input_file_id']}"
        raise Refused(400, message, code="file_not_found", param="input_file_id")
    lines, problem = _read(file.content)
    problem = problem or _problem_in(lines, body["endpoint"], models)
    return LoopbackBatch(batch_id, body, lines, problem)


def _check_create(body: Body) -> None:
    for name in sorted(body.keys() - ARGUMENTS):
        raise Refused(400, f"Unknown parameter: '{name}'.", param=name)
    for name in ("input_file_id", "endpoint", "completion_window"):
        if name not in body:
            raise Refused(400, f"Missing required parameter: '{name}'.", param=name)
    if body["endpoint"] not in ENDPOINTS:
        raise Refused(400, f"Invalid value: '{body['endpoint']}'.", param="endpoint")
    if body["completion_window"] != "24h":
        raise Refused(400, "Invalid value: supported is '24h'.", param="completion_window")
    check_metadata(body.get("metadata"))


def _read(file: bytes) -> tuple[list[Json], Json | None]:
    """Return the lines of an input file, and as a problem the first that is no JSON object."""
    lines: list[Json] = []
    for number, line in enumerate(file.split(b"\n"), 1):
        if not line:
            continue
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            message = "This line is not parseable as valid JSON."
            return lines, _problem("invalid_json_line", message, number)
        lines.append(cast("Json", content))
    return lines, None


def _problem_in(lines: list[Json], endpoint: str, models: Collection[str]) -> Json | None:
    """Return the first thing wrong with the lines of an input file."""
    if not lines:
        return _problem("empty_file", "The input file is empty.", None)
    if len(lines) > MOST_REQUESTS:
        return _problem("too_many_tasks", f"More than {MOST_REQUESTS} requests.", None)
    seen = set[str]()
    for number, line in enumerate(lines, 1):
        problem = _problem_of(line, endpoint, seen)
        if problem is None and _model(line) not in models:
            problem = "model_not_found", f"The model {_model(line)!r} was not found."
        if problem is None and _model(line) != _model(lines[0]):
            problem = "model_mismatch", "The model is not that of the first line."
        if problem is not None:
            return _problem(*problem, number)
        seen.add(str(line["custom_id"]))
    return None


def _problem_of(line: Json, endpoint: str, seen: set[str]) -> tuple[str, str] | None:
    """Return code and message of what is wrong with a line as such."""
    for name, kind in LINE.items():
        if not isinstance(line.get(name), kind):
            return "invalid_request", f"Missing required parameter: '{name}'."
    if line["method"] != "POST":
        return "invalid_request", f"Invalid method: {line['method']}."
    if line["url"] != endpoint:
        return "url_mismatch", f"The URL {line['url']} is not the batch's endpoint {endpoint}."
    if line["custom_id"] in seen:
        return "duplicate_custom_id", f"The custom_id {line['custom_id']!r} is a duplicate."
    return None


def _problem(code: str, message: str, line: int | None) -> Json:
    return {"code": code, "message": message, "param": None, "line": line}


def _model(line: Json) -> str:
    return str(cast("dict[str, Any]", line["body"]).get("model"))


def _result(
    number: int, line: Json, *, response: Json | None = None, error: Json | None = None
) -> Json:
    return {
        "id": f"batch_req_{number:08d}",
        "custom_id": line["custom_id"],
        "response": response and {**response, "request_id": f"req-{number:08d}"},
        "error": error,
    }


def _status(result: Json) -> JsonValue:
    return cast("Json", result["response"])["status_code"]


def _jsonl(lines: list[Json]) -> bytes:
    # As they are: the vendor escapes no character beyond ASCII.
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
