"""The shapes of a row, and how each is read into canonical keys: `SHAPES`.

    name         keys                                            comes from
    preference   input, preferred_output, non_preferred_output   OpenAI; canonical
    chat         messages                                        OpenAI; canonical
    sharegpt     conversations                                   FastChat, LLaMA-Factory
    alpaca       instruction, input, output, system, history     Stanford Alpaca, LLaMA-Factory
    trl          prompt, chosen, rejected                        Hugging Face TRL
    pair         one of PROMPTS and one of ANSWERS               OpenAI's older files, and many

Each is a function from a row to a row with canonical keys, which raises `BadRow`, and an entry of
`SHAPES`; the first that fits is taken.

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

from collections.abc import Callable
from typing import NamedTuple

from pydantic import JsonValue

from unitune.data import pairs, preferences, sharegpt
from unitune.data.records import BadRow, Flat, bad
from unitune.errors import nearest
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
_RATINGS = ("label", "kto_tag")
_WHICH_KEYS = "which keys hold the messages: `data: {columns: {user: QUESTION, assistant: ANSWER}}`"
_KTO = (
    "unitune trains no single rated answers. For `method: sft` keep the good answers, without the "
    "key; for `method: dpo` write a good and a bad answer to one prompt as `chosen` and `rejected`."
)
RESERVED = frozenset((*_MEANINGS, "system", *_RATINGS))
"""Keys to which other tools give a meaning."""


class Shape(NamedTuple):
    """One way to write a row.

    Args:
        label: Its rows, for people.
        fits: Whether a row means to have it, complete or not.
        read: From such a row to one with canonical keys; raises `BadRow`.
    """

    label: str
    fits: Callable[[Flat], bool]
    read: Callable[[Flat], Flat]


def read_shape(row: Flat) -> Flat:
    """Return a row with canonical keys.

    Raises:
        BadRow: It has no known shape, or says something that its shape has no place for.
    """
    shape = shape_of(row)
    if shape is None:
        _refuse_wrapped(row)
        keys = ", ".join(repr(key) for key in list(row)[:8]) or "nothing"
        guesses = ((key, nearest(key, ("messages", "prompt"))) for key in row)
        slip = next((f" Is {key!r} a slip for {near!r}?" for key, near in guesses if near), "")
        raise bad(
            "unknown-shape",
            f"the row has {keys}, and neither `messages` nor `prompt`.{slip}",
            'Write {"messages": […]}, {"prompt": …, "completion": …} or {"prompt": …, "chosen": …, '
            f'"rejected": …}}, or say in the job {_WHICH_KEYS}.',
        )
    return shape.read(row)


def _refuse_wrapped(row: Flat) -> None:
    """Refuse the one object of a file that holds its rows under a key."""
    for key, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict) and shape_of(value[0]):
            what = f"the rows stand inside one object, under {key!r}."
            raise bad(
                "nested-rows", what, f"Write that list alone: `jq '.[\"{key}\"]' FILE > NEW.json`."
            )


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
        if rated and (key != "label" or not row.keys().isdisjoint(pairs.ANSWERS)):
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


def _fits_chat(row: Flat) -> bool:
    return "messages" in row


def _chat(row: Flat) -> Flat:
    return row


def _sharegpt(row: Flat) -> Flat:
    content = sharegpt.read(row)
    return content if "messages" in content else preferences.trl(content)


SHAPES: dict[str, Shape] = {
    "preference": Shape("preferences", preferences.fits_preference, preferences.preference),
    "chat": Shape("chat messages", _fits_chat, _chat),
    "sharegpt": Shape("ShareGPT conversations", sharegpt.fits, _sharegpt),
    "alpaca": Shape("Alpaca instructions", pairs.fits_alpaca, pairs.alpaca),
    "trl": Shape("TRL preferences", preferences.fits_trl, preferences.trl),
    "pair": Shape("pairs", pairs.fits_pair, pairs.pair),
}
