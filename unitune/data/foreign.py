"""Keys beside the conversation to which other tools give a meaning.

A row may hold keys of one's own. Some names are not one's own: another tool trains by them, so that
leaving them aside would teach something else than the row says. A text under `system` becomes the
first message, as Anthropic means it; any other such key is refused, with what to do. A key without
a value (null, "", []) says nothing, as in files that name every column in every row; nor does a
flag or a number, but for ratings.

Sources: Anthropic's Messages API (`system`); TRL, dataset_formats.md and `apply_chat_template`
(`label`, `chosen`, `rejected`, `completions`, `images`, `chat_template_kwargs`); LLaMA-Factory,
data/README.md (`conversations`, `kto_tag`, `videos`, `audios`); OpenAI's description,
FineTuneChatRequestInput (`functions`); Gemini's tuning files (`contents`, `systemInstruction`).
"""

from __future__ import annotations

from pydantic import JsonValue

from unitune.findings import Finding, clip, error

Flat = dict[str, JsonValue]

_AS_SYSTEM = "Write it under `system`, or as the first message."
_AS_TOOLS = 'Write `tools: [{"type": "function", "function": {…}}]` and `tool_calls`.'
_ONE_SHAPE = "Keep one of the two in the row."
_NO_MEDIA = "Leave the row out, or take the key away if the text says all."
_KTO = (
    "unitune trains no single rated answers. For `method: sft` keep the good answers, without the "
    "key; for `method: dpo` write a good and a bad answer to one prompt as `chosen` and `rejected`."
)
_OF_TEMPLATES = "Write what it adds into the messages."

_MEANINGS = {
    "system_prompt": _AS_SYSTEM,
    "systemInstruction": _AS_SYSTEM,
    "system_instruction": _AS_SYSTEM,
    "functions": _AS_TOOLS,
    "function_call": _AS_TOOLS,
    "conversations": _ONE_SHAPE,
    "conversation": _ONE_SHAPE,
    "contents": _ONE_SHAPE,
    "completion": _ONE_SHAPE,
    "completions": _ONE_SHAPE,
    "chosen": _ONE_SHAPE,
    "rejected": _ONE_SHAPE,
    "images": _NO_MEDIA,
    "image": _NO_MEDIA,
    "videos": _NO_MEDIA,
    "audios": _NO_MEDIA,
    "chat_template_kwargs": _OF_TEMPLATES,
}
SYSTEM = "system"
_RATINGS = ("label", "kto_tag")
WATCHED = frozenset((*_MEANINGS, SYSTEM, *_RATINGS))
_EMPTY: tuple[JsonValue, ...] = (None, "", [], {})


def settled(row: Flat, content: Flat) -> Flat | Finding:
    """Return a row's canonical content with its foreign keys read, or why one cannot be.

    Args:
        row: As it stands in the file.
        content: The same with `messages`, or with `input` that holds them.
    """
    if row.keys().isdisjoint(WATCHED):
        return content
    for key in _RATINGS:
        rated = str(row.get(key)).lower() in ("true", "false")
        if rated and (key != "label" or "completion" in row):
            return _refused(key, row[key], _KTO)
    for key, fix in _MEANINGS.items():
        if isinstance(value := content.get(key), str | list | dict) and value:
            return _refused(key, value, fix)
    return _with_system(content) if SYSTEM in content else content


def _refused(key: str, value: JsonValue, fix: str) -> Finding:
    return error(
        "foreign-key",
        f"the row has a key {key!r} ({clip(value)}), by which other tools train; unitune does not.",
        f"{fix} A key of your own needs another name.",
    )


def _with_system(content: Flat) -> Flat | Finding:
    """Put the text under `system` before the messages."""
    rest = dict(content)
    said = rest.pop(SYSTEM)
    if said in _EMPTY:
        return rest
    asked = rest if "messages" in rest else rest.get("input")
    if not isinstance(asked, dict) or not isinstance(turns := asked.get("messages"), list):
        return content  # broken in another way, which is told where shapes are read
    if any(_is_system(turn) for turn in turns):
        return error(
            "two-systems",
            f"the row has `system` ({clip(said)}) and a system message besides.",
            "Keep one.",
        )
    messages: list[JsonValue] = [{"role": "system", "content": said}, *turns]
    whole: Flat = {**asked, "messages": messages}
    return whole if "messages" in rest else {**rest, "input": whole}


def _is_system(turn: JsonValue) -> bool:
    return isinstance(turn, dict) and turn.get("role") in ("system", "developer")
