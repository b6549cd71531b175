"""A launch, its requests and an evaluation as OpenTelemetry's SDK receives them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra `otel`")

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from support.warm import warm_run
from vendors.serving import ServedVendor, serve_vendor

from unitune.backends import registry
from unitune.evaluate.compare import compare
from unitune.job.contenders import Recorded
from unitune.job.evaluate import Evaluate
from unitune.job.job import Data, Job
from unitune.observability import traces
from unitune.run.run import launch
from unitune.testing.contract_base import ROWS, reply_once
from unitune.testing.loopback import Fault, VendorRequest, VendorResponse, serve


@dataclass
class Received:
    """What the in-memory exporters have received."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    events: InMemoryLogRecordExporter = field(default_factory=InMemoryLogRecordExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    @property
    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        found = [] if data is None else data.resource_metrics
        scopes = [scope for each in found for scope in each.scope_metrics]
        return {each.name: list(each.data.data_points) for s in scopes for each in s.metrics}


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Received:
    made = Received()
    tracer, logger = TracerProvider(), LoggerProvider()
    tracer.add_span_processor(SimpleSpanProcessor(made.exporter))
    logger.add_log_record_processor(SimpleLogRecordProcessor(made.events))
    meter = MeterProvider([made.reader])
    # OpenTelemetry sets a provider once per process.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracer)
    monkeypatch.setattr(_logs, "get_logger_provider", lambda: logger)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meter)
    return made


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ServedVendor]:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-30")
    with serve_vendor("openai") as served:
        yield served


def job(folder: Path, vendor: ServedVendor, name: str = "first") -> Job:
    (folder / "train.jsonl").write_text("".join(ROWS) * 20)
    data, model = Data(train="train.jsonl"), vendor.setup.model
    return Job(name=name, model=model, backend="openai", data=data, folder=folder)


def test_a_launch_with_a_retry_is_one_trace(
    received: Received, vendor: ServedVendor, tmp_path: Path
) -> None:
    vendor.server.inject_fault(Fault.RATE_LIMITED, "POST", vendor.setup.create)
    run = launch(job(tmp_path, vendor)).wait(0.01)
    (whole,) = received.named("unitune.run")
    first, second = received.named("unitune.submit")
    assert {"BackendError", None} == {
        (each.attributes or {}).get("error.type") for each in (first, second)
    }
    created = [
        span.attributes
        for span in received.named("POST")
        if str((span.attributes or {})["url.full"]).endswith("/fine_tuning/jobs")
    ]
    assert [(each or {})["http.response.status_code"] for each in created] == [429, 200]
    assert [(each or {}).get("error.type") for each in created] == ["429", None]
    submits = {span.context and span.context.span_id for span in (first, second)}
    assert submits <= {span.parent and span.parent.span_id for span in received.named("POST")}
    trace_id = int.from_bytes(sha256(run.id.encode()).digest()[:16])
    of_run = [span for span in received.spans if (span.attributes or {}).get("unitune.run.id")]
    assert {trace_id} == {span.context and span.context.trace_id for span in of_run}
    attributes = whole.attributes or {}
    assert attributes["unitune.run.id"] == run.id
    assert attributes["unitune.run.state"] == "succeeded"
    assert attributes["gen_ai.request.model"] == vendor.setup.model
    assert whole.start_time == pytest.approx(run.created.timestamp() * 1e9, abs=1e6)
    assert received.metrics["unitune.client.retries"][0].value == 1
    assert received.metrics["unitune.train.loss"][0].attributes["unitune.run.id"] == run.id


def test_spans_of_an_application_stay_in_its_trace(
    received: Received, vendor: ServedVendor, tmp_path: Path
) -> None:
    with trace.get_tracer_provider().get_tracer("application").start_as_current_span("nightly"):
        launch(job(tmp_path, vendor)).wait(0.01)
    (outer,) = received.named("nightly")
    assert {outer.context and outer.context.trace_id} == {
        span.context and span.context.trace_id for span in received.spans
    }


def test_a_request_has_the_names_of_the_conventions(
    received: Received, vendor: ServedVendor
) -> None:
    assert vendor.setup.model
    reply = reply_once(registry.backend("openai").chat(vendor.setup.model))
    (span,) = received.named(f"chat {vendor.setup.model}")
    attributes = dict(span.attributes or {})
    assert attributes[gen_ai_attributes.GEN_AI_OPERATION_NAME] == "chat"
    assert attributes[gen_ai_attributes.GEN_AI_PROVIDER_NAME] == "openai"
    assert attributes[gen_ai_attributes.GEN_AI_REQUEST_MODEL] == vendor.setup.model
    assert attributes[gen_ai_attributes.GEN_AI_USAGE_INPUT_TOKENS] == reply.prompt_tokens
    assert attributes[gen_ai_attributes.GEN_AI_USAGE_OUTPUT_TOKENS] == reply.completion_tokens
    assert attributes[gen_ai_attributes.GEN_AI_RESPONSE_FINISH_REASONS] == ("stop",)
    assert trace.SpanKind.CLIENT is span.kind
    usage = received.metrics[gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE]
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in usage}
    assert tokens == {"input": reply.prompt_tokens, "output": reply.completion_tokens}
    (duration,) = received.metrics[gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION]
    assert duration.count == 1
    known = set(map(str, vars(gen_ai_attributes).values()))
    assert {name for name in attributes if name.startswith("gen_ai.")} <= known


def test_a_failed_request_is_an_error_without_its_words(
    received: Received, vendor: ServedVendor
) -> None:
    vendor.server.inject_fault(Fault.EXPIRED_KEY, "POST", "chat", times=9)
    assert reply_once(registry.backend("openai").chat(str(vendor.setup.model))).error
    (span,) = received.named(f"chat {vendor.setup.model}")
    assert (span.attributes or {})["error.type"] == "401"
    assert trace.StatusCode.ERROR is span.status.status_code
    assert (span.status.description, span.events) == (None, ())


def test_an_evaluation_is_one_event_per_case_and_contender(
    received: Received, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="unitune")
    rows = [f'{{"id": "c{n}", "prompt": "{n}?", "completion": "{n}"}}' for n in range(6)]
    (tmp_path / "test.jsonl").write_text("\n".join(rows))
    for name, right in (("old", 3), ("new", 6)):
        answers = (f'{{"case": "c{n}", "answer": "{n if n < right else "no"}"}}' for n in range(6))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(answers))
    contenders = (
        Recorded(name="old", answers="old.jsonl"),
        Recorded(name="new", answers="new.jsonl", role="candidate"),
    )
    made = Job(
        name="scores",
        model="gpt-4.1-mini-2025-04-14",
        backend="openai",
        data=Data(test="test.jsonl"),
        evaluate=Evaluate.model_validate(
            {"scorers": ["exact"], "contenders": [each.model_dump() for each in contenders]}
        ),
        folder=tmp_path,
    )
    comparison = compare(made)
    records = [each.log_record for each in received.events.get_finished_logs()]
    assert {record.event_name for record in records} == {"gen_ai.evaluation.result"}
    scores = {
        (values["unitune.case.id"], values["unitune.contender"]): values[
            gen_ai_attributes.GEN_AI_EVALUATION_SCORE_VALUE
        ]
        for values in (dict(record.attributes or {}) for record in records)
    }
    expected = {
        (case.id, name): answer.scores["exact"]
        for case in comparison.cases
        for name, answer in case.answers.items()
    }
    assert len(records) == 12
    assert "new: 0 answers are recorded, 0 are cached, 6 are requested" in caplog.messages
    assert scores == expected


def test_nothing_is_imported_or_reported_without_a_provider() -> None:
    code = """
import sys
import unitune.main
from unitune.observability import traces
from unitune.observability.logs import print_logs
traces.export_traces()
with traces.span("unitune.submit", {}) as add, traces.run_context("r1", "openai"):
    add({"a": 1})
    traces.report_figures({"train.loss": 1.0})
    traces.report_evaluations([{"a": 1}])
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
import opentelemetry.trace, opentelemetry.metrics, opentelemetry._logs
with traces.span("unitune.submit", {}) as add:
    assert not opentelemetry.trace.get_current_span().get_span_context().is_valid
traces.report_figures({"train.loss": 1.0})
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@dataclass
class Collector:
    """A collector of OpenTelemetry."""

    received: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])

    def answer(self, request: VendorRequest, /) -> VendorResponse:
        self.received.setdefault(request.path, []).append(request.body)
        return VendorResponse(b"")


def test_the_command_line_sends_everything_to_a_collector(
    vendor: ServedVendor, tmp_path: Path, guarded_environment: dict[str, str]
) -> None:
    job(tmp_path, vendor).with_budget(Decimal(5)).save(tmp_path / "unitune.yaml")
    with serve(collector := Collector()) as server:
        done = warm_run(
            [sys.executable, "-m", "unitune", "run", "--quiet"],
            cwd=tmp_path,
            env={**guarded_environment, **os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": server.url},
        )
    assert done.returncode == 0, done.stderr
    spans = b"".join(collector.received["/v1/traces"])
    assert all(name in spans for name in (b"unitune.run", b"unitune.submit", b"POST"))
    assert b"unitune.train.loss" in b"".join(collector.received["/v1/metrics"])
    everything = b"".join(body for bodies in collector.received.values() for body in bodies)
    assert os.environ["OPENAI_API_KEY"].encode() not in everything
    assert b"What is the colour" not in everything


def test_a_collector_without_the_extra_is_named_at_info(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="unitune")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    traces.export_traces()
    assert "extra `otel` is not installed" in caplog.text
    assert "pip install" not in caplog.text  # the index does not have the name yet
