"""The shapes of a row, and how each is read into canonical keys: `SHAPES`.

    name         keys                                            comes from
    preference   input, preferred_output, non_preferred_output   OpenAI; canonical
    chat         messages                                        OpenAI; canonical
    trl          prompt, chosen, rejected                        Hugging Face TRL
    pair         prompt, completion                              OpenAI's older files

A text where messages may stand is one message. Another shape is a function from a row to a row with
canonical keys, which raises `BadRow`, and an entry of `SHAPES`; the first that fits is taken.

Custom keys are kept. Some names are reserved: another tool trains by them, so that leaving them
aside would teach something else than the row says. A text under `system` becomes the first message,
as Anthropic means it; any other such key is refused, with what to do. A key without a value (null,
"", []) says nothing, as in files that name every column in every row; nor does a flag or a number,
but for ratings.

Sources: Anthropic's Messages API (`system`); TRL, dataset_formats.md and `apply_chat_template`
(`label`, `chosen`, `rejected`, `completions`, `images`, `chat_template_kwargs`); LLaMA-Factory,
data/README.md (`conversations`, `kto_tag`, `videos`, `audios`); OpenAI's description,
FineTuneChatRequestInput (`functions`); Gemini's tuning files (`contents`, `systemInstruction`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from unitune.data.example import TRIPLE, Message
from unitune.data.records import BadRow, Flat, bad
from unitune.data.validation_errors import explain
from unitune.errors import nearest
from unitune.findings import Finding, clip, error

INPUT_KEYS = ("messages", "tools", "parallel_tool_calls")
"""What stands in `input`; the last is OpenAI's and is kept as a key of the row."""

_IN_TRL = {
    "non_preferred_output": "rejected",
    "preferred_output": "chosen",
    "input.messages": "prompt",
}
_TRIPLE_SHAPE = (
    'Write {"input": {"messages": […]}, "preferred_output": [{"role": "assistant", …}], '
    '"non_preferred_output": [{"role": "assistant", …}]}.'
)
_TRL_SHAPE = 'Write {"prompt": …, "chosen": …, "rejected": …}, texts or lists of messages.'
_ONE_ANSWER = (
    'Give it one {"role": "assistant", "content": …}; the turns before belong to the input.'
)
_FIXES = {
    "system_prompt systemInstruction system_instruction": (
        "Write it under `system`, or as the first message."
    ),
    "functions function_call": (
        'Write `tools: [{"type": "function", "function": {…}}]` and `tool_calls`.'
    ),
    "conversations conversation contents completion completions chosen rejected": (
        "Keep one of the two in the row."
    ),
    "images image videos audios": "Leave the row out, or take the key away if the text says all.",
    "chat_template_kwargs": "Write what it adds into the messages.",
}
_MEANINGS = {key: fix for keys, fix in _FIXES.items() for key in keys.split()}
_RATINGS = ("label", "kto_tag")
_KTO = (
    "unitune trains no single rated answers. For `method: sft` keep the good answers, without the "
    "key; for `method: dpo` write a good and a bad answer to one prompt as `chosen` and `rejected`."
)
RESERVED = frozenset((*_MEANINGS, "system", *_RATINGS))
"""Keys to which other tools give a meaning."""


class Shape(NamedTuple):
    """One way to write a row.

    Args:
        fits: Whether a row means to have it, complete or not.
        read: From such a row to one with canonical keys; raises `BadRow`.
    """

    fits: Callable[[Flat], bool]
    read: Callable[[Flat], Flat]


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


def read_shape(row: Flat) -> Flat:
    """Return a row with canonical keys.

    Raises:
        BadRow: It has no known shape, or says something that its shape has no place for.
    """
    shape = shape_of(row)
    if shape is None:
        keys = ", ".join(repr(key) for key in list(row)[:8]) or "nothing"
        guesses = ((key, nearest(key, ("messages", "prompt"))) for key in row)
        slip = next((f" Is {key!r} a slip for {near!r}?" for key, near in guesses if near), "")
        raise bad(
            "unknown-shape",
            f"the row has {keys}, and neither `messages` nor `prompt`.{slip}",
            'Write {"messages": […]}, {"prompt": …, "completion": …} or {"prompt": …, "chosen": …, '
            '"rejected": …}, or say in the job which keys '
            "hold the messages: `data: {columns: {user: QUESTION, assistant: ANSWER}}`.",
        )
    return shape.read(row)


def shape_of(row: Flat) -> Shape | None:
    """Return the shape of a row."""
    return next((shape for shape in SHAPES.values() if shape.fits(row)), None)


def check_reserved(row: Flat, content: Flat) -> Flat:
    """Return canonical content with `system` as a message.

    Args:
        row: As it stands in the file.
        content: The same with canonical keys.

    Raises:
        BadRow: It has another key by which other tools train.
    """
    if row.keys().isdisjoint(RESERVED):
        return content
    for key in _RATINGS:
        rated = str(row.get(key)).lower() in ("true", "false")
        if rated and (key != "label" or "completion" in row):
            raise _reserved(key, row[key], _KTO)
    for key, fix in _MEANINGS.items():
        if isinstance(value := content.get(key), str | list | dict) and value:
            raise _reserved(key, value, fix)
    return _with_system(content) if "system" in content else content


def _reserved(key: str, value: JsonValue, fix: str) -> BadRow:
    return bad(
        "foreign-key",
        f"the row has a key {key!r} ({clip(value)}), by which other tools train; unitune does not.",
        f"{fix} A key of your own needs another name.",
    )


def _with_system(content: Flat) -> Flat:
    """Put the text under `system` before the messages."""
    rest = dict(content)
    text = rest.pop("system")
    if text in (None, "", [], {}):
        return rest
    around = rest if "messages" in rest else rest.get("input")
    if not isinstance(around, dict) or not isinstance(turns := around.get("messages"), list):
        return content  # broken in another way, which is reported where messages are read
    if any(isinstance(t, dict) and t.get("role") in ("system", "developer") for t in turns):
        what = f"the row has `system` ({clip(text)}) and a system message besides."
        raise bad("two-systems", what, "Keep one.")
    whole: Flat = {**around, "messages": [{"role": "system", "content": text}, *turns]}
    return whole if "messages" in rest else {**rest, "input": whole}


def _fits_preference(row: Flat) -> bool:
    if "messages" in row:
        return "non_preferred_output" in row
    given = row.get("input")
    return not row.keys().isdisjoint(TRIPLE[1:]) or (
        isinstance(given, dict) and "messages" in given
    )


def preference(row: Flat) -> Flat:
    """Return OpenAI's triple as it is.

    Raises:
        BadRow: It is not complete, or its answers are not two of an assistant.
    """
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
                f"input has a key {key!r}, which is not known.",
                f"Known there: {', '.join(INPUT_KEYS)}. Keys of your own may stand beside `input`.",
            )
        elif key in row:
            yield error("repeated-key", f"{key!r} stands in input and beside it.", "Keep one.")
    outputs = (parsed.preferred_output, parsed.non_preferred_output)
    wrong = [each for pair in zip(TRIPLE[1:], outputs, strict=True) for each in _wrong(*pair)]
    yield from wrong
    better, worse = ([(turn.text, turn.tool_calls or None) for turn in turns] for turns in outputs)
    if not wrong and better == worse:
        yield error(
            "equal-outputs",
            f"preferred_output and non_preferred_output are equal: {clip(better[0][0])}.",
            "Nothing can be learnt from it; give the worse answer, or leave the row out.",
        )


def _wrong(key: str, output: tuple[Message, ...]) -> Iterator[Finding]:
    if len(output) != 1:
        yield error("wrong-output", f"{key} has {len(output)} messages.", _ONE_ANSWER)
    elif output[0].role != "assistant":
        yield error("wrong-output", f"{key} is from {output[0].role!r}.", _ONE_ANSWER)
    elif not output[0].text.strip() and not output[0].tool_calls:
        yield error("empty-output", f"{key} is empty.", "Write it, or leave the row out.")


def _trl(row: Flat) -> Flat:
    """Read TRL's columns; `chosen` and `rejected` may repeat the turns of `prompt`."""
    if missing := [key for key in ("chosen", "rejected") if row.get(key) is None]:
        raise bad("missing-output", f"the row has no {missing[0]!r}.", _TRL_SHAPE)
    rest = dict(row)
    prompt = _turns(rest, "prompt", "user")
    chosen, rejected = (_turns(rest, key, "assistant") for key in ("chosen", "rejected"))
    before = chosen[:-1]
    if before != rejected[:-1]:
        raise bad(
            "different-prompts",
            "`chosen` and `rejected` differ before their last message.",
            "A pair is two answers to one question: give both the same turns before the answer.",
        )
    if not (prompt or before):
        raise bad("missing-key", "the row has no `prompt`.", _TRL_SHAPE)
    if before and prompt and before[-len(prompt) :] != prompt:
        raise bad(
            "different-prompts",
            "the turns before the answers are not those of `prompt`.",
            "Give the question once, as `prompt`.",
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


def _pair(row: Flat) -> Flat:
    rest = dict(row)
    messages = [*_turns(rest, "prompt", "user"), *_turns(rest, "completion", "assistant")]
    return {"messages": messages, **rest}


def _turns(row: Flat, key: str, role: str) -> list[JsonValue]:
    """Take a text of this role, or a list of messages, out of a row."""
    value = row.pop(key, None)
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if value is None or isinstance(value, list):
        return value or []
    fix = "Allowed is text in quotes, or a list of messages."
    raise bad("not-a-text", f"{key!r} is {clip(value)}.", fix)


def _fits_chat(row: Flat) -> bool:
    return "messages" in row


def _fits_trl(row: Flat) -> bool:
    return "completion" not in row and ("chosen" in row or "rejected" in row)


def _fits_pair(row: Flat) -> bool:
    return "prompt" in row


def _chat(row: Flat) -> Flat:
    return row


SHAPES: dict[str, Shape] = {
    "preference": Shape(_fits_preference, preference),
    "chat": Shape(_fits_chat, _chat),
    "trl": Shape(_fits_trl, _trl),
    "pair": Shape(_fits_pair, _pair),
}
