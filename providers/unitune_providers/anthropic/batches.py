"""Many questions to Claude together: message batches, within a day and at half the price.

A batch has neither a name nor metadata: what tells ours are the ids of its requests, which are only
given back with its answers. Everything but the create call may be repeated, and is.

Source: platform.claude.com/docs/en/build-with-claude/batch-processing (limits, what is billed, 24
hours, 29 days; read 2026-11-25); anthropic 2.13.0, resources/messages/batches.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import cast

import anthropic
from anthropic import Anthropic
from anthropic.types.messages import (
    MessageBatch,
    MessageBatchErroredResult,
    MessageBatchRequestCounts,
    MessageBatchResult,
)
from anthropic.types.messages.batch_create_params import Request as BatchRequest

from unitune.backends.capabilities import BatchStatus
from unitune.backends.kit.errors import ErrorResponse
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.models import Reply, Request
from unitune_providers.anthropic.chat import question, read_answer, refuses_temperature, sampling
from unitune_providers.anthropic.client import NAME, VENDOR, errors, new_sync_client
from unitune_providers.unreadable import readable

REQUESTS_MOST = 100_000
BYTES_MOST = 256_000_000
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
PAGE_SIZE = 100
MARGIN_SECONDS = 60.0
"""By how much Anthropic's clock may have gone on otherwise than ours since a batch was announced;
how far they are apart is read from its answers."""
BAD_REQUEST, CONFLICT = 400, 409
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


def submit(key: str, model: str, requests: Mapping[str, Request]) -> str:
    """Hand requests in, with one create call that is never repeated, and return the batch's id.

    Whether a model takes a temperature is told by its refusal alone, which a batch would show
    hours later and for every request: so one question of a word is asked before, as `chat` would.
    It costs a few tokens, and finds out a wrong key or model too. Its failure is never of the kind
    that leaves open whether there is a batch.

    Raises:
        Unsupported: A request cannot be asked, or there are too many; nothing was sent.
        BackendError: Anthropic refused, or did not answer before anything was handed in.
        Unreachable: It gave no answer; there may be a batch, which `find` finds.
    """
    del key  # stands in the requests' ids
    rows = [_row(name, model, request) for name, request in requests.items()]
    _check(rows, requests)
    with new_sync_client() as client:
        warm = _takes_temperature(client, model, next(iter(requests.values())))
        for row, request in zip(rows, requests.values(), strict=True):
            cast("dict[str, object]", row["params"]).update(sampling(request, warm=warm) or {})
        with errors("create the batch"), readable(NAME, "create the batch"):
            batch = client.with_options(max_retries=0).messages.batches.create(requests=rows)
    if not getattr(batch, "id", None):
        raise Unreachable("Anthropic answered the create call without the batch's id.")
    return batch.id


def find(key: str, since: float) -> list[str]:
    """Return the batches with this key, or, where there is none, all that may have it.

    Of a batch that has ended the ids of its requests tell the key; of one that goes on nothing
    does. So the batches that were created since the announcement are looked at, and

    - those that have ended with our ids are ours, and the others are not asked about;
    - if there is none, every one that cannot be told is returned. A single one is most likely
      ours, and being wrong bills nothing twice: its answers then have other ids than ours. Where
      there are several, the caller must refuse and name them; once they have ended, it is certain
      which is ours, and looking again tells.

    That none is returned means that there is none, as far as Anthropic's list shows yet.

    Args:
        key: As `submit` was given it.
        since: By our clock; how far Anthropic's is apart from it is read from its answer.
    """
    certain: list[str] = []
    untold: list[str] = []
    with new_sync_client() as client, errors("list batches"):
        for batch in _recent(client, since):
            name = _a_request_of(client, batch)
            if name is None:
                untold.append(batch.id)
            elif name.rpartition("-")[0] == key:
                certain.append(batch.id)
    return certain or untold


def poll(batch_id: str) -> BatchStatus:
    """Return how a batch stands; Anthropic counts requests only once all have ended.

    Raises:
        BackendError: There is no such batch, or Anthropic refused.
        Unreachable: It gave no answer.
    """
    batch = _read(batch_id)
    word = str(batch.processing_status)
    if word != ENDED:
        return BatchStatus("running", word)
    if batch.results_url is None:
        return BatchStatus("failed", word, error=_gone(batch_id))
    counts = cast("MessageBatchRequestCounts | None", batch.request_counts)
    ends = (counts.succeeded, counts.errored, counts.canceled, counts.expired) if counts else ()
    return BatchStatus("ended", word, done=sum(end or 0 for end in ends) if counts else None)


def fetch(batch_id: str) -> dict[str, Reply]:
    """Return the answers of a batch that has ended, by the ids of their requests.

    Raises:
        BackendError: It goes on, or its answers are no longer kept.
        Unreachable: Anthropic gave no answer, or not the whole of it.
    """
    batch = _read(batch_id)
    if batch.processing_status != ENDED:
        raise BackendError(f"Batch {batch_id} is {batch.processing_status}. Wait until it ended.")
    if batch.results_url is None:
        raise BackendError(_gone(batch_id))
    with new_sync_client() as client, errors(f"hand over the answers of {batch_id}"):
        results = client.messages.batches.results(batch_id)
        return {one.custom_id: _reply(one.result) for one in results}


def cancel(batch_id: str) -> None:
    """Ask for the end of a batch; one that has ended is no error.

    Raises:
        BackendError: There is no such batch, or Anthropic refused.
        Unreachable: It gave no answer.
    """
    with new_sync_client() as client:
        try:
            with errors(f"cancel {batch_id}"):
                client.messages.batches.cancel(batch_id)
        except BackendError as error:
            if error.status not in (BAD_REQUEST, CONFLICT) or poll(batch_id).state == "running":
                raise


def _row(name: str, model: str, request: Request) -> BatchRequest:
    if not CUSTOM_ID.fullmatch(name):
        raise Unsupported(
            f"A request's id is {name!r}; Anthropic takes 1 to 64 letters, digits, _ and -."
        )
    try:
        return {"custom_id": name, "params": question(model, request)}
    except (KeyError, ValueError) as problem:
        raise Unsupported(
            f"{model} cannot be asked request {name}: {problem}. Leave that case out, or run "
            "without --batch, where it alone fails."
        ) from problem


def _check(rows: list[BatchRequest], requests: Mapping[str, Request]) -> None:
    temperatures = len(requests) * len(json.dumps({"temperature": 0.123}))
    size = len(json.dumps(rows, ensure_ascii=False).encode()) + temperatures
    if len(rows) > REQUESTS_MOST or size > BYTES_MOST:
        raise Unsupported(
            f"A batch of Anthropic's holds at most {REQUESTS_MOST:,} requests and "
            f"{BYTES_MOST / 1e6:,.0f} MB, and these are {len(rows):,} with {size / 1e6:,.1f} MB. "
            "Take fewer or shorter cases, or run without --batch."
        )


def _takes_temperature(client: Anthropic, model: str, request: Request) -> bool:
    try:
        with errors(f"ask {model}"):
            client.messages.create(
                model=model,
                max_tokens=1,
                messages=[{"role": "user", "content": "Hello"}],
                extra_body=sampling(request, warm=True),
            )
    except BackendError as error:
        cause = error.__cause__
        if isinstance(cause, anthropic.BadRequestError) and refuses_temperature(cause, request):
            return False
        if not error.is_ambiguous:
            raise
        # Of an open outcome, one would look for a batch, and could only find somebody else's.
        words = f"{error} No batch was handed in. Try again."
        raise BackendError(words, request_id=error.request_id) from error
    return True


def _recent(client: Anthropic, since: float) -> Iterator[MessageBatch]:
    """Yield the batches that were created since then, each once, however lists are cut."""
    answer = client.messages.batches.with_raw_response.list(limit=PAGE_SIZE)
    oldest = since + _ahead(answer.headers) - MARGIN_SECONDS
    page, seen = answer.parse(), set[str]()
    while True:
        new = [batch for batch in page.data or () if batch.id and batch.id not in seen]
        recent = [batch for batch in new if _created(batch, oldest) >= oldest]
        yield from recent
        seen.update(batch.id for batch in new)
        if not recent or not page.has_next_page():
            return
        page = page.get_next_page()


def _created(batch: MessageBatch, otherwise: float) -> float:
    """Return when a batch was created; one that does not say may be ours."""
    created = cast("datetime | None", batch.created_at)
    return created.timestamp() if created else otherwise


def _ahead(headers: Mapping[str, str]) -> float:
    """Return by how many seconds Anthropic's clock is ahead of ours."""
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp() - time.time()
    except ValueError:
        return 0.0


def _a_request_of(client: Anthropic, batch: MessageBatch) -> str | None:
    """Return the id of one request of a batch; None where that cannot be told."""
    if batch.processing_status != ENDED or batch.results_url is None:
        return None
    results = client.messages.batches.results(batch.id)
    try:
        return next((one.custom_id for one in results), None)
    finally:
        results.close()


def _read(batch_id: str) -> MessageBatch:
    with new_sync_client() as client, errors(f"read batch {batch_id}"):
        return client.messages.batches.retrieve(batch_id)


def _reply(result: MessageBatchResult) -> Reply:
    if result.type == "succeeded":
        return read_answer(result.message, None)
    if result.type == "errored":
        return Reply(error=_why(result), finish_reason="error")
    kind = str(result.type)
    unknown = f"Anthropic says {kind!r} of it, which is not known here."
    return Reply(error=NOT_REACHED.get(kind, unknown), finish_reason="error")


def _why(result: MessageBatchErroredResult) -> str:
    error = result.error.error
    response = ErrorResponse(STATUS.get(error.type, 0), {}, f"{error.message} [{error.type}]")
    return str(VENDOR.refused("answer", response))


def _gone(batch_id: str) -> str:
    return (
        f"The answers of batch {batch_id} are gone: Anthropic keeps them for 29 days. Ask again in "
        "a new batch, or without --batch."
    )
