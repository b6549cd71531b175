# type: ignore - the tools are not installed for the tests
# ruff: noqa: PLC0415, N815, RUF001, S108
"""Record the traces in this folder: a small shop's chat, by each tracing tool.

Run it in an environment with the tool: ``python record.py phoenix``. Versions and commands are in
the README one folder up.
"""

import base64
import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
ORDERS = {"A17": "shipped on Monday", "B22": "not yet paid"}
SYSTEM = "You are the shop's assistant."
STATUS = {
    "type": "function",
    "function": {
        "name": "order_status",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
    },
}
ANSWERS = {
    "Do you ship to Norway?": ["Yes, in five days.", "No idea."],  # asked twice
    "And to Iceland?": ["Yes, in nine days."],
    "Do you sell used bicycles?": ["Only new ones."],
    "Can I return worn shoes?": ["No, only unworn ones. – “see § 3”"],
    "Is the blue kettle in stock?": ["Yes, seven are left."],
    "Who repairs a torn tent?": ["Our workshop in Porto does."],
    "May I pay by invoice?": ["Yes, from the second order on."],
    "Which gloves are warmest?": ["The lined winter gloves."],
    "When do you open on Sunday?": ["We are closed on Sundays."],
    "How heavy is the oak desk?": ["It weighs 41 kilograms."],
    "Thanks!": ["You are welcome."],
}
CONVERSATIONS = {
    "c1": ["Do you ship to Norway?", "And to Iceland?"],
    "c2": ["Where is my order A17?", "Thanks!"],
    "c3": ["What about order B22?"],
    "c4": ["Do you ship to Norway?"],  # the same question, answered badly
    **{f"c{at + 5}": [asked] for at, asked in enumerate(list(ANSWERS)[2:-1])},
}
BAD = ("No idea.", "Only new ones.")


class Handler(BaseHTTPRequestHandler):
    """Answer POSTs by a function of path and body; log nothing."""

    answer: Callable[[str, bytes], object]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        reply = json.dumps(self.answer(self.path, body)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


def serve(answer: Callable[[str, bytes], object]) -> str:
    handler = type("Own", (Handler,), {"answer": lambda _, path, body: answer(path, body)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def shop() -> str:
    """Serve the shop's model; return its address."""
    left = {asked: list(answers) for asked, answers in ANSWERS.items()}

    def answer(_: str, body: bytes) -> object:
        last = json.loads(body)["messages"][-1]
        order = next((each for each in ORDERS if each in last["content"]), None)
        message: dict[str, object] = {"role": "assistant", "content": None}
        if last["role"] == "tool":
            message["content"] = f"Your order is {last['content']}."
        elif order is not None:
            call = {"name": "order_status", "arguments": json.dumps({"id": order})}
            message["tool_calls"] = [{"id": f"call_{order}", "type": "function", "function": call}]
        else:
            answers = left[last["content"]]
            message["content"] = answers.pop(0) if len(answers) > 1 else answers[0]
        reason = "stop" if message["content"] else "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": reason}
        usage = {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}
        fields = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1764547200}
        return {**fields, "model": "shop-1", "choices": [choice], "usage": usage}

    return serve(answer) + "/v1"


def talk(
    client: object, turns: list[str], around: Callable[[Callable[[], object]], object]
) -> None:
    """Hold a conversation, each request within `around`."""
    messages: list[dict[str, object]] = [{"role": "system", "content": SYSTEM}]
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        while True:
            ask = lambda: client.chat.completions.create(  # noqa: E731
                model="shop-1", messages=messages, tools=[STATUS], temperature=0.2
            )
            message = around(ask).choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                break
            for call in message.tool_calls:
                order = json.loads(call.function.arguments)["id"]
                result = {"role": "tool", "tool_call_id": call.id, "content": ORDERS[order]}
                messages.append(result)


def is_good(reply: object) -> int:
    return int(reply.choices[0].message.content not in BAD)


def otel() -> None:
    """OpenTelemetry's instrumentation of the OpenAI SDK and its exporter of OTLP JSON files."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
    import openai
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.json.file import FileSpanExporter
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    (HERE / "otel.jsonl").unlink(missing_ok=True)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(str(HERE / "otel.jsonl"))))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument()
    client, tracer = openai.OpenAI(base_url=shop(), api_key="none"), trace.get_tracer("shop")
    for name, turns in CONVERSATIONS.items():

        def around(ask: Callable[[], object], name: str = name) -> object:
            with tracer.start_as_current_span("turn") as span:
                span.set_attribute("gen_ai.conversation.id", name)
                reply = ask()
                rated = {"gen_ai.evaluation.name": "user-feedback"}
                rated["gen_ai.evaluation.score.value"] = float(is_good(reply))
                span.add_event("gen_ai.evaluation.result", rated)
                return reply

        talk(client, turns, around)


def phoenix() -> None:
    """A Phoenix server with OpenInference's instrumentation; spans in every form it exports."""
    import httpx
    import openai
    from openinference.instrumentation import using_session
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from phoenix.client import Client
    from phoenix.otel import register

    base = "http://127.0.0.1:6107"
    os.environ |= {"PHOENIX_WORKING_DIR": "/tmp/phoenix", "PHOENIX_PORT": "6107"}
    os.environ |= {"PHOENIX_GRPC_PORT": "6108", "PHOENIX_HOST": "127.0.0.1"}
    os.environ["PHOENIX_TELEMETRY_ENABLED"] = "false"
    server = subprocess.Popen([sys.executable, "-m", "phoenix.server.main", "serve"])
    while True:
        try:
            httpx.get(base + "/healthz")
            break
        except httpx.TransportError:
            time.sleep(1)
    tracing = register(
        project_name="shop", endpoint=base + "/v1/traces", protocol="http/protobuf", batch=False
    )
    OpenAIInstrumentor().instrument(tracer_provider=tracing)
    client = openai.OpenAI(base_url=shop(), api_key="none")
    for name, turns in CONVERSATIONS.items():
        with using_session(name):
            talk(client, turns, lambda ask: ask())
    time.sleep(3)
    phoenix = Client(base_url=base)
    spans = httpx.get(base + "/v1/projects/shop/spans?limit=100").json()
    for span in spans["data"]:
        answer = span["attributes"].get("llm.output_messages.0.message.content")
        if answer is not None:
            phoenix.spans.add_span_annotation(
                span_id=span["context"]["span_id"],
                annotation_name="user-feedback",
                annotator_kind="HUMAN",
                label="thumbs-down" if answer in BAD else "thumbs-up",
                score=float(answer not in BAD),
            )
    time.sleep(2)
    (HERE / "phoenix-rest.json").write_text(json.dumps(spans))
    otlp = httpx.get(base + "/v1/projects/shop/spans/otlpv1?limit=100").text
    (HERE / "phoenix-otlp.json").write_text(otlp)
    frame = phoenix.spans.get_spans_dataframe(project_identifier="shop")
    frame.to_json(HERE / "phoenix.jsonl", orient="records", lines=True)
    ids = [span["context"]["span_id"] for span in spans["data"]]
    rated = phoenix.spans.get_span_annotations_dataframe(span_ids=ids, project_identifier="shop")
    rated.reset_index().to_json(HERE / "phoenix-ratings.jsonl", orient="records", lines=True)
    server.terminate()


def langfuse() -> None:
    """Langfuse's SDK: the spans and scores that it sends, ids in hex as OTLP JSON has them."""
    sent: list[tuple[str, bytes]] = []
    address = serve(lambda path, body: sent.append((path, body)) or {})
    os.environ |= {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-1"}
    os.environ["LANGFUSE_BASE_URL"] = address
    from google.protobuf.json_format import MessageToDict
    from langfuse import get_client, propagate_attributes
    from langfuse.openai import openai
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    client, tracing = openai.OpenAI(base_url=shop(), api_key="none"), get_client()
    for name, turns in CONVERSATIONS.items():

        def around(ask: Callable[[], object], name: str = name) -> object:
            with (
                tracing.start_as_current_observation(as_type="span", name="turn"),
                propagate_attributes(session_id=name),
            ):
                reply = ask()
                tracing.score_current_trace(name="user-feedback", value=float(is_good(reply)))
                return reply

        talk(client, turns, around)
    tracing.flush()

    def in_hex(value: object, key: str = "") -> object:
        if isinstance(value, dict):
            return {name: in_hex(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [in_hex(each) for each in value]
        is_id = key in ("traceId", "spanId", "parentSpanId")
        return base64.b64decode(value).hex() if is_id else value

    requests = [body for path, body in sent if "otel" in path]
    spans = [MessageToDict(ExportTraceServiceRequest.FromString(body)) for body in requests]
    (HERE / "langfuse.jsonl").write_text("".join(json.dumps(in_hex(each)) + "\n" for each in spans))
    scores = [json.loads(body) for path, body in sent if "scores" in path]
    (HERE / "langfuse-scores.json").write_text(json.dumps(scores[0]))


def langsmith() -> None:
    """LangSmith's SDK: the runs and feedback that it sends."""
    sent: list[tuple[str, bytes]] = []
    limits = {"use_multipart_endpoint": False, "size_limit": 100, "size_limit_bytes": 1 << 24}
    limits |= {"scale_up_nthreads_limit": 1, "scale_up_qsize_trigger": 1000}
    info = {"version": "1", "batch_ingest_config": {**limits, "scale_down_nempty_trigger": 4}}
    address = serve(lambda path, body: sent.append((path, body)) or info)
    os.environ |= {"LANGSMITH_API_KEY": "lsv2_1", "LANGSMITH_ENDPOINT": address}
    os.environ |= {"LANGSMITH_TRACING": "true", "LANGSMITH_PROJECT": "shop"}
    import openai
    from langsmith import Client, traceable
    from langsmith.run_helpers import get_current_run_tree
    from langsmith.wrappers import wrap_openai

    tracing = Client()
    client = wrap_openai(openai.OpenAI(base_url=shop(), api_key="none"))
    for name, turns in CONVERSATIONS.items():

        def around(ask: Callable[[], object], name: str = name) -> object:
            replies: list[object] = []

            @traceable(metadata={"thread_id": name}, client=tracing)
            def turn() -> None:
                replies.append(ask())
                run = get_current_run_tree()
                tracing.create_feedback(
                    run_id=run.id,
                    trace_id=run.trace_id,
                    key="user_score",
                    score=is_good(replies[0]),
                )

            turn()
            return replies[0]

        talk(client, turns, around)
    tracing.flush()
    time.sleep(2)
    batches = [json.loads(body) for path, body in sent if path.endswith("/runs/batch")]
    runs = [run for batch in batches for run in batch["post"]]
    for run in runs:
        run["extra"].pop("runtime")  # names this machine
    (HERE / "langsmith.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    rated = [json.loads(body) for path, body in sent if "feedback" in path]
    lines = "".join(json.dumps(each) + "\n" for each in rated)
    (HERE / "langsmith-feedback.jsonl").write_text(lines)


if __name__ == "__main__":
    {"otel": otel, "phoenix": phoenix, "langfuse": langfuse, "langsmith": langsmith}[sys.argv[1]]()
