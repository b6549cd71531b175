"""Templates of promptfoo (Nunjucks) as far as they are plain: ``{{ name }}``, ``{{ a.b[0] }}``.

A plain reference means the same in every engine. Filters, conditions, loops and references to the
environment do not, and are refused: whoever uses them has promptfoo render the prompts and imports
its results. Values are put in as JavaScript writes them; an unknown name is empty, as Nunjucks has
it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from pydantic import JsonValue

REFERENCE = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[\d+\])*)\s*\}\}")
STEP = re.compile(r"\w+")
MARKS = re.compile(r"\{[{%#]")
LONGEST_INDEX = 10
"""Digits of an index into a list; there is nothing behind so many."""
SMALLEST, LARGEST = 1e-4, 1e15
"""Between them Python and JavaScript write numbers alike, beyond them one takes to exponents."""


class NotPlain(ValueError):
    """A template, or a value in it, that is not sure to come out as it does in promptfoo."""


def render(template: str, values: Mapping[str, JsonValue]) -> str:
    """Fill a template in.

    Args:
        template: Text with plain references.
        values: Variables; texts among them may hold no template of their own.

    Raises:
        NotPlain: There is more in it than plain references to texts and numbers.
    """
    rest = REFERENCE.sub("", template)
    if mark := MARKS.search(rest):
        raise NotPlain(f"the template has {rest[mark.start() :][:30]!r}, more than a plain name")
    return REFERENCE.sub(lambda found: _value(found[1], values), template)


def _value(reference: str, values: Mapping[str, JsonValue]) -> str:
    if reference.startswith("env."):
        raise NotPlain(f"it takes {reference!r} from the environment")
    found: JsonValue = dict(values)
    for step in STEP.findall(reference):
        found = _inside(found, step)
    text = text_of(found)
    if MARKS.search(text):
        raise NotPlain(f"the value of {reference!r} holds a template itself: {text[:30]!r}")
    return text


def _inside(value: JsonValue, step: str) -> JsonValue:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdigit() and len(step) < LONGEST_INDEX:
        return value[int(step)] if int(step) < len(value) else None
    return None


def text_of(value: JsonValue) -> str:
    """Return a value as JavaScript writes it.

    Raises:
        NotPlain: It is a list, an object, or a number that Python writes otherwise.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and (value == 0 or SMALLEST <= abs(value) < LARGEST):
        return str(int(value)) if math.floor(value) == value else repr(value)
    raise NotPlain(f"the value {str(value)[:30]!r} is neither a text nor a plain number")
