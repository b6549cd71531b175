"""Records to examples: the shapes of a row, and what makes a row usable.

A record is chat (`messages`), a pair (`prompt` and `completion`, texts or lists of messages), a
preference (`unitune.data.preferences`), or flat (columns, through the job's mapping). Each becomes
an `Example` or says why not, in findings without a place: the reader knows file and line. Only a
mapped row loses its other keys. What a row must have depends on its use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import JsonValue, ValidationError

from unitune.data.example import Example
from unitune.data.foreign import settled
from unitune.data.mapping import ByUsualNames, Mapping, turns
from unitune.data.preferences import is_preference, triple
from unitune.data.records import Record
from unitune.data.validation_errors import explain
from unitune.errors import nearest
from unitune.findings import Finding, error, warning

Use = Literal["sft", "dpo", "rft", "case", "any"]
"""What a row is for: training by a method, a case to be judged on, or not known."""

_NEED_NO_ANSWER = ("dpo", "rft", "any")
"""A row for dpo that has no answer gets an error of its own."""

_HOW_TO_ANSWER = (
    'End `messages` with {"role": "assistant", "content": …}, or give the answer as `expected`.'
)


def examples(
    record: Record, mapping: Mapping | None, use: Use = "case"
) -> Iterator[Example | Finding]:
    """Yield the example that a record holds, if it is usable, and what there is to say about it.

    Args:
        record: One row of a file.
        mapping: How flat rows become messages; None when the job has none.
        use: sft and case need an answer, dpo a pair of them; rft and any neither.
    """
    content = _content(record, mapping, use)
    if isinstance(content, Finding):
        yield content
        return
    if is_preference(content):
        content = triple(content)
    by_job = mapping and not isinstance(mapping, ByUsualNames) and is_mapped(record, mapping)
    if isinstance(content, dict) and not by_job:
        content = settled(record.value, content)
    if not isinstance(content, dict):
        yield from [content] if isinstance(content, Finding) else content
        return
    try:
        example = Example.model_validate(content)
    except ValidationError as failure:
        yield from explain(failure, content)
        return
    findings = list(_about(example, use))
    yield from findings
    if all(finding.severity != "error" for finding in findings):
        yield example


def is_mapped(record: Record, mapping: Mapping) -> bool:
    """Whether a record goes through the mapping, and not by its own shape."""
    keys = record.value.keys()
    if record.from_table:
        return True
    if is_preference(record.value):
        return not mapping.reads.isdisjoint(keys)
    if "messages" in keys:
        return "messages" in mapping.reads
    return "prompt" not in keys or not mapping.reads.isdisjoint(keys)


def _content(record: Record, mapping: Mapping | None, use: Use) -> dict[str, JsonValue] | Finding:
    row = record.value
    if mapping and is_mapped(record, mapping):
        content = mapping.content(row)
        if isinstance(content, Finding):
            return content
        row = {**content, **({"id": row["id"]} if "id" in row else {})}
    if "messages" in row or is_preference(row):
        return row
    return _pair(row, use) if "prompt" in row else _unknown_shape(row)


def _pair(row: dict[str, JsonValue], use: Use) -> dict[str, JsonValue] | Finding:
    rest = dict(row)
    prompt, completion = rest.pop("prompt"), rest.pop("completion", None)
    if completion is None and rest.get("expected") is None and use not in _NEED_NO_ANSWER:
        return _no_answer(
            "there is a `prompt` but no `completion`.", "Give the row a `completion`."
        )
    question = turns("prompt", prompt, "user")
    answer = [] if completion is None else turns("completion", completion, "assistant")
    if isinstance(question, Finding):
        return question
    if isinstance(answer, Finding):
        return answer
    return {"messages": [*question, *answer], **rest}


def _unknown_shape(row: dict[str, JsonValue]) -> Finding:
    keys = ", ".join(repr(key) for key in list(row)[:8]) or "nothing"
    near = next((key for key in row if nearest(key, ("messages", "prompt"))), None)
    guess = f" Is {near!r} a slip for {nearest(near, ('messages', 'prompt'))!r}?" if near else ""
    return error(
        "unknown-shape",
        f"the row has {keys}, and neither `messages` nor `prompt`.{guess}",
        'Write {"messages": […]}, {"prompt": …, "completion": …} or {"prompt": …, "chosen": …, '
        '"rejected": …}, or say in the job which keys '
        "hold the messages: `data: {columns: {user: QUESTION, assistant: ANSWER}}`.",
    )


def _about(example: Example, use: Use) -> Iterator[Finding]:
    """Yield what is wrong with an example whose shape is right."""
    yield from _about_use(example, use)
    if not example.prompt:
        yield error(
            "missing-question",
            "the row is an answer without a question.",
            "Put a user message before the assistant's.",
        )
    for index, message in enumerate(example.prompt):
        # A tool may well have returned nothing.
        if not message.text.strip() and not message.tool_calls and message.role != "tool":
            severity = error if message.role in ("user", "assistant") else warning
            what = f"messages[{index}], from {message.role!r}, is empty."
            yield severity("empty-message", what, "Write it or leave it out.")
    last = example.messages[-1]
    if example.answer is None:
        if use not in _NEED_NO_ANSWER:
            yield _no_answer(f"the last message is from {last.role!r}, and no answer is given.")
    elif not example.answer.strip() and not (example.expected is None and last.tool_calls):
        yield error("empty-answer", "the answer is empty.", "Give an answer, or leave the row out.")


def _about_use(example: Example, use: Use) -> Iterator[Finding]:
    """Yield why a row does not fit the method that is to learn from it."""
    if use == "dpo" and example.non_preferred_output is None:
        yield error(
            "not-a-preference",
            "the row has one answer, and `method: dpo` learns from a better and a worse one.",
            'Write {"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": '
            '[…]} or {"prompt": …, "chosen": …, "rejected": …}, or set `method: sft`.',
        )
    elif use in ("sft", "rft") and example.non_preferred_output is not None:
        yield error(
            "preference-row",
            f"the row is a preference, and `method: {use}` would not learn from its worse answer.",
            "Set `method: dpo`, or give the row as `messages` with the better answer alone.",
        )


def _no_answer(what: str, fix: str = _HOW_TO_ANSWER) -> Finding:
    return error("missing-answer", what, fix)
