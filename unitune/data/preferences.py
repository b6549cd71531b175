"""Preference rows: one question with a better and a worse answer.

Two shapes are read. OpenAI's triple (`input`, `preferred_output`, `non_preferred_output`) is the
canonical one; Hugging Face TRL's columns (`prompt`, `chosen`, `rejected`, texts or lists of
messages) become it, also where `chosen` and `rejected` repeat the prompt. Findings are in the row's
own words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from unitune.data.example import TRIPLE, Message
from unitune.data.mapping import Flat, turns
from unitune.data.validation_errors import explain
from unitune.findings import Finding, clip, error

INPUT_KEYS = ("messages", "tools", "parallel_tool_calls")
"""What stands in `input`; the last is OpenAI's and is kept as a key of the row."""

TRL = ("prompt", "chosen", "rejected")

_IN_TRL = {
    "non_preferred_output": "rejected",
    "preferred_output": "chosen",
    "input.messages": "prompt",
}
_SHAPE = (
    'Write {"input": {"messages": […]}, "preferred_output": [{"role": "assistant", …}], '
    '"non_preferred_output": [{"role": "assistant", …}]}.'
)
_TRL_SHAPE = 'Write {"prompt": …, "chosen": …, "rejected": …}, texts or lists of messages.'
_ONE_ANSWER = (
    'Give it one {"role": "assistant", "content": …}; the turns before belong to the input.'
)


class _Input(BaseModel):
    model_config = ConfigDict(extra="allow")
    messages: tuple[Message, ...]
    tools: tuple[dict[str, JsonValue], ...] | None = None
    parallel_tool_calls: bool | None = None


class _Triple(BaseModel):
    model_config = ConfigDict(extra="allow")
    input: _Input
    preferred_output: tuple[Message, ...]
    non_preferred_output: tuple[Message, ...]


def is_preference(row: Flat) -> bool:
    """Whether a row means to be a preference row, complete or not."""
    if "messages" in row:
        return "non_preferred_output" in row
    given = row.get("input")
    return (
        not row.keys().isdisjoint(("preferred_output", "non_preferred_output"))
        or (not row.keys().isdisjoint(("chosen", "rejected")) and "completion" not in row)
        or (isinstance(given, dict) and "messages" in given)
    )


def triple(row: Flat) -> dict[str, JsonValue] | list[Finding]:
    """Return a preference row as the canonical triple, or what is wrong with it.

    Args:
        row: For which `is_preference` holds.
    """
    if any(key in row for key in TRIPLE):
        return list(_problems(row)) or row
    converted = _from_trl(row)
    if isinstance(converted, Finding):
        return [converted]
    return [_in_trl_words(finding) for finding in _problems(converted)] or converted


def _problems(row: Flat) -> Iterator[Finding]:
    if "messages" in row:
        what = "the row has both `messages` and `non_preferred_output`."
        yield error("mixed-shapes", what, _SHAPE)
        return
    if missing := [key for key in TRIPLE if row.get(key) is None]:
        yield error("missing-output", f"the row has no {missing[0]!r}.", _SHAPE)
        return
    try:
        parsed = _Triple.model_validate(row)
    except ValidationError as failure:
        yield from explain(failure, row)
        return
    for key in cast("dict[str, JsonValue]", row["input"]):
        if key not in INPUT_KEYS:
            yield error(
                "unknown-key",
                f"input has a key {key!r}, which is not known.",
                f"Known there: {', '.join(INPUT_KEYS)}. Keys of your own may stand beside `input`.",
            )
        elif key in row:
            yield error("repeated-key", f"{key!r} stands in input and beside it.", "Keep one.")
    outputs = (parsed.preferred_output, parsed.non_preferred_output)
    wrong = [each for pair in zip(TRIPLE[1:], outputs, strict=True) for each in _wrong(*pair)]
    yield from wrong
    better, worse = (output[0] if output else None for output in outputs)
    if not wrong and better and worse and _content(better) == _content(worse):
        yield error(
            "equal-outputs",
            f"preferred_output and non_preferred_output are equal: {clip(better.text)}.",
            "Nothing can be learnt from it; give the worse answer, or leave the row out.",
        )


def _wrong(key: str, output: tuple[Message, ...]) -> Iterator[Finding]:
    if len(output) != 1:
        yield error("wrong-output", f"{key} has {len(output)} messages.", _ONE_ANSWER)
    elif output[0].role != "assistant":
        yield error("wrong-output", f"{key} is from {output[0].role!r}.", _ONE_ANSWER)
    elif not output[0].text.strip() and not output[0].tool_calls:
        yield error("empty-output", f"{key} is empty.", "Write it, or leave the row out.")


def _content(turn: Message) -> tuple[object, ...]:
    return turn.text, turn.tool_calls or None


def _from_trl(row: Flat) -> Flat | Finding:
    rest = dict(row)
    sides: dict[str, list[JsonValue]] = {}
    for key, role in zip(TRL, ("user", "assistant", "assistant"), strict=True):
        value = rest.pop(key, None)
        if value is None and key != "prompt":
            return error("missing-output", f"the row has no {key!r}.", _TRL_SHAPE)
        converted = [] if value is None else turns(key, value, role)
        if isinstance(converted, Finding):
            return converted
        sides[key] = converted
    prompt = _prompt(**sides)
    if isinstance(prompt, Finding):
        return prompt
    tools = {"tools": rest.pop("tools")} if rest.get("tools") is not None else {}
    return {
        "input": {"messages": prompt, **tools},
        "preferred_output": sides["chosen"][-1:],
        "non_preferred_output": sides["rejected"][-1:],
        **rest,
    }


def _prompt(
    prompt: list[JsonValue], chosen: list[JsonValue], rejected: list[JsonValue]
) -> list[JsonValue] | Finding:
    """Return the turns before the answers; `chosen` and `rejected` may repeat them."""
    before = chosen[:-1]
    if before != rejected[:-1]:
        return error(
            "different-prompts",
            "`chosen` and `rejected` differ before their last message.",
            "A pair is two answers to one question: give both the same turns before the answer.",
        )
    if not (prompt or before):
        return error("missing-key", "the row has no `prompt`.", _TRL_SHAPE)
    if before and prompt and before[-len(prompt) :] != prompt:
        return error(
            "different-prompts",
            "the turns before the answers are not those of `prompt`.",
            "Give the question once, as `prompt`.",
        )
    return before or prompt


def _in_trl_words(finding: Finding) -> Finding:
    message, fix = finding.message, finding.fix.replace(_SHAPE, _TRL_SHAPE)
    for ours, theirs in _IN_TRL.items():
        message = message.replace(ours, theirs)
    return finding.model_copy(update={"message": message, "fix": fix})
