"""Report spans, metrics and evaluation results to OpenTelemetry, if the application set it up.

Only `export_traces` imports OpenTelemetry: an application with a provider has imported it before.
The spans of a run have one trace, whose id is computed from the run's, whichever process acts; an
active span of the application takes precedence. Texts of rows and answers are never reported.

Source: names of the semantic conventions for generative AI,
https://github.com/open-telemetry/semantic-conventions-genai, as in
opentelemetry-semantic-conventions 0.66b2 (2026-12-01). They define nothing for training, so those
names begin with ``unitune.``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from unitune._version import __version__
from unitune.observability.logs import Log, current_fields, log_fields

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


log = Log(__name__)
Value = str | int | float | bool | list[str] | None
Attributes = Mapping[str, Value]
Kind = Literal["CLIENT", "INTERNAL"]


def _provider(signal: str, getter: str) -> Any:
    """Return the application's provider; None for one of the API, which does nothing."""
    name = f"opentelemetry.{signal}"
    api = sys.modules.get(name)
    provider = api and getattr(api, getter)()
    return None if type(provider).__module__.startswith(name) else provider


def _tracer() -> Tracer | None:
    provider = _provider("trace", "get_tracer_provider")
    return provider and provider.get_tracer("unitune", __version__)


@cache
def _instrument(provider: Any, kind: str, name: str, unit: str) -> Any:
    meter = provider.get_meter("unitune", __version__)
    return getattr(meter, f"create_{kind}")(name, unit)


def _measure(kind: str, name: str, value: float, attributes: Attributes, unit: str = "") -> None:
    if (provider := _provider("metrics", "get_meter_provider")) is not None:
        method = {"gauge": "set", "histogram": "record", "counter": "add"}[kind]
        getattr(_instrument(provider, kind, name, unit), method)(value, _known(attributes))


def _known(attributes: Attributes) -> dict[str, Any]:
    common = {
        f"unitune.{name.replace('_', '.')}": value for name, value in current_fields().items()
    }
    return {name: value for name, value in {**common, **attributes}.items() if value is not None}


@contextmanager
def span(
    name: str, attributes: Attributes, kind: Kind = "INTERNAL"
) -> Generator[Callable[[Attributes], None]]:
    """Report a span of the body, and yield a function that adds attributes.

    Only the type of an exception is reported, because its message may quote rows.
    """
    if (tracer := _tracer()) is None:
        yield lambda _: None
        return
    from opentelemetry import trace

    with tracer.start_as_current_span(
        name,
        kind=trace.SpanKind[kind],
        attributes=_known(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        is_failed = False

        def add(more: Attributes) -> None:
            nonlocal is_failed
            current.set_attributes(_known(more))
            if "error.type" in more:
                is_failed = True
                current.set_status(trace.StatusCode.ERROR)

        try:
            yield add
        except BaseException as error:
            if not is_failed:  # a status is more exact
                add({"error.type": type(error).__name__})
            raise


@contextmanager
def run_context(run_id: str, vendor: str) -> Generator[None]:
    """Add a run's id and vendor to records of the body, and put its spans into the run's trace."""
    with log_fields(run_id=run_id, vendor=vendor):
        if _tracer() is None:
            yield
            return
        from opentelemetry import context, trace

        if trace.get_current_span().get_span_context().is_valid:
            yield
            return
        token = context.attach(_trace_of(run_id, trace))
        try:
            yield
        finally:
            context.detach(token)


def _trace_of(run_id: str, api: Any) -> Any:
    digest = sha256(run_id.encode()).digest()
    trace_id, span_id = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
    flags = api.TraceFlags(api.TraceFlags.SAMPLED)
    parent = api.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
    return api.set_span_in_context(api.NonRecordingSpan(parent))


def report_run(created: float, attributes: Attributes, *, failed: bool) -> None:
    """Report the span of a run that has just ended, from its creation until now."""
    if (tracer := _tracer()) is None:
        return
    from opentelemetry import trace

    started = round(created * 1e9)
    ended = tracer.start_span("unitune.run", attributes=_known(attributes), start_time=started)
    if failed:
        ended.set_status(trace.StatusCode.ERROR)
    ended.end()


def report_figures(figures: Mapping[str, float]) -> None:
    """Report figures of a training step as gauges, such as ``unitune.train.loss``."""
    for name, value in figures.items():
        _measure("gauge", f"unitune.{name}", value, {})


def report_usage(seconds: float, tokens: Mapping[str, int | None], attributes: Attributes) -> None:
    """Report the duration of a request to a model, and its tokens by type (input, output)."""
    _measure("histogram", "gen_ai.client.operation.duration", seconds, attributes, "s")
    for kind, count in tokens.items():
        if count is not None:
            typed = {**attributes, "gen_ai.token.type": kind}
            _measure("histogram", "gen_ai.client.token.usage", count, typed, "{token}")


def count_retry() -> None:
    """Count a request that is sent again."""
    _measure("counter", "unitune.client.retries", 1, {}, "{request}")


def report_evaluations(results: Iterable[Attributes]) -> None:
    """Report an event ``gen_ai.evaluation.result`` for each result."""
    if (provider := _provider("_logs", "get_logger_provider")) is None:
        return
    from opentelemetry._logs import LogRecord

    logger = provider.get_logger("unitune", __version__)
    for result in results:
        name, attributes = "gen_ai.evaluation.result", _known(result)
        event = LogRecord(timestamp=time.time_ns(), event_name=name, attributes=attributes)
        logger.emit(event)


COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"


def export_traces() -> None:
    """Send everything to the collector of ``OTEL_EXPORTER_OTLP_ENDPOINT``, if that is set.

    Source: the exporters read their variables themselves:
    https://opentelemetry.io/docs/specs/otel/protocol/exporter/ (2026-12-01).
    """
    if not os.environ.get(COLLECTOR) or os.environ.get("OTEL_SDK_DISABLED") == "true":
        return
    try:
        _export()
    except ImportError:  # the variable may be meant for other programs
        log.info("%s is set, but not used: unitune's extra `otel` is not installed", COLLECTOR)


def _export() -> None:
    """Set the providers, which send the rest when the process ends."""
    from opentelemetry import _logs, metrics, trace
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", "unitune")
    resource = Resource.create()
    tracer, logger = TracerProvider(resource=resource), LoggerProvider(resource=resource)
    tracer.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    logger.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    trace.set_tracer_provider(tracer)
    _logs.set_logger_provider(logger)
    metrics.set_meter_provider(MeterProvider([reader], resource=resource))
