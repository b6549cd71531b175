"""Keys beside the conversation to which other tools give a meaning.

A row may hold custom keys. Some names are reserved: another tool trains by them, so that leaving
them aside would teach something else than the row says. A text under `system` becomes the
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
_KTO = (
    "unitune trains no single rated answers. For `method: sft` keep the good answers, without the "
    "key; for `method: dpo` write a good and a bad answer to one prompt as `chosen` and `rejected`."
)
SYSTEM = "system"
_RATINGS = ("label", "kto_tag")
WATCHED = frozenset((*_MEANINGS, SYSTEM, *_RATINGS))


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
    text = rest.pop(SYSTEM)
    if text in (None, "", [], {}):
        return rest
    around = rest if "messages" in rest else rest.get("input")
    if not isinstance(around, dict) or not isinstance(turns := around.get("messages"), list):
        return content  # broken in another way, which is reported where shapes are read
    if any(isinstance(t, dict) and t.get("role") in ("system", "developer") for t in turns):
        return error(
            "two-systems",
            f"the row has `system` ({clip(text)}) and a system message besides.",
            "Keep one.",
        )
    whole: Flat = {**around, "messages": [{"role": "system", "content": text}, *turns]}
    return whole if "messages" in rest else {**rest, "input": whole}
