"""Read rows of a question and an answer: Alpaca's columns, and pairs.

Sources: LLaMA-Factory, data/README.md (Alpaca format); databricks-dolly-15k (`context`).
"""

from __future__ import annotations

from pydantic import JsonValue

from unitune.data.preferences import trl, turns_of
from unitune.data.records import Flat, bad
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
