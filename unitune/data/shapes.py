"""Read rows of several shapes into canonical keys.

    name         keys                                            origin
    preference   input, preferred_output, non_preferred_output   OpenAI; canonical
    chat         messages                                        OpenAI; canonical
    sharegpt     conversations                                   FastChat, LLaMA-Factory
    alpaca       instruction, input, output, system, history     Stanford Alpaca, LLaMA-Factory
    trl          prompt, chosen, rejected                        Hugging Face TRL
    pair         one of PROMPTS and one of ANSWERS               OpenAI's older files, and many

The first shape in `SHAPES` that fits is taken. Vendors' own rows are read by the wire
formats of installed packages (``unitune.formats``). `system` and ratings are read too, and other
keys by which other tools train are refused.

Sources: LLaMA-Factory, data/README.md (Alpaca format); databricks-dolly-15k (`context`);
Anthropic's Messages API (`system`); TRL, dataset_formats.md and `apply_chat_template`; OpenAI's API
description, FineTuneChatRequestInput; Gemini's tuning files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache, partial
from importlib.metadata import entry_points
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from unitune.data import preferences, sharegpt
from unitune.data.example import Example, Message
from unitune.data.preferences import trl, turns_of
from unitune.data.records import Flat, bad
from unitune.errors import UserError, nearest
from unitune.files.validation import did_you_mean
from unitune.text import clip

PROMPTS = ("prompt", "question", "instruction", "input")
ANSWERS = ("completion", "response", "answer", "output")
_UNSEEN = ("context", "choices", "options")  # parts of a question that a pair cannot hold
_TO_TEMPLATE = (
    "Define the model's input in the job, e.g. `data: {template: {user: "
    "'{{ context }}\n\n{{ question }}', assistant: '{{ answer }}'}}`."
)
_HISTORY = "It must be a list of earlier turns: [[QUESTION, ANSWER], …]."


def fits_alpaca(row: Flat) -> bool:
    """Return whether a row looks like an instruction."""
    beside = (*ANSWERS, "input", "chosen", "rejected")
    return "instruction" in row and "prompt" not in row and not row.keys().isdisjoint(beside)


def fits_pair(row: Flat) -> bool:
    """Return whether a row has a prompt, or a prompt and an answer under other names."""
    keys = row.keys()
    return "prompt" in row or not (keys.isdisjoint(PROMPTS) or keys.isdisjoint(ANSWERS))


def alpaca(row: Flat) -> Flat:
    """Read an instruction with its input and history."""
    rest = dict(row)
    texts: list[str] = []
    for key in ("instruction", "input", "context"):
        text = rest.pop(key, None)
        if not isinstance(text, str | None):
            raise bad("not-a-text", f"{key!r} is {clip(text)}.", "Use a string.")
        texts += [text] if text else []
    before: list[JsonValue] = []
    history = rest.pop("history", None) or []
    for turn in history if isinstance(history, list) else [history]:
        if not (isinstance(turn, list) and len(turn) == 2):
            raise bad("wrong-value", f"history holds {clip(turn)}.", _HISTORY)
        before += (
            {"role": role, "content": text}
            for role, text in zip(("user", "assistant"), turn, strict=True)
        )
    prompt: list[JsonValue] = [*before, {"role": "user", "content": "\n".join(texts)}]
    if not row.keys().isdisjoint(("chosen", "rejected")):
        return trl({"prompt": prompt, **rest})
    return {"messages": [*prompt, *turns_of(rest, _only(row, ANSWERS), "assistant")], **rest}


def pair(row: Flat) -> Flat:
    """Read a question and an answer, each a string or a list of messages."""
    rest = dict(row)
    prompt, answer = _only(row, PROMPTS), _only(row, ANSWERS)
    if prompt != "prompt" and (unseen := [key for key in _UNSEEN if row.get(key)]):
        key, value = unseen[0], clip(row[unseen[0]])
        what = f"the row has {key!r} ({value}) next to {prompt!r}, which a pair cannot hold."
        raise bad("unseen-key", what, _TO_TEMPLATE)
    return {
        "messages": [*turns_of(rest, prompt, "user"), *turns_of(rest, answer, "assistant")],
        **rest,
    }


def _only(row: Flat, names: tuple[str, ...]) -> str:
    held = [name for name in names if row.get(name) is not None]
    if len(held) > 1 and not {"prompt", "completion"}.issubset(row):
        both = " and ".join(map(repr, held))
        raise bad("ambiguous-keys", f"the row has {both}, but only one is allowed.", _TO_TEMPLATE)
    return held[0] if held else names[0]


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
        if rating in _RATED and (key != "label" or not row.keys().isdisjoint(ANSWERS)):
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


_CANONICAL = frozenset(Example.model_fields) - {"id", "expected"}


class WireFormat(Protocol):
    """A `unitune.backends.formats.Format`."""

    @property
    def name(self) -> str:
        """Name for `unitune data convert`."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of a row that the format reads; empty for all."""
        ...

    @property
    def fits(self) -> Callable[[Mapping[str, JsonValue]], bool] | None:
        """Test of whether a row is of this format; None if that cannot be seen."""
        ...

    @property
    def decode(self) -> Callable[[Mapping[str, JsonValue]], Example]:
        """Conversion of a vendor's row to a canonical one."""
        ...


@cache
def wire_formats() -> tuple[WireFormat, ...]:
    """Return the installed wire formats; raises `UserError` for an outdated installation."""
    formats: list[WireFormat] = []
    for entry in entry_points(group="unitune.formats"):
        try:
            formats.append(entry.load())
        except (ImportError, AttributeError) as failure:
            package = entry.dist.name if entry.dist else entry.module.partition(".")[0]
            raise UserError(
                f"the package {package} lists a format {entry.name!r} that it does not have "
                f"({failure}). Reinstall the package, in a checkout with `pip install -e .`."
            ) from failure
    return tuple(formats)


def read_wire(form: WireFormat, row: Flat) -> Flat:
    """Return a vendor's row with canonical and custom keys; raises `BadRow`."""
    own = {key for key in row if form.keys and key not in form.keys and key not in _CANONICAL}
    try:
        example = form.decode({key: value for key, value in row.items() if key not in own})
    except ValueError as problem:
        raise bad(
            "cannot-read",
            f"the row cannot be read as {form.name}: {problem}.",
            "Correct the row, remove it, or name its format.",
        ) from None
    beside = {key: value for key, value in row.items() if key in own}
    return check_reserved(beside, {**beside, **example.content})


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
    if isinstance(parts := turn.get("content"), list):  # tables have every key in every part
        turn = {**turn, "content": [_without_nulls(part) for part in parts]}
    return {key: value for key, value in turn.items() if key in _TURN or value}


def _without_nulls(part: JsonValue) -> JsonValue:
    if not isinstance(part, dict):
        return part
    return {key: _without_nulls(value) for key, value in part.items() if value is not None}


def _sharegpt(row: Flat) -> Flat:
    content = sharegpt.read(row)
    return content if "messages" in content else preferences.trl(content)


SHAPES: dict[str, Shape] = {
    "preference": Shape("preferences", preferences.fits_preference, preferences.preference),
    "chat": Shape("chat messages", _fits_chat, _chat),
    "sharegpt": Shape("ShareGPT conversations", sharegpt.fits, _sharegpt),
    "alpaca": Shape("Alpaca instructions", fits_alpaca, alpaca),
    "trl": Shape("TRL preferences", preferences.fits_trl, preferences.trl),
    "pair": Shape("pairs", fits_pair, pair),
}
