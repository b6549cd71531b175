"""Read the exports of tracing tools as model calls and scores.

Spans are OpenTelemetry's (OTLP JSON) or Phoenix's, observations Langfuse's, runs LangSmith's.
Files may mix them, and scores may be in files of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue

from unitune.data.load import read_records
from unitune.data.records import Record
from unitune.errors import DataError
from unitune.findings import shown
from unitune.importers.traces.messages import (
    Fields,
    Unusable,
    answer_of,
    fields,
    first_text,
    items,
    parsed,
    prompt_of,
    tools_of,
)

Value: TypeAlias = bool | float | str

# Attributes with a call's input and output, by convention: GenAI, OpenInference, OpenLLMetry,
# Langfuse, LangSmith. OpenInference's plain values come last, because its messages have roles.
CONVENTIONS = (
    ("gen_ai.input.messages", "gen_ai.output.messages"),
    ("llm.input_messages", "llm.output_messages"),
    ("gen_ai.prompt", "gen_ai.completion"),
    ("langfuse.observation.input", "langfuse.observation.output"),
    ("langsmith.inputs", "langsmith.outputs"),
    ("input.value", "output.value"),
)
TOOLS = ("gen_ai.tool.definitions", "llm.tools", "llm.request.functions")
CONVERSATIONS = (
    "gen_ai.conversation.id",
    "session.id",
    "langfuse.session.id",
    "traceloop.association.properties.session_id",
)
# Metadata of LangSmith's threads
# (https://docs.langchain.com/langsmith/threads)
THREADS = ("session_id", "thread_id", "conversation_id")
MODELS = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
# Kinds of spans that are one call of a model; agents and chains record messages, too
CALL_KINDS = {"chat", "text_completion", "generate_content", "llm", "generation", "completion"}
KINDS = (
    "gen_ai.operation.name",
    "openinference.span.kind",
    "langfuse.observation.type",
    "llm.request.type",
)
EVALUATION = "gen_ai.evaluation.result"  # an event


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model and its answer.

    Args:
        call_id: Id of the span, observation or run.
        conversation: Id of the session or thread, or the trace's.
        above: Ids of the spans that contain it, the trace's and the conversation's last.
        start: Start, as recorded; comparable within one export.
        prompt: Messages sent, in OpenAI's form.
        answer: The assistant message.
        tools: Tool definitions, in OpenAI's form.
        model: Name of the model, if recorded.
    """

    call_id: str
    conversation: str
    above: tuple[str, ...]
    start: str
    prompt: Sequence[Fields]
    answer: Fields
    tools: Sequence[JsonValue]
    model: str


@dataclass(frozen=True, slots=True)
class Score:
    """One value of a person's or evaluator's feedback about a span, trace or conversation."""

    name: str
    value: Value
    about: str


@dataclass(slots=True)
class Exports:
    """All that files of traces hold, and the calls that cannot be used, by reason."""

    calls: list[Call] = field(default_factory=list[Call])
    scores: list[Score] = field(default_factory=list[Score])
    unusable: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True, slots=True)
class _Span:
    span: str
    trace: str
    parent: str
    start: str
    failed: bool
    attributes: Fields

    def first(self, names: Iterable[str]) -> str:
        return next((str(value) for name in names if (value := self.attributes.get(name))), "")


def read_traces(files: Sequence[Path]) -> Exports:
    """Read exports of tracing tools.

    Raises:
        DataError: A file cannot be read, or none holds a call of a model.
    """
    found, spans = Exports(), dict[str, _Span]()
    for part in (part for file in files for record in _records(file) for part in _parts(record)):
        found.scores += _scores(part)
        if (span := _span(part)) is None:
            continue
        if span.span:
            spans[span.span] = span
        else:
            found.unusable["without an id"] += 1
    for span in spans.values():
        try:
            call = _call(span, spans)
        except Unusable as reason:
            found.unusable[str(reason)] += 1
        else:
            if call is not None:
                found.calls.append(call)
    if not found.calls:
        why = "; ".join(f"{times} times, {why}" for why, times in found.unusable.items())
        raise DataError(
            f"{', '.join(map(str, files))}: no call of a model with its messages was found"
            f"{f' ({why})' if why else ''}. Export OTLP JSON with "
            "gen_ai.input.messages and gen_ai.output.messages, spans from Phoenix, observations "
            "from Langfuse or runs from LangSmith, with inputs and outputs."
        )
    found.calls.sort(key=lambda call: call.start)
    return found


def _records(file: Path) -> Iterator[Fields]:
    for each in read_records(file):
        if isinstance(each, Record):
            yield each.value
        elif each.severity == "error":
            raise DataError("\n".join(shown([each])), (each,))


def _parts(record: Fields) -> Iterator[Fields]:
    """Yield the spans, observations, runs and scores that a record holds."""
    if "resourceSpans" in record:
        for resource in items(record["resourceSpans"]):
            for scope in items(fields(resource).get("scopeSpans")):
                yield from map(fields, items(fields(scope).get("spans")))
        return
    yield record
    own: Fields = {key: record[key] for key in ("sessionId", "session_id") if key in record}
    own["traceId"] = record.get("id")
    for key in ("data", "observations", "scores", "traces", "runs"):
        for part in map(fields, items(record.get(key))):
            yield from _parts({**own, **part} if key in ("observations", "scores") else part)


def _span(part: Fields) -> _Span | None:
    """Return a span, observation or run; None for anything else."""
    if "run_type" in part:
        return _run(part)
    context = fields(part.get("context"))
    if "trace_id" in context or "context.trace_id" in part:
        flat: Fields = {
            name.removeprefix("attributes."): value
            for name, value in part.items()
            if name.startswith("attributes.") and value is not None
        }
        attributes = flat or fields(part.get("attributes"))
        span = context.get("span_id") or part.get("context.span_id")
        trace = context.get("trace_id") or part.get("context.trace_id")
        failed = part.get("status_code") == "ERROR"
        parent, start = part.get("parent_id"), part.get("start_time")
        return _Span(_text(span), _text(trace), _text(parent), _text(start), failed, attributes)
    span, trace = first_text(part, "spanId", "span_id"), first_text(part, "traceId", "trace_id")
    if span and isinstance(part.get("attributes"), list):
        return _Span(
            span=span,
            trace=trace,
            parent=first_text(part, "parentSpanId", "parent_span_id"),
            start=first_text(part, "startTimeUnixNano", "start_time_unix_nano"),
            failed=fields(part.get("status")).get("code") in (2, "STATUS_CODE_ERROR"),
            attributes=_attributes(part["attributes"]),
        )
    if trace and "type" in part and first_text(part, "startTime", "start_time"):
        return _observation(part, trace)
    return None


def _observation(part: Fields, trace: str) -> _Span:
    """Return one of Langfuse's observations.

    Keys are those of its API (``traceId``) or of its export (``trace_id``):
    https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
    """
    attributes: Fields = {
        "langfuse.observation.type": str(part["type"]).lower(),
        "langfuse.observation.input": part.get("input"),
        "langfuse.observation.output": part.get("output"),
        "session.id": first_text(part, "sessionId", "session_id"),
        "llm.model_name": first_text(part, "model", "provided_model_name"),
    }
    return _Span(
        span=_text(part.get("id")),
        trace=trace,
        parent=first_text(part, "parentObservationId", "parent_observation_id"),
        start=first_text(part, "startTime", "start_time"),
        failed=part.get("level") == "ERROR",
        attributes=attributes,
    )


def _run(part: Fields) -> _Span:
    """Return one of LangSmith's runs (https://docs.langchain.com/langsmith/run-data-format)."""
    metadata = fields(fields(part.get("extra")).get("metadata"))
    attributes: Fields = {
        "gen_ai.operation.name": part["run_type"],
        "langsmith.inputs": parsed(part.get("inputs")),
        "langsmith.outputs": parsed(part.get("outputs")),
        "session.id": next((metadata[key] for key in THREADS if metadata.get(key)), None),
        "llm.model_name": metadata.get("ls_model_name"),
    }
    ids = (_text(part.get(key)) for key in ("id", "trace_id", "parent_run_id", "start_time"))
    return _Span(*ids, failed=bool(part.get("error")), attributes=attributes)


def _call(span: _Span, spans: Mapping[str, _Span]) -> Call | None:
    kind = span.first(KINDS).lower()
    if kind and kind not in CALL_KINDS:
        return None
    tree = _nested(span.attributes)
    for asked, answered in CONVENTIONS:
        if (given := _at(tree, asked)) in (None, "", []):
            continue
        if asked == "input.value" and not kind:
            return None
        if span.failed:
            raise Unusable("the call failed")
        answer = answer_of(_listed(_at(tree, answered)))
        if answer is None:
            raise Unusable("the call has no answer")
        system = _listed(_at(tree, "gen_ai.system_instructions"))
        prompt = [
            *(prompt_of([{"role": "system", "parts": parsed(system)}]) if system else ()),
            *prompt_of(_listed(given)),
        ]
        recorded = next((tools for name in TOOLS if (tools := _at(tree, name))), None)
        recorded = recorded or fields(parsed(given)).get("tools")
        above = _above(span, spans)
        named = (spans[each].first(CONVERSATIONS) for each in (span.span, *above) if each in spans)
        conversation = next((name for name in named if name), span.trace)
        return Call(
            call_id=span.span,
            conversation=conversation,
            above=(*above, span.trace, conversation),
            start=span.start,
            prompt=prompt,
            answer=answer,
            tools=tools_of(_listed(recorded)),
            model=span.first(MODELS),
        )
    return None


def _above(span: _Span, spans: Mapping[str, _Span]) -> tuple[str, ...]:
    above = dict[str, None]()
    while span.parent and span.parent not in above:
        above[span.parent] = None
        if span.parent not in spans:
            break
        span = spans[span.parent]
    return tuple(above)


def _scores(part: Fields) -> Iterator[Score]:
    """Yield the feedback that a span, observation, run or score holds."""
    span = _text(part.get("id")) or first_text(part, "spanId", "span_id")
    for name, given in fields(part.get("feedback_stats")).items():  # LangSmith
        if isinstance(average := fields(given).get("avg"), int | float):
            yield Score(name, average, span)
    for event in map(fields, items(part.get("events"))):
        if event.get("name") == EVALUATION:
            told = _attributes(event.get("attributes"))
            name, value = told.get("gen_ai.evaluation.name"), told.get("gen_ai.evaluation.score")
            value = told.get("gen_ai.evaluation.score.value", value)
            yield from _score(name, value, told.get("gen_ai.evaluation.score.label"), span)
    result = fields(part.get("result"))
    annotation = part.get("annotation_name") or (part.get("name") if result else None)
    if annotation:  # Phoenix
        value = result.get("score", part.get("result.score"))
        label = result.get("label", part.get("result.label"))
        about = first_text(part, "span_id", "context.span_id") or _text(part.get("index"))
        yield from _score(annotation, value, label, about)
    elif "key" in part and "run_id" in part:  # LangSmith
        about = _text(part.get("run_id")) or _text(part.get("trace_id"))
        yield from _score(part["key"], part.get("score"), part.get("value"), about)
    elif "name" in part and "value" in part:  # Langfuse
        places = ("observationId", "observation_id", "traceId", "trace_id", "sessionId")
        about = next((_text(part[key]) for key in places if part.get(key)), "")
        label = first_text(part, "stringValue", "string_value")
        yield from _score(part["name"], part["value"], label, about)


def _score(name: JsonValue, value: JsonValue, label: JsonValue, about: str) -> Iterator[Score]:
    known = next((each for each in (value, label) if each is not None and each != ""), None)
    if name and about and isinstance(known, bool | int | float | str):
        yield Score(str(name), known, about)


def _attributes(pairs: JsonValue) -> Fields:
    """Return OTLP's list of keys and values as an object."""
    if isinstance(pairs, dict):
        return pairs
    return {
        str(fields(pair).get("key")): _any_value(fields(fields(pair).get("value")))
        for pair in items(pairs)
    }


def _any_value(value: Fields) -> JsonValue:
    """Return OTLP's AnyValue; Phoenix writes its keys in snake case, most of them null."""
    key, given = next(((k, v) for k, v in value.items() if v is not None), ("", None))
    match key.replace("_", "").lower():
        case "arrayvalue":
            return [_any_value(fields(each)) for each in items(fields(given).get("values"))]
        case "kvlistvalue":
            return _attributes(fields(given).get("values"))
        case "intvalue":
            return int(str(given)) if str(given).lstrip("-").isdecimal() else given
        case _:
            return given


def _nested(value: JsonValue) -> JsonValue:
    """Return objects whose dotted keys (``llm.input_messages.0``) are levels of their own."""
    if isinstance(value, list):
        return [_nested(each) for each in value]
    if not isinstance(value, dict):
        return value
    tree: Fields = {}
    for key, each in value.items():
        *path, last = key.split(".")
        level = tree
        for name in path:
            inner = level.setdefault(name, {})
            if not isinstance(inner, dict):
                inner = level[name] = {}
            level = inner
        level[last] = _nested(each)
    return tree


def _at(tree: JsonValue, path: str) -> JsonValue:
    for name in path.split("."):
        tree = fields(tree).get(name)
    return tree


def _listed(value: JsonValue) -> JsonValue:
    """Return a value with lists in place of objects with the keys 0, 1, 2, …."""
    if isinstance(value, list):
        return [_listed(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value and set(value) == {str(at) for at, _ in zip(count(), value, strict=False)}:
        return [_listed(value[str(at)]) for at in range(len(value))]
    return {key: _listed(each) for key, each in value.items()}


def _text(value: JsonValue) -> str:
    return "" if value is None else str(value)
