"""Many questions to Claude together: message batches, within a day and at half the price.

A batch has neither a name nor metadata: what tells ours are the ids of its requests, which are only
given back with its answers. Everything but the create call may be repeated, and is.

Source: platform.claude.com/docs/en/build-with-claude/batch-processing (limits, what is billed, 24
hours, 29 days; read 2026-11-25); anthropic 2.13.0, resources/messages/batches.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing

from pydantic import JsonValue

from unitune.backends.capabilities import BatchStatus
from unitune.backends.kit.api import Api, created_id
from unitune.backends.kit.chat_completions import Refusal, refuses
from unitune.backends.kit.errors import ErrorResponse
from unitune.backends.kit.paging import by_last_id
from unitune.errors import CONFLICT, BackendError, Unsupported
from unitune.models import Reply, Request
from unitune.security.json_fields import Fields
from unitune_providers.anthropic.chat import question, read_answer, sampling

BATCHES = ("v1", "messages", "batches")
REQUESTS_MOST = 100_000
BYTES_MOST = 256_000_000
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
PAGE_SIZE = 100
MARGIN_SECONDS = 60.0
"""By how much Anthropic's clock may have gone on otherwise than ours since a batch was announced;
how far they are apart is read from its answers."""
BAD_REQUEST = 400
STATUS = {"authentication_error": 401, "not_found_error": 404, "rate_limit_error": 429}
"""By the kind of an error, which a failed request has without its status."""
ENDED = "ended"
NOT_REACHED = {
    "expired": (
        "Anthropic did not come to it within the 24 hours of its batch, and does not bill it. "
        "Ask again in a new batch, or without --batch."
    ),
    "canceled": (
        "The batch was cancelled before Anthropic came to it; it is not billed. "
        "Ask again in a new batch, or without --batch."
    ),
}


def submit(api: Api, model: str, requests: Mapping[str, Request]) -> str:
    """Submit requests, with one create call that is never repeated, and return the batch's id.

    Whether a model takes a temperature shows in its refusal alone, which a batch would show
    hours later and for every request: so a request of one word is sent before, as `chat` would.
    It costs a few tokens, and finds out a wrong key or model too. Its failure is never of the kind
    that leaves open whether there is a batch.

    Raises:
        Unsupported: A model cannot take a request, or there are too many; nothing was sent.
        BackendError: Anthropic refused, or did not answer before anything was submitted.
        Unreachable: It gave no answer; there may be a batch, which `find` finds.
    """
    questions = {name: _question(name, model, request) for name, request in requests.items()}
    _check(questions)
    warm = _takes_temperature(api, model, next(iter(requests.values())))
    rows: list[JsonValue] = [
        {"custom_id": name, "params": {**questions[name], **sampling(request, warm=warm)}}
        for name, request in requests.items()
    ]
    created = api.post(*BATCHES, action="create the batch", body={"requests": rows})
    return created_id(created, api.endpoint)


def find(api: Api, key: str, since: float) -> list[str]:
    """Return the batches with this key, or, where there is none, all that may have it.

    Of a batch that has ended the ids of its requests tell the key; of one that goes on nothing
    does. So the batches that were created since the announcement are looked at, and

    - those that have ended with our ids are ours, and the others are not considered;
    - if there is none, every undecided batch is returned. A single batch is most likely
      ours, and being wrong bills nothing twice: its answers then have other ids than ours. Where
      there are several, the caller must refuse and name them; once they have ended, it is certain
      which is ours, and looking again tells.

    That none is returned means that there is none, as far as Anthropic's list shows yet.

    Args:
        api: Anthropic.
        key: Begins the ids of its requests.
        since: By our clock; how far Anthropic's is apart from it is read from its answer.
    """
    certain, untold = list[str](), list[str]()
    for batch in _recent(api, since):
        batch_id, name = batch.text("id") or "", _a_request_of(api, batch)
        if name is None:
            untold.append(batch_id)
        elif name.rpartition("-")[0] == key:
            certain.append(batch_id)
    return certain or untold


def poll(api: Api, batch_id: str) -> BatchStatus:
    """Return how a batch stands; Anthropic counts requests only once all have ended.

    Raises:
        BackendError: There is no such batch.
    """
    batch = _read(api, batch_id)
    word = batch.text("processing_status") or "no status"
    if word != ENDED:
        return BatchStatus("running", word)
    if batch.text("results_url") is None:
        return BatchStatus("failed", word, error=_gone(batch_id))
    counts = batch.fields("request_counts")
    ends = [counts.whole(name) or 0 for name in ("succeeded", "errored", "canceled", "expired")]
    return BatchStatus("ended", word, done=sum(ends) if counts.all else None)


def fetch(api: Api, batch_id: str) -> dict[str, Reply]:
    """Return the answers of a batch that has ended, by the ids of their requests.

    Raises:
        BackendError: It goes on, or its answers are no longer kept.
        Unreachable: Anthropic gave no answer, or not the whole of it.
    """
    status = poll(api, batch_id)
    if status.state == "running":
        raise BackendError(f"Batch {batch_id} is {status.raw}. Wait until it has ended.")
    if status.error is not None:
        raise BackendError(status.error)
    rows = api.lines(*BATCHES, batch_id, "results", action=f"send the answers of {batch_id}")
    return {row.text("custom_id") or "": _reply(api, row.fields("result")) for row in rows}


def cancel(api: Api, batch_id: str) -> None:
    """Ask for the end of a batch; one that has ended is no error.

    Raises:
        BackendError: There is no such batch, or Anthropic refused.
    """
    try:
        api.post(*BATCHES, batch_id, "cancel", action=f"cancel {batch_id}")
    except BackendError as error:
        if error.status not in (BAD_REQUEST, CONFLICT) or poll(api, batch_id).state == "running":
            raise


def _question(name: str, model: str, request: Request) -> dict[str, JsonValue]:
    if not CUSTOM_ID.fullmatch(name):
        raise Unsupported(
            f"A request's id is {name!r}; Anthropic takes 1 to 64 letters, digits, _ and -."
        )
    try:
        return question(model, request)
    except (KeyError, ValueError) as problem:
        raise Unsupported(
            f"{model} cannot take request {name}: {problem}. Leave that case out, or run "
            "without --batch, where it alone fails."
        ) from problem


def _check(questions: Mapping[str, JsonValue]) -> None:
    around = len(json.dumps({"custom_id": "", "params": {"temperature": 0.123}}))
    size = len(json.dumps(questions, ensure_ascii=False).encode()) + around * len(questions)
    if len(questions) > REQUESTS_MOST or size > BYTES_MOST:
        raise Unsupported(
            f"A batch of Anthropic's holds at most {REQUESTS_MOST:,} requests and "
            f"{BYTES_MOST / 1e6:,.0f} MB, and these are {len(questions):,} with {size / 1e6:,.1f} "
            "MB. Take fewer or shorter cases, or run without --batch."
        )


def _takes_temperature(api: Api, model: str, request: Request) -> bool:
    hello: dict[str, JsonValue] = {
        "model": model,
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "Hello"}],
        **sampling(request, warm=True),
    }
    try:
        api.post("v1", "messages", action=f"ask {model}", body=hello, changes_nothing=True)
    except BackendError as error:
        refusal = Refusal(error.status or 0, str(error))
        if error.status == BAD_REQUEST and refuses(refusal, request, "temperature"):
            return False
        if not error.is_ambiguous:
            raise
        # Of an open outcome, one would look for a batch, and could only find somebody else's.
        words = f"{error} No batch was submitted. Try again."
        raise BackendError(words, request_id=error.request_id) from error
    return True


def _recent(api: Api, since: float) -> Iterator[Fields]:
    """Yield the batches that were created since then; one that does not say when may be ours."""
    action = "list batches"
    oldest = since + api.seconds_ahead(*BATCHES, action=action) - MARGIN_SECONDS
    paging, query = by_last_id(parameter="after_id"), {"limit": PAGE_SIZE}
    for batch in api.pages(*BATCHES, action=action, next_page=paging, query=query):
        if (batch.time("created_at") or oldest) < oldest:
            return
        yield batch


def _a_request_of(api: Api, batch: Fields) -> str | None:
    """Return the id of one request of a batch; None where that is unknown."""
    batch_id = batch.text("id")
    if batch.text("processing_status") != ENDED or not batch.text("results_url") or not batch_id:
        return None
    rows = api.lines(*BATCHES, batch_id, "results", action=f"send the answers of {batch_id}")
    with closing(rows):
        return next((row.text("custom_id") for row in rows), None)


def _read(api: Api, batch_id: str) -> Fields:
    return api.get(*BATCHES, batch_id, action=f"read batch {batch_id}")


def _reply(api: Api, result: Fields) -> Reply:
    kind = result.text("type") or "nothing"
    if kind == "succeeded" and (reply := read_answer(result.fields("message"))) is not None:
        return reply
    if kind == "errored":
        error = result.fields("error").fields("error")
        name = error.text("type") or ""
        response = ErrorResponse(STATUS.get(name, 0), {}, f"{error.text('message')} [{name}]")
        words = str(api.endpoint.vendor.refused("answer", response))
    else:
        words = NOT_REACHED.get(kind, f"Anthropic says {kind!r} of it, which is not known here.")
    return Reply(error=words, finish_reason="error")


def _gone(batch_id: str) -> str:
    return (
        f"The answers of batch {batch_id} are gone: Anthropic keeps them for 29 days. Ask again in "
        "a new batch, or without --batch."
    )
