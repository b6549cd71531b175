"""Keys by which other tools train: read, or refused, and never left aside.

A row keeps its custom keys. Some names are reserved: leaving them aside would teach something else
than the row says. A text under `system` becomes the first message, as Anthropic means it; the
rating of an answer (`label`, `kto_tag`) is kept under the latter; any other such key is refused,
with what to do. A key without a value (null, "", []) says nothing, as in files that name every
column in every row; nor does a flag or a number, but for ratings.

Sources: Anthropic's Messages API (`system`); TRL, dataset_formats.md and `apply_chat_template`
(`label`, `chosen`, `rejected`, `completions`, `images`, `chat_template_kwargs`); LLaMA-Factory,
data/README.md (`conversations`, `kto_tag`, `videos`, `audios`); OpenAI's description,
FineTuneChatRequestInput (`functions`); Gemini's tuning files (`contents`, `systemInstruction`).
"""

from __future__ import annotations

from unitune.data import pairs
from unitune.data.records import Flat, bad
from unitune.findings import clip

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
_RATINGS, _RATED = ("label", "kto_tag"), ("true", "false")
RESERVED = frozenset((*_MEANINGS, "system", *_RATINGS))


def check_reserved(row: Flat, content: Flat) -> Flat:
    """Return canonical content with `system` as a message, and a rating under `kto_tag`.

    Raises:
        BadRow: It has another key by which other tools train.
    """
    if row.keys().isdisjoint(RESERVED):
        return content
    for key in _RATINGS:
        rating = str(row.get(key)).lower()
        if rating in _RATED and (key != "label" or not row.keys().isdisjoint(pairs.ANSWERS)):
            rest = {name: value for name, value in content.items() if name != key}
            content = {**rest, "kto_tag": rating == "true"}
    for key, fix in _MEANINGS.items():
        if isinstance(value := content.get(key), str | list | dict) and value:
            what = f"the row has a key {key!r} ({clip(value)}), by which other tools train"
            own = "A key of your own needs another name."
            raise bad("foreign-key", f"{what}; unitune does not.", f"{fix} {own}")
    return _with_system(content) if "system" in content else content


def _with_system(content: Flat) -> Flat:
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
