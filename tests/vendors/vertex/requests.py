"""What Vertex AI on loopback takes, and how its models answer.

Unknown fields are refused, as Google's JSON interfaces do. The rules are those of the types of
google-genai 3.6.1 and of the pages named in ``vertex.yaml``.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Refused

LOCATION = r"projects/[^/]+/locations/[^/]+"
SPECS = {
    "supervisedTuningSpec": "supervised",
    "preferenceOptimizationSpec": "preferenceOptimization",
    "reinforcementTuningSpec": "reinforcement",
}
REWARDS = ("singleRewardConfig", "compositeRewardConfig")
FIELDS = {
    "": {"baseModel", "preTunedModel", "tunedModelDisplayName", "description", "labels", *SPECS},
    "preTunedModel": {"tunedModelName", "checkpointId"},
    "spec": {
        "trainingDatasetUri",
        "validationDatasetUri",
        "hyperParameters",
    },
    "supervisedTuningSpec.hyperParameters": {
        "adapterSize",
        "epochCount",
        "learningRateMultiplier",
    },
    "preferenceOptimizationSpec.hyperParameters": {
        "adapterSize",
        "epochCount",
        "learningRateMultiplier",
        "beta",
    },
    "reinforcementTuningSpec.hyperParameters": {
        "adapterSize",
        "batchSize",
        "epochCount",
        "learningRateMultiplier",
        "maxOutputTokens",
        "samplesPerPrompt",
        "thinkingLevel",
    },
}
ADAPTER_SIZES = {
    f"ADAPTER_SIZE_{word}" for word in ("ONE", "TWO", "FOUR", "EIGHT", "SIXTEEN", "THIRTY_TWO")
}
BATCH_FIELDS = {
    "": {"displayName", "model", "inputConfig", "outputConfig", "labels"},
    "inputConfig": {"instancesFormat", "gcsSource"},
    "outputConfig": {"predictionsFormat", "gcsDestination"},
}
QUESTION_FIELDS = {
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "safetySettings",
    "labels",
}
COUNT_FIELDS = {"contents", "systemInstruction", "tools", "generationConfig"}
LABEL = re.compile(r"[a-z0-9_-]{0,63}")
MOST_LABELS = 64
LONGEST_NAME = 128
"""Of a tuned model; the page on supervised tuning says so."""
HOTTEST = 2.0
TUNABLE = {
    "gemini-2.5-flash",
    "gemini-2.5-flash-lite",
    "gemini-2.5-pro",
    "gemini-3.1-flash-lite",
    "gemini-3.5-flash",
    "gemini-3.5-flash-lite",
}
"""Bases of a tuning job (reference/models/tuning, 2026-11)."""
ANSWERING = re.compile(r"gemini-[\w.-]+")
"""Published models that answer."""
LEAST = {
    "epochCount": 1,
    "learningRateMultiplier": 0,
    "beta": 0,
    "samplesPerPrompt": 1,
    "maxOutputTokens": 1,
    "batchSize": 1,
}
"""Least value of each hyperparameter that is a number; what is the most is not published."""


def missing(resource: str) -> Refused:
    """Return the refusal of something that is not there."""
    return Refused(404, f"{resource} is not found.")


def invalid(message: str) -> Refused:
    """Return the refusal of a request that cannot be right."""
    return Refused(400, message)


def untimely(message: str) -> Refused:
    """Return the refusal of what cannot be done now."""
    return Refused(400, message, code="FAILED_PRECONDITION")


def read_body(request: VendorRequest) -> dict[str, Any]:
    """Return a request's body with names as Google's answers have them.

    Google's JSON interfaces take ``checkpoint_id`` for ``checkpointId`` (ProtoJSON), and
    google-genai 3.6.1 sends both kinds.
    """
    return cast("dict[str, Any]", camel(request.json))


def camel(value: JsonValue) -> JsonValue:
    """Return a value with names as Google's answers have them, but for labels."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub(r"_([a-z])", lambda letter: letter[1].upper(), name): member
        if name == "labels"
        else camel(member)
        for name, member in value.items()
    }


def check_create(body: dict[str, Any]) -> None:
    """Refuse a create call that Vertex AI would refuse."""
    specs = [name for name in SPECS if name in body]
    if len(specs) != 1:
        raise invalid("Exactly one tuning spec must be set.")
    spec = body[specs[0]]
    hyper = f"{specs[0]}.hyperParameters"
    own = REWARDS if specs[0] == "reinforcementTuningSpec" else ("exportLastCheckpointOnly",)
    common = {name: value for name, value in spec.items() if name not in own}
    parts = (("", body), ("spec", common), ("preTunedModel", body.get("preTunedModel", {})))
    for part, given in (*parts, (hyper, spec.get("hyperParameters", {}))):
        if unknown := given.keys() - FIELDS[part]:
            raise invalid(f'Invalid JSON payload received. Unknown name "{min(unknown)}"')
    _check_values(body, spec)
    if own is REWARDS:
        _check_rewards(spec)


def _check_values(body: dict[str, Any], spec: dict[str, Any]) -> None:
    if ("baseModel" in body) == ("preTunedModel" in body):
        raise invalid("Either base_model or pre_tuned_model must be set.")
    base = body.get("baseModel")
    if base is not None and base.removeprefix("publishers/google/models/") not in TUNABLE:
        raise invalid(f"Base model {base} is not supported.")
    if len(body.get("tunedModelDisplayName", "")) > LONGEST_NAME:
        raise invalid(f"The display name must be at most {LONGEST_NAME} characters.")
    for name in ("trainingDatasetUri", "validationDatasetUri"):
        if name in spec and not spec[name].startswith("gs://"):
            raise invalid(f"{name} must be a Cloud Storage path.")
    if "trainingDatasetUri" not in spec:
        raise invalid("trainingDatasetUri is required.")
    _check_hyperparameters(spec.get("hyperParameters", {}))
    _check_labels(body)


def _check_rewards(spec: dict[str, Any]) -> None:
    given = [name for name in REWARDS if name in spec]
    if len(given) != 1:
        raise invalid(
            "Exactly one of single_reward_config and composite_reward_config must be set."
        )
    reward: dict[str, Any] = spec[given[0]]
    weighted: list[dict[str, Any]] = reward.get("weightedRewardConfigs", [{"rewardConfig": reward}])
    singles: list[dict[str, Any]] = [part["rewardConfig"] for part in weighted]
    names = [single.get("rewardName") for single in singles]
    if not all(names) or len(set(names)) < len(names):
        raise invalid("Every reward needs a unique reward_name.")
    if not all(any(key.endswith("Scorer") for key in single) for single in singles):
        raise invalid("A reward needs a scorer.")


def _check_hyperparameters(hyper: dict[str, Any]) -> None:
    size = hyper.get("adapterSize")
    if size is not None and size not in ADAPTER_SIZES:
        raise invalid(f"Adapter size {size} is not supported.")
    for name, least in LEAST.items():
        # Numbers of 64 bits are texts in Google's JSON.
        if name in hyper and float(hyper[name]) < least:
            raise invalid(f"{name} must be at least {least}, and is {hyper[name]}.")


def problem_of(content: bytes, spec_name: str) -> str | None:
    """Return why a file of rows cannot be trained on; None when it can."""
    own = {"preferenceOptimizationSpec": "completions", "reinforcementTuningSpec": "references"}
    key = own.get(spec_name)
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row: object = json.loads(line)
        except ValueError:
            return f"Row {number} of the dataset is not valid JSON."
        keys = cast("dict[str, Any]", row).keys() if isinstance(row, dict) else set[str]()
        if "contents" not in keys or (keys & {*own.values()}) != ({key} if key else set()):
            return f"Row {number} of the dataset has not the format of {SPECS[spec_name]} tuning."
    return None if content else "The dataset is empty."


def check_batch(body: dict[str, Any]) -> None:
    """Refuse a batch job that Vertex AI would refuse."""
    given = {"": body, **{part: body.get(part, {}) for part in ("inputConfig", "outputConfig")}}
    for part, fields in given.items():
        if unknown := fields.keys() - BATCH_FIELDS[part]:
            raise invalid(f'Invalid JSON payload received. Unknown name "{min(unknown)}"')
    for name in ("displayName", "model"):
        if not body.get(name):
            raise invalid(f"Required field {name} is not set.")
    formats = {given["inputConfig"].get("instancesFormat")}
    if formats | {given["outputConfig"].get("predictionsFormat")} != {"jsonl"}:
        raise invalid("The format of a Cloud Storage file must be jsonl.")
    uris = given["inputConfig"].get("gcsSource", {}).get("uris", [])
    prefix = given["outputConfig"].get("gcsDestination", {}).get("outputUriPrefix", "")
    if len(uris) != 1 or not all(uri.startswith("gs://") for uri in (*uris, prefix)):
        raise invalid("Rows and answers must be Cloud Storage paths.")


def _check_labels(body: dict[str, Any]) -> None:
    labels: dict[str, str] = body.get("labels", {})
    if len(labels) > MOST_LABELS:
        raise invalid(f"At most {MOST_LABELS} labels are allowed, and there are {len(labels)}.")
    if not all(LABEL.fullmatch(word) for pair in labels.items() for word in pair):
        raise invalid("Label keys and values are lower-case letters, digits, _ and -, at most 63.")


def question(body: dict[str, Any]) -> str:
    """Return the text of the last turn of a request."""
    if unknown := body.keys() - QUESTION_FIELDS:
        raise invalid(f'Invalid JSON payload received. Unknown name "{min(unknown)}"')
    _check_labels(body)
    _check_generation(body.get("generationConfig", {}))
    turns = cast("list[dict[str, Any]]", body.get("contents") or [])
    if not turns or turns[-1].get("role") == "model":
        raise invalid("Please ensure that the last turn of contents is not of role model.")
    return "".join(part.get("text", "") for part in turns[-1]["parts"])


def _check_generation(config: dict[str, Any]) -> None:
    temperature = config.get("temperature", 0)
    if not 0 <= temperature <= HOTTEST:
        raise invalid(
            f"Unable to submit request because it has a temperature value of {temperature} but the "
            f"supported range is from 0 (inclusive) to {HOTTEST} (inclusive)."
        )
    if config.get("maxOutputTokens", 1) < 1:
        raise invalid("Unable to submit request because maxOutputTokens must be at least 1.")


def check_thinking(body: dict[str, Any], model: str) -> None:
    """Refuse a level of thinking where a model has a budget of it: Gemini 2.5 and before."""
    config = body.get("generationConfig", {}).get("thinkingConfig", {})
    if "thinkingLevel" in config and re.match(r"gemini-[12]\.", model):
        raise invalid("Unable to submit request because thinking_level is not supported.")


def check_count(body: dict[str, Any]) -> None:
    """Refuse a request to count tokens that Vertex AI would refuse."""
    if unknown := body.keys() - COUNT_FIELDS:
        raise invalid(f'Invalid JSON payload received. Unknown name "{min(unknown)}"')
    if not body.get("contents"):
        raise invalid("Unable to submit request because it must have contents.")


def input_tokens(body: dict[str, Any]) -> int:
    """Return a token for each word of a question, tools and system prompt apart."""
    return sum(len(str(part).split()) for turn in body["contents"] for part in turn["parts"])


def answer_with(body: dict[str, Any], text: str) -> JsonValue:
    """Return a model's answer, cut after as many words as it may have tokens."""
    words = text.split()
    limit = int(body.get("generationConfig", {}).get("maxOutputTokens", 8192))
    prompt_tokens, answer_tokens = input_tokens(body), min(limit, len(words))
    content: JsonValue = {"role": "model", "parts": [{"text": " ".join(words[:limit])}]}
    usage: JsonValue = {
        "promptTokenCount": prompt_tokens,
        "candidatesTokenCount": answer_tokens,
        "totalTokenCount": prompt_tokens + answer_tokens,
    }
    finish = "MAX_TOKENS" if len(words) > limit else "STOP"
    return {"candidates": [{"content": content, "finishReason": finish}], "usageMetadata": usage}
