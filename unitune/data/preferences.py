"""Read preference rows: OpenAI's triple, and TRL's prompt, chosen and rejected.

Sources: OpenAI's API description, FineTunePreferenceRequestInput; TRL, dataset_formats.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from unitune.data.example import TRIPLE, Message, explain
from unitune.data.records import BadRow, Flat, bad
from unitune.findings import Finding, error
from unitune.text import clip

# Keys of `input`; the last is OpenAI's and is kept as a key of the row
INPUT_KEYS = ("messages", "tools", "parallel_tool_calls")

_IN_TRL = {
    "non_preferred_output": "rejected",
    "preferred_output": "chosen",
    "input.messages": "prompt",
}
_TRIPLE_SHAPE = (
    'Write {"input": {"messages": […]}, "preferred_output": [{"role": "assistant", …}], '
    '"non_preferred_output": [{"role": "assistant", …}]}.'
)
_TRL_SHAPE = 'Write {"prompt": …, "chosen": …, "rejected": …}, each a string or a list of messages.'
_ONE_ANSWER = 'Give it one {"role": "assistant", "content": …}; earlier turns belong to the input.'


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


def fits_preference(row: Flat) -> bool:
    """Return whether a row looks like OpenAI's triple."""
    if "messages" in row:
        return "non_preferred_output" in row
    given = row.get("input")
    return not row.keys().isdisjoint(TRIPLE[1:]) or (
        isinstance(given, dict) and "messages" in given
    )


def preference(row: Flat) -> Flat:
    """Return OpenAI's triple; raises `BadRow` unless it has two single assistant messages."""
    if problems := list(_triple_problems(row)):
        raise BadRow(*problems)
    return row


def _triple_problems(row: Flat) -> Iterator[Finding]:
    if "messages" in row:
        what = "the row has both `messages` and `non_preferred_output`."
        yield error("mixed-shapes", what, _TRIPLE_SHAPE)
        return
    if missing := [key for key in TRIPLE if row.get(key) is None]:
        yield error("missing-output", f"the row has no {missing[0]!r}.", _TRIPLE_SHAPE)
        return
    try:
        parsed = _Triple.model_validate(row)
    except ValidationError as failure:
        yield from explain(failure, row)
        return
    for key in cast("Flat", row["input"]):
        if key not in INPUT_KEYS:
            yield error(
                "unknown-key",
                f"`input` has an unknown key {key!r}.",
                f"Allowed keys: {', '.join(INPUT_KEYS)}. Put custom keys next to `input`.",
            )
        elif key in row:
            yield error(
                "repeated-key", f"{key!r} is both in `input` and next to it.", "Keep only one."
            )
    outputs = (parsed.preferred_output, parsed.non_preferred_output)
    wrong = [each for pair in zip(TRIPLE[1:], outputs, strict=True) for each in _wrong(*pair)]
    yield from wrong
    better, worse = ([(turn.text, turn.tool_calls or None) for turn in turns] for turns in outputs)
    if not wrong and better == worse:
        yield error(
            "equal-outputs",
            f"preferred_output and non_preferred_output are equal: {clip(better[0][0])}.",
            "The row teaches nothing. Add a worse answer, or remove the row.",
        )


def _wrong(key: str, output: tuple[Message, ...]) -> Iterator[Finding]:
    if len(output) != 1:
        yield error("wrong-output", f"{key} has {len(output)} messages.", _ONE_ANSWER)
    elif output[0].role != "assistant":
        yield error("wrong-output", f"{key} is from {output[0].role!r}.", _ONE_ANSWER)
    elif not output[0].text.strip() and not output[0].tool_calls:
        yield error("empty-output", f"{key} is empty.", "Fill it in, or remove the row.")


def trl(row: Flat) -> Flat:
    """Read TRL's columns. `chosen` and `rejected` may repeat the turns of `prompt`."""
    if missing := [key for key in ("chosen", "rejected") if row.get(key) is None]:
        raise bad("missing-output", f"the row has no {missing[0]!r}.", _TRL_SHAPE)
    rest = dict(row)
    prompt = turns_of(rest, "prompt", "user")
    chosen, rejected = (turns_of(rest, key, "assistant") for key in ("chosen", "rejected"))
    before = chosen[:-1]
    if before != rejected[:-1]:
        raise bad(
            "different-prompts",
            "`chosen` and `rejected` differ before their last message.",
            "Both must have the same turns before the answer.",
        )
    if not (prompt or before):
        raise bad("missing-key", "the row has no `prompt`.", _TRL_SHAPE)
    if before and prompt and before[-len(prompt) :] != prompt:
        raise bad(
            "different-prompts",
            "the turns before the answers differ from `prompt`.",
            "Write the question once, as `prompt`.",
        )
    tools = {"tools": rest.pop("tools")} if rest.get("tools") is not None else {}
    triple: Flat = {
        "input": {"messages": before or prompt, **tools},
        "preferred_output": chosen[-1:],
        "non_preferred_output": rejected[-1:],
        **rest,
    }
    if problems := list(_triple_problems(triple)):
        raise BadRow(*map(_in_trl_words, problems))
    return triple


def _in_trl_words(finding: Finding) -> Finding:
    message, fix = finding.message, finding.fix.replace(_TRIPLE_SHAPE, _TRL_SHAPE)
    for ours, theirs in _IN_TRL.items():
        message = message.replace(ours, theirs)
    return finding.model_copy(update={"message": message, "fix": fix})


def fits_trl(row: Flat) -> bool:
    """Return whether a row looks like TRL's preference columns."""
    return "completion" not in row and ("chosen" in row or "rejected" in row)


def turns_of(row: Flat, key: str, role: str) -> list[JsonValue]:
    """Remove a key from a row and return its value as messages; a string gets this role."""
    value = row.pop(key, None)
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if value is None or isinstance(value, list):
        return value or []
    fix = "Use a string or a list of messages."
    raise bad("not-a-text", f"{key!r} is {clip(value)}.", fix)
