"""Read rows of several shapes into canonical keys.

    name         keys                                            origin
    preference   input, preferred_output, non_preferred_output   OpenAI; canonical
    chat         messages                                        OpenAI; canonical
    sharegpt     conversations                                   FastChat, LLaMA-Factory
    alpaca       instruction, input, output, system, history     Stanford Alpaca, LLaMA-Factory
    trl          prompt, chosen, rejected                        Hugging Face TRL
    pair         one of PROMPTS and one of ANSWERS               OpenAI's older files, and many

The first shape in `SHAPES` that fits is taken. Vendors' own rows are read by `unitune.data.wire`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from typing import NamedTuple

from pydantic import JsonValue

from unitune.data import pairs, preferences, sharegpt
from unitune.data.example import Message
from unitune.data.records import Flat, bad
from unitune.data.wire import WireFormat, read_wire, wire_formats
from unitune.errors import nearest
from unitune.files.validation import did_you_mean

_TURN = frozenset(field.name for field in fields(Message))
_WHICH_KEYS = "which keys hold the messages: `data: {columns: {user: QUESTION, assistant: ANSWER}}`"


class Shape(NamedTuple):
    """One way to write a row: a label, a test of whether a row looks like it, and a reader."""

    label: str
    fits: Callable[[Flat], bool]
    read: Callable[[Flat], Flat]


def read_shape(row: Flat, shape: Shape | None = None) -> Flat:
    """Return a row with canonical keys; raises `BadRow` for an unknown or ambiguous shape."""
    shape = shape or shape_of(row)
    if shape is None:
        _refuse_wrapped(row)
        keys = ", ".join(repr(key) for key in list(row)[:8]) or "nothing"
        guesses = ((key, nearest(key, ("messages", "prompt"))) for key in row)
        slip = next(
            (f" Did you mean {near!r} instead of {key!r}?" for key, near in guesses if near), ""
        )
        raise bad(
            "unknown-shape",
            f"the row needs `messages` or `prompt`, but has {keys}.{slip}",
            'Write {"messages": […]}, {"prompt": …, "completion": …} or {"prompt": …, "chosen": …, '
            f'"rejected": …}}, or set in the job {_WHICH_KEYS}.'
            + (" To train on raw text, set `method: cpt`." if "text" in row else ""),
        )
    return shape.read(row)


def _refuse_wrapped(row: Flat) -> None:
    for key, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict) and shape_of(value[0]):
            what = f"the rows are inside one object, under {key!r}."
            raise bad(
                "nested-rows", what, f"Extract the list: `jq '.[\"{key}\"]' FILE > NEW.json`."
            )


def shape_of(row: Flat) -> Shape | None:
    """Return the shape of a row."""
    shape = next((shape for shape in SHAPES.values() if shape.fits(row)), None)
    if shape is None or (shape is SHAPES["chat"] and _may_be_wire(row)):
        return next((_wire(form) for form in wire_formats() if form.fits and form.fits(row)), shape)
    return shape


def shape_named(name: str) -> Shape:
    """Return the shape or wire format with a name; raises `BadRow` if it is unknown."""
    known = {**{form.name: _wire(form) for form in wire_formats()}, **SHAPES}
    if name not in known:
        what = f"format {name!r} is unknown.{did_you_mean(name, known)}"
        raise bad("unknown-format", what, f"Known: {', '.join(sorted(known))}.")
    return known[name]


@cache
def _wire(form: WireFormat) -> Shape:
    return Shape(f"{form.name} rows", form.fits or _fits_nothing, partial(read_wire, form))


def _fits_nothing(_: Flat) -> bool:
    return False


def _may_be_wire(row: Flat) -> bool:
    """Return whether a row with messages has content blocks or tools unlike OpenAI's rows."""
    turns, tools = row["messages"], row.get("tools")
    blocks = isinstance(turns, list) and any(
        isinstance(turn, dict) and isinstance(turn.get("content"), list) for turn in turns
    )
    first = tools[0] if isinstance(tools, list) and tools else None
    return blocks or "schemaVersion" in row or (isinstance(first, dict) and "function" not in first)


def _fits_chat(row: Flat) -> bool:
    return "messages" in row


def _chat(row: Flat) -> Flat:
    """Return a row of messages without foreign null keys; TRL stores tools as JSON text."""
    turns, tools = row["messages"], row.get("tools")
    if isinstance(turns, list):
        row = {**row, "messages": [_without_blank_keys(turn) for turn in turns]}
    return {**row, "tools": sharegpt.tools_of(tools)} if isinstance(tools, str) else row


def _without_blank_keys(turn: JsonValue) -> JsonValue:
    if not isinstance(turn, dict):
        return turn
    return {key: value for key, value in turn.items() if key in _TURN or value}


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
