"""Log and trace requests to vendors."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from unitune.backends.kit.errors import request_id_of
from unitune.models import Reply, Request
from unitune.observability.logs import Log, log_fields
from unitune.observability.traces import report_usage, span

ERROR_STATUS = 400
Seen = Callable[[int, Mapping[str, str]], None]
log = Log(__name__)


@contextmanager
def request_span(vendor: str, method: str, url: str) -> Generator[Seen]:
    """Report an HTTP request; call the yielded function with the status and headers.

    Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/, HTTP client (2026-12-01).
    """
    address, started = urlsplit(url), time.monotonic()
    host = address.netloc.rpartition("@")[2]
    place = f"{address.scheme}://{host}{address.path}"  # user and query may be keys
    attributes = {
        "http.request.method": method,
        "server.address": address.hostname,
        "url.full": place,
    }
    with log_fields(vendor=vendor), span(method, attributes, "CLIENT") as add:

        def seen(status: int, headers: Mapping[str, str]) -> None:
            request_id, seconds = request_id_of(headers), time.monotonic() - started
            log.debug(
                "%s %s: HTTP %d after %.2f s", method, place, status, seconds, request_id=request_id
            )
            add({"http.response.status_code": status, "unitune.request.id": request_id})
            if status >= ERROR_STATUS:
                add({"error.type": str(status)})

        yield seen


@contextmanager
def chat_span(
    vendor: str, url: str, model: str, request: Request
) -> Generator[Callable[[Reply], Reply]]:
    """Report a request to a model; pass the reply through the yielded function.

    An unknown server with OpenAI's API is reported as ``openai``, as the conventions demand.
    """
    provider = "openai" if "://" in vendor else vendor
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
    }
    details = {
        "server.address": urlsplit(url).hostname,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": request.temperature,
    }
    started = time.monotonic()
    with (
        log_fields(vendor=vendor),
        span(f"chat {model}", {**attributes, **details}, "CLIENT") as add,
    ):

        def answered(reply: Reply) -> Reply:
            seconds = time.monotonic() - started
            tokens = {"input": reply.prompt_tokens, "output": reply.completion_tokens}
            log.debug(
                "%s answered after %.2f s (%s): %s",
                model,
                seconds,
                reply.finish_reason,
                reply.error or reply.text,
                status=reply.status,
            )
            failure = str(reply.status or "no answer") if reply.error else None
            add({f"gen_ai.usage.{kind}_tokens": count for kind, count in tokens.items()})
            add({"gen_ai.response.finish_reasons": [reply.finish_reason]})
            if failure:
                add({"error.type": failure})
            report_usage(seconds, tokens, {**attributes, "error.type": failure})
            return reply

        yield answered
