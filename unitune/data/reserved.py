"""Read `system` and ratings, and refuse other keys by which other tools train.

Sources: Anthropic's Messages API (`system`); TRL, dataset_formats.md and `apply_chat_template`;
LLaMA-Factory, data/README.md; OpenAI's API description, FineTuneChatRequestInput; Gemini's tuning
files.
"""

from __future__ import annotations

from unitune.data import pairs
from unitune.data.records import Flat, bad
from unitune.text import clip

_FIXES = {
    "system_prompt systemInstruction system_instruction": (
        "Write it under `system`, or as the first message."
    ),
    "functions function_call": (
        'Write `tools: [{"type": "function", "function": {…}}]` and `tool_calls`.'
    ),
    "conversations conversation contents completion completions chosen rejected": (
        "Keep only one of the two in the row."
    ),
    "images image videos audios": "Remove the row, or only the key if the text suffices.",
    "chat_template_kwargs": "Write its content into the messages.",
}
_MEANINGS = {key: fix for keys, fix in _FIXES.items() for key in keys.split()}
_RATINGS, _RATED = ("label", "kto_tag"), ("true", "false")
RESERVED = frozenset((*_MEANINGS, "system", *_RATINGS))


def check_reserved(row: Flat, content: Flat) -> Flat:
    """Return content with `system` as a message and a rating as `kto_tag`; raises `BadRow`."""
    if row.keys().isdisjoint(RESERVED):
        return content
    for key in _RATINGS:
        rating = str(row.get(key)).lower()
        if rating in _RATED and (key != "label" or not row.keys().isdisjoint(pairs.ANSWERS)):
            rest = {name: value for name, value in content.items() if name != key}
            content = {**rest, "kto_tag": rating == "true"}
    for key, fix in _MEANINGS.items():
        if isinstance(value := content.get(key), str | list | dict) and value:
            what = f"the row has the key {key!r} ({clip(value)}), which other tools train on"
            own = "Custom keys need another name."
            raise bad("foreign-key", f"{what} but unitune does not.", f"{fix} {own}")
    return _with_system(content) if "system" in content else content


def _with_system(content: Flat) -> Flat:
    rest = dict(content)
    text = rest.pop("system")
    if text in (None, "", [], {}):
        return rest
    around = rest if "messages" in rest else rest.get("input")
    if not isinstance(around, dict) or not isinstance(turns := around.get("messages"), list):
        return content  # reported where messages are read
    if any(isinstance(t, dict) and t.get("role") in ("system", "developer") for t in turns):
        what = f"the row has `system` ({clip(text)}) and a system message."
        raise bad("two-systems", what, "Keep only one.")
    whole: Flat = {**around, "messages": [{"role": "system", "content": text}, *turns]}
    return whole if "messages" in rest else {**rest, "input": whole}
