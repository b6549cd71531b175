"""Write the signatures and docstrings of public names for the reference of the Python API."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import griffe
from pydantic import BaseModel


@cache
def _package() -> griffe.Module:
    options: griffe.GoogleOptions = {"returns_multiple_items": False}
    package = griffe.load("unitune", docstring_parser="google", docstring_options=options)
    assert isinstance(package, griffe.Module)
    return package


def documented(name: str) -> Iterator[str]:
    """Yield the lines of a function, a class or a module, with its documented public members."""
    found = _package()[name]
    item = found.final_target if isinstance(found, griffe.Alias) else found
    if not isinstance(item, griffe.Module):
        yield f"### {name}\n"
        yield from _text(item)
    if isinstance(item, griffe.Function):
        return
    prefix = f"{item.name}." if isinstance(item, griffe.Class) else ""
    inherited = item.inherited_members.values() if isinstance(item, griffe.Class) else ()
    fields = [each.final_target for each in inherited if each.is_attribute]
    for member in (*item.members.values(), *fields):
        is_own = member.is_public and not isinstance(member, griffe.Alias)
        if is_own and member.has_docstring and member.name not in BaseModel.__dict__:
            yield f"{'####' if prefix else '###'} {prefix}{member.name}\n"
            yield from _text(member)


def _text(item: griffe.Object) -> Iterator[str]:
    if isinstance(item, griffe.Function):
        yield f"```python\n{item.signature(return_type=True)}\n```\n"
    elif isinstance(item, griffe.Attribute) and item.annotation:
        yield f"`{item.annotation}`\n"
    for section in item.docstring.parsed if item.docstring else ():
        yield from _section(section)


def _section(section: griffe.DocstringSection) -> Iterator[str]:
    value: Any = section.value
    if section.kind is griffe.DocstringSectionKind.text:
        yield f"{value}\n"
    elif section.kind is griffe.DocstringSectionKind.examples:
        for kind, text in value:
            yield f"{text}\n" if kind == "text" else f"```pycon\n{text}\n```\n"
    else:
        yield f"**{section.kind.value.capitalize()}**\n"
        yield "\n".join(_entry(entry) for entry in value) + "\n"


def _entry(entry: Any) -> str:
    head = getattr(entry, "name", "") or str(entry.annotation or "")
    return f"- `{head}`: {' '.join(entry.description.split())}"
