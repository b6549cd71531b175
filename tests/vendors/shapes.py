"""What each vendor's answers look like, by its own SDK: which fields they may leave out.

Read when a server is to leave fields out (`ServerBehavior.omits`): the SDKs' types are large.
Bedrock's operations, paths and answers all come from the description inside botocore.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NotRequired, Required, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from typing_extensions import is_typeddict

from unitune.testing.omissions import Schema, Shape

OPENAI_PATH = r"(?:/openai)?/v1"
ANTHROPIC_PATH = "/v1/messages"
GOOGLE_PATH = r"/v1beta1/projects/[^/]+/locations/[^/]+"


@cache
def openai() -> Sequence[Shape]:
    """Answers on OpenAI's wire."""
    from openai import pagination, types  # noqa: PLC0415 - see above
    from openai.types import fine_tuning  # noqa: PLC0415
    from openai.types.chat import ChatCompletion  # noqa: PLC0415
    from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint  # noqa: PLC0415

    page: Any = pagination.SyncCursorPage
    job = fine_tuning.FineTuningJob
    jobs = "/fine_tuning/jobs"
    paths: Sequence[tuple[str, str, Any]] = (
        ("GET", jobs, page[job]),
        ("GET", f"{jobs}/[^/]+", job),
        ("GET", f"{jobs}/[^/]+/events", page[fine_tuning.FineTuningJobEvent]),
        ("GET", f"{jobs}/[^/]+/checkpoints", page[FineTuningJobCheckpoint]),
        ("GET", "/files", page[types.FileObject]),
        ("GET", "/files/[^/]+", types.FileObject),
        ("POST", "/chat/completions", ChatCompletion),
        ("GET", "/batches", page[types.Batch]),
        ("GET", "/batches/[^/]+", types.Batch),
    )
    return _shapes(paths, OPENAI_PATH)


@cache
def together() -> Sequence[Shape]:
    """Answers of Together."""
    from together import types  # noqa: PLC0415 - see above
    from together.types import fine_tuning_list_response as listed  # noqa: PLC0415
    from together.types.chat import ChatCompletion  # noqa: PLC0415

    jobs = "/fine-tunes"
    paths: Sequence[tuple[str, str, Any]] = (
        ("GET", jobs, listed.FineTuningListResponse),
        ("GET", f"{jobs}/[^/]+", types.FinetuneResponse),
        ("GET", f"{jobs}/[^/]+/events", types.FineTuningListEventsResponse),
        ("GET", f"{jobs}/[^/]+/metrics", types.FineTuningListMetricsResponse),
        ("GET", f"{jobs}/[^/]+/checkpoints", types.FineTuningListCheckpointsResponse),
        ("GET", "/files", types.FileList),
        ("GET", "/files/[^/]+", types.FileResponse),
        ("POST", "/chat/completions", ChatCompletion),
    )
    return _shapes(paths, "/v1")


@cache
def fireworks() -> Sequence[Shape]:
    """Answers of Fireworks."""
    from fireworks import types  # noqa: PLC0415 - see above
    from fireworks.pagination import SyncCursorLora  # noqa: PLC0415
    from fireworks.types.chat import CompletionCreateResponse  # noqa: PLC0415
    from fireworks.types.shared import DeployedModel  # noqa: PLC0415

    account = "/v1/accounts/[^/]+"
    paths: Sequence[tuple[str, str, Any]] = (
        ("GET", f"{account}/datasets/[^/:]+", types.Dataset),
        ("GET", f"{account}/supervisedFineTuningJobs/[^/:]+", types.SupervisedFineTuningJob),
        ("GET", f"{account}/dpoJobs/[^/:]+", types.DpoJob),
        (
            "GET",
            f"{account}/reinforcementFineTuningJobs/[^/:]+",
            types.ReinforcementFineTuningJob,
        ),
        ("GET", f"{account}/deployments/[^/:]+", types.Deployment),
        ("GET", f"{account}/deployedModels", SyncCursorLora[DeployedModel]),
        ("POST", "/inference/v1/chat/completions", CompletionCreateResponse),
    )
    return _shapes(paths, "")


@cache
def fireworks_request(kind: str) -> type[BaseModel]:
    """Return what the body of a call may hold at Fireworks, by the types of its SDK."""
    module: Any = import_module(f"fireworks.types.{kind}_params")
    return _wire_model(getattr(module, module.__all__[0]))


def _wire_model(kind: Any) -> type[BaseModel]:
    """Return a typed dictionary of an SDK as a model with the names of the wire."""
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        alias, needed = name, False
        while get_origin(hint) in (Annotated, Required, NotRequired):
            needed |= get_origin(hint) is Required
            for note in getattr(hint, "__metadata__", ()):
                alias = getattr(note, "alias", None) or alias
            hint = get_args(hint)[0]  # noqa: PLW2901 - what it annotates
        hint = _wire_model(hint) if is_typeddict(hint) else hint  # noqa: PLW2901
        fields[name] = (hint, Field(alias=alias)) if needed else (hint, Field(None, alias=alias))
    return create_model(kind.__name__, __config__=ConfigDict(extra="forbid"), **fields)


@cache
def vertex() -> Sequence[Shape]:
    """Answers of Vertex AI, of which Google's JSON leaves out every field without a value."""
    from google.genai import types  # noqa: PLC0415 - see above

    jobs, batches = "/tuningJobs", "/batchPredictionJobs"
    paths: Sequence[tuple[str, str, Any]] = (
        ("GET", jobs, types.ListTuningJobsResponse),
        ("GET", f"{jobs}/[^/:]+", types.TuningJob),
        ("GET", batches, types.ListBatchJobsResponse),
        ("GET", f"{batches}/[^/:]+", types.BatchJob),
        ("POST", "/(?:endpoints|publishers)/[^:]+:generateContent", types.GenerateContentResponse),
        ("POST", "/(?:endpoints|publishers)/[^:]+:countTokens", types.CountTokensResponse),
    )
    return _shapes(paths, GOOGLE_PATH)


@cache
def anthropic() -> Sequence[Shape]:
    """Answers of Anthropic."""
    from anthropic import pagination, types  # noqa: PLC0415 - see above
    from anthropic.types.messages import MessageBatch  # noqa: PLC0415

    paths: Sequence[tuple[str, str, Any]] = (
        ("POST", "", types.Message),
        ("POST", "/count_tokens", types.MessageTokensCount),
        ("POST", "/batches", MessageBatch),
        ("GET", "/batches", pagination.SyncPage[MessageBatch]),
        ("GET", "/batches/[^/]+", MessageBatch),
        ("POST", "/batches/[^/]+/cancel", MessageBatch),
    )
    return _shapes(paths, ANTHROPIC_PATH)


@cache
def bedrock() -> Sequence[Shape]:
    """Answers of Bedrock, as botocore describes them."""
    from botocore.session import Session  # noqa: PLC0415 - see above

    shapes: list[Shape] = []
    for service in ("bedrock", "bedrock-runtime"):
        model: Any = Session().get_service_model(service)
        for name in model.operation_names:
            operation: Any = model.operation_model(name)
            if operation.output_shape is not None:
                path = re.sub(r"\{[^}]+\}", "(.+)", operation.http["requestUri"].partition("?")[0])
                schema = _described(operation.output_shape, ())
                shapes.append(Shape(operation.http["method"], path, schema))
    return sorted(shapes, key=lambda shape: -len(shape.path))


def _shapes(paths: Sequence[tuple[str, str, Any]], prefix: str) -> Sequence[Shape]:
    return [Shape(method, prefix + path, schema_of(kind)) for method, path, kind in paths]


def _described(shape: Any, around: Sequence[str]) -> Schema:
    """Return a shape of botocore as a schema; one that holds itself is described once."""
    if shape.name in around:
        return {}
    around = (*around, shape.name)
    match shape.type_name:
        case "structure":
            parts = {name: _described(part, around) for name, part in shape.members.items()}
            return {"properties": parts, "required": shape.required_members}
        case "list":
            return {"items": _described(shape.member, around)}
        case "map":
            return {"additionalProperties": _described(shape.value, around)}
        case _:
            return {}


@cache
def schema_of(kind: Any) -> Schema:
    """Return the schema of a type that pydantic describes, such as those of an SDK."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return adapter.json_schema(schema_generator=_Lenient, mode="validation")


class _Lenient(GenerateJsonSchema):
    """Describes what has no JSON form, such as an HTTP client among the options, as anything."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        del schema, error_info
        return {}
