"""Turn records into examples and check that a row is usable for its purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from unitune.data.example import Example, explain
from unitune.data.images import BadImage, ImagePart, embedded
from unitune.data.mapping import ByUsualNames, Mapping
from unitune.data.questions import is_blank
from unitune.data.records import BadRow, Flat, Record, bad, json_or_none
from unitune.data.shapes import RESERVED, SHAPES, Shape, check_reserved, read_shape, shape_of
from unitune.findings import Finding, error, warning
from unitune.text import clip

# Purpose of a row: training by a method, a test case, or not known
Use = Literal["sft", "dpo", "kto", "rft", "cpt", "case", "any"]

# Code of the finding about a rated answer that the method ignores
RATED_ROW = "rated-row"
_RATED = "the row rates its answer (`label` or `kto_tag`), but only `kto` learns from ratings."
_USE_RATED = (
    "Set `method: dpo` and `tuning.preference.loss: kto`. For `method: sft`, keep the good "
    "answers without the key. Or write two answers to one prompt as `chosen` and `rejected`."
)
_NOT_RATED = "the row does not rate its answer, but `tuning.preference.loss: kto` needs a rating."
_RATE = 'Write {"prompt": …, "completion": …, "label": true}, or false for a bad answer.'
_NEED_NO_ANSWER = ("dpo", "rft", "any")  # dpo rows without an answer get another error


def examples(
    record: Record,
    mapping: Mapping | None,
    use: Use = "case",
    shape: Shape | None = None,
    folder: Path | None = None,
) -> Iterator[Example | Finding]:
    """Yield the example in a record, if it is usable, and findings about it.

    Rows for sft and case need an answer, for dpo a pair, for kto a rated one, for cpt a text. Local
    images are read from `folder`.
    """
    try:
        example = with_images(_example(record, mapping, use, shape), folder)
    except BadRow as problem:
        yield from problem.findings
        return
    findings = [] if use == "cpt" else list(_about(example, use))
    yield from findings
    if all(finding.severity != "error" for finding in findings):
        yield example


def with_images(example: Example, folder: Path | None) -> Example:
    """Return an example whose local images are embedded.

    Raises:
        BadRow: An image cannot be used, or is not in a user's message; has all findings.
    """
    messages, findings = list(example.messages), list[Finding]()
    for index, turn in enumerate((*messages, *(example.non_preferred_output or ()))):
        if not turn.images:
            continue
        if turn.role != "user":
            what = f"messages[{index}], from {turn.role!r}, has an image, which no vendor accepts."
            findings.append(error("image-role", what, "Move the image to a message from 'user'."))
            continue
        parts = list(turn.content or ())
        for at, part in enumerate(parts):
            if isinstance(part, ImagePart):
                try:
                    parts[at] = replace(part, image_url=embedded(part.image_url, folder))
                except BadImage as problem:
                    what = f"the image in messages[{index}].content[{at}] {problem}."
                    fix = "Replace it, or remove the row."
                    findings.append(error("broken-image", what, fix))
        messages[index] = replace(turn, content=tuple(parts))
    if findings:
        raise BadRow(*findings)
    return example.model_copy(update={"messages": tuple(messages)}) if example.images else example


def is_mapped(record: Record, mapping: Mapping) -> bool:
    """Return whether a record is read through the mapping instead of its own shape."""
    shape = shape_of(record.value)
    if record.from_table or shape is None:
        return True
    keys = ["messages"] if shape is SHAPES["chat"] else record.value
    return not mapping.reads.isdisjoint(keys)


def _example(record: Record, mapping: Mapping | None, use: Use, shape: Shape | None) -> Example:
    row, by_job = record.value, False
    if use == "cpt":
        row = _raw_text(row)
    elif mapping and is_mapped(record, mapping):
        row = mapping.content(row)
        if by_job := not isinstance(mapping, ByUsualNames):
            row |= _own_columns(record.value, mapping, use)
    content = read_shape(row, shape)
    if not by_job:
        content = check_reserved(record.value, content)
    try:
        return Example.model_validate(content)
    except ValidationError as failure:
        raise BadRow(*explain(failure, content)) from None


def _raw_text(row: Flat) -> Flat:
    text = row.get("text")
    if not isinstance(text, str) or "messages" in row:
        keys = ", ".join(map(repr, [*row][:8])) or "nothing"
        what = f"the row has {keys}, but `method: cpt` needs raw text."
        raise bad("no-text", what, 'Write {"text": …}, or set `method: sft` for conversations.')
    if is_blank(text):
        raise bad("empty-message", "the text is empty.", "Fill it in or remove the row.")
    rest = {key: value for key, value in row.items() if key != "text"}
    return {**rest, "messages": [{"role": "user", "content": text}]}


def _own_columns(row: Flat, mapping: Mapping, use: Use) -> Flat:
    """Return the unmapped columns; for rft only the id, because graders' data is uploaded."""
    taken = mapping.reads | RESERVED | Example.model_fields.keys()
    return {
        key: value
        for key, value in row.items()
        if key == "id" or (use != "rft" and key not in taken)
    }


def _about(example: Example, use: Use) -> Iterator[Finding]:
    rated = example.kto_tag is not None
    if rated != (use == "kto"):
        yield (
            error(RATED_ROW, _RATED, _USE_RATED) if rated else error("not-rated", _NOT_RATED, _RATE)
        )
    if use == "dpo" and example.non_preferred_output is None:
        yield error(
            "not-a-preference",
            "the row has one answer, but `method: dpo` needs a better and a worse one.",
            'Write {"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": '
            '[…]} or {"prompt": …, "chosen": …, "rejected": …}, or set `method: sft`.',
        )
    elif use in ("sft", "rft") and example.non_preferred_output is not None:
        yield error(
            "preference-row",
            f"the row is a preference, but `method: {use}` ignores its worse answer.",
            "Set `method: dpo`, or write the row as `messages` with only the better answer.",
        )
    if not example.prompt:
        yield error(
            "missing-question",
            "the row is an answer without a question.",
            "Put a user message before the assistant's.",
        )
    for index, message in enumerate(example.prompt):
        # A tool may return nothing.
        is_empty = is_blank(message.text) and not message.tool_calls and not message.images
        if is_empty and message.role != "tool":
            severity = error if message.role in ("user", "assistant") else warning
            what = f"messages[{index}], from {message.role!r}, is empty."
            yield severity("empty-message", what, "Fill it in or remove it.")
    yield from _animated(example)
    yield from tool_findings(example)
    yield from _control_tokens(example)
    last = example.messages[-1]
    if example.answer is None:
        if use not in _NEED_NO_ANSWER:
            yield error(
                "missing-answer",
                f"the last message is from {last.role!r}, and the row has no answer.",
                'End `messages` with {"role": "assistant", "content": …}, or add the answer as '
                "`completion` next to `prompt`, or as `expected`.",
            )
    elif is_blank(example.answer) and not (example.expected is None and last.tool_calls):
        yield error("empty-answer", "the answer is empty.", "Add an answer, or remove the row.")
    yield from _weightless(example, use)


def _animated(example: Example) -> Iterator[Finding]:
    for at, turn in enumerate(example.messages):
        if any(image.image and image.image.is_animated for image in turn.images):
            what = f"messages[{at}] has an animated image; models see at most its first frame."
            yield warning("animated-image", what, "Save the frame that matters.")


def _control_tokens(example: Example) -> Iterator[Finding]:
    turns = chain(example.messages, example.non_preferred_output or ())
    for at, turn in enumerate(turns):
        if found := CONTROL_TOKEN.search(turn.text):
            what = f"messages[{at}], from {turn.role!r}, has {found[0]!r} in its text. "
            why = (
                "A model would end its answer there or read another turn."
                if turn.role in ("assistant", "system", "developer")
                else "Local training reads it as plain text; other programs may read another turn."
            )
            yield warning("control-token", what + why, "Remove it, unless it is intended.")


def _weightless(example: Example, use: Use) -> Iterator[Finding]:
    weights = [turn.weight for turn in example.messages if turn.role == "assistant"]
    is_trained = use in ("sft", "dpo", "kto")
    if is_trained and (example.weight == 0 or (weights and set(weights) == {0})):
        what = "the weight of the row or of all its answers is 0, so it teaches nothing."
        yield warning("no-weight", what, "Remove the row, or set a weight above 0.")


CONTROL_TOKEN = re.compile(  # chatML's and Llama 3's tokens, DeepSeek's, Gemma's, and Mistral's
    r"<\|[A-Za-z][\w ]{0,30}\|>|<\uff5c[^\uff5c\n]{1,30}\uff5c>|<(?:start|end)_of_turn>|\[/?INST\]"
)
_WRITE = (
    'Write {"id": "1", "type": "function", "function": {"name": …, "arguments": "{…}"}}, the '
    "arguments as an object in a JSON string."
)
_SAME_ID = "Give each call an id and repeat it in its result as `tool_call_id`."


def tool_findings(example: Example) -> Iterator[Finding]:
    """Yield findings about the tool calls of an example."""
    declared = [_function(tool).get("name") for tool in example.tools or ()]
    open_calls, undeclared = set[JsonValue](), False
    for at, message in enumerate(chain(example.messages, example.non_preferred_output or ())):
        if message.role == "tool" and message.tool_call_id not in open_calls:
            what = f"messages[{at}] answers the call {message.tool_call_id!r}, which no earlier "
            yield warning("unknown-call", f"{what}message makes.", _SAME_ID)
        for number, call in enumerate(message.tool_calls or ()):
            place = f"messages[{at}].tool_calls[{number}]"
            function = _function(call)
            name, arguments = function.get("name"), function.get("arguments", "{}")
            open_calls.add(str(call["id"]) if call.get("id") else None)
            if not isinstance(name, str) or not name:
                yield error("broken-call", f"{place} has no function name.", _WRITE)
            elif not isinstance(_parsed(arguments), dict):
                what = f"the arguments of {place}, {name!r}, are not a JSON object: "
                yield error("broken-call", f"{what}{clip(str(arguments))}.", _WRITE)
            elif not call.get("id"):
                yield warning("call-without-id", f"{place}, {name!r}, has no id.", _SAME_ID)
            elif declared and name not in declared:
                yield warning(
                    "undeclared-tool",
                    f"{place} calls {name!r}, which is not one of the row's tools.",
                    "Declare it under `tools` or correct the name, because a model learns to call "
                    "it.",
                )
            elif not declared and not undeclared:
                undeclared = True
                yield warning(
                    "no-tools",
                    f"{place} calls {name!r}, but the row declares no tools.",
                    "Declare the callable functions under `tools`, as requests will.",
                )


def _function(entry: dict[str, JsonValue]) -> dict[str, JsonValue]:
    function = entry.get("function")
    return function if isinstance(function, dict) else {}


def _parsed(arguments: JsonValue) -> JsonValue:
    return json_or_none(arguments or "{}") if isinstance(arguments, str) else arguments
