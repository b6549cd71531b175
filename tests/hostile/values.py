"""What is thrown: odd texts and values, and changes of whole things that were valid before.

`texts` and `json_values` are odd by themselves. `edited` takes a tree of JSON values and changes a
place or three of it (`Edit`): dropped, of another type, doubled, nested, renamed; `damaged` does
so with bytes. `as_json` writes a tree with what Python's own writer cannot say (`RAW`): brackets
without end, numbers of 5,000 digits.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st

TEXTS = (
    "",
    " ",
    "\t\n",
    "\0",
    "[/INST]",
    "[bold]x[/bold][/]",
    "[link=file:///etc/passwd]x[/link]",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x\x1b\\link",
    "\x9b31m",
    "\r\x08\x7f",
    "\u202egnp.exe\u2066",
    "\u200b\ufeff",
    "\u2028\u0085",
    "\ud800",
    "a\udcffb",
    "пауза",
    "Ⅻ²٣½",
    "ﬁ" * 3,
    "e\u0301" * 40,
    "💥",
    "x" * 5000,
    "../../../outside",
    "/etc/passwd",
    "CON",
    "-",
    "--help",
    "{{ 7 * 7 }}{% for x in range(9) %}",
    "{0.__class__}%s%n",
    "<script>alert(1)</script>",
    "'; DROP TABLE runs; --",
    "= 1e99999999999999999999",
    "1e999",
    "-0",
    "nan",
    "inf",
    "0x_",
    "9" * 400,
    "2026-13-45",
    "9999-12-31",
    "((((a+)+)+)+)$",
    "(" * 200 + ")" * 200,
    "*" * 50,
    "yes",
    "null",
    "{",
    "[" * 2000,
    '{"a": ' * 500,
    "http://[::1",
    "http://user:password@127.0.0.1:1/v1?key=secret",
    "http://127.0.0.1:99999/v1",
    "file:///etc/passwd",
)
"""Texts that have broken programs."""
RAW = {
    "@deep": "[" * 5_000 + "]" * 5_000,
    "@deeper": '{"a":' * 60_000 + "1" + "}" * 60_000,
    "@digits": "9" * 5_000,
    "@huge": "1e999",
    "@nan": "NaN",
    "@infinity": "-Infinity",
    "@twice": '{"a": 1, "a": 2}',
    "@half": '"\\ud83d"',
    "@tiny": "1e-400",
    "@long": json.dumps("y" * 70_000),
}
"""What stands in a file of JSON in place of such a text."""
NUMBERS = (0, -1, 1, 2, 7, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 10**400)
FLOATS = (0.5, -0.5, 1e308, -1e308, 5e-324, 0.1, 1e18)
BODIES = (
    b"",
    b" ",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"<!doctype html><html><body>502 Bad Gateway</body></html>",
    b"\xff\xfe\x00",
    b"\x00" * 64,
    b"\xef\xbb\xbf{}",
    b"data: {}\n\ndata: [DONE]\n\n",
    b"{" * 40_000,
    b"[" * 100_000 + b"]" * 100_000,
    "{}".encode("utf-16"),
    b"\x1f\x8b\x08",
    b"PK\x03\x04",
    b"SQLite format 3\x00",
    b'{"a": "\xc3"}',
    b"---\n...\n---\n",
    b"a: &a [*a]\n",
    b"!!python/object/apply:os.system [x]\n",
    b"x" * 70_000,
    b"\r\r\n\n\x0b\x0c\x1c",
    b'"\n"\n"',
)
"""Whole files and answers."""


def texts() -> st.SearchStrategy[str]:
    """Return odd texts."""
    known = st.sampled_from(TEXTS)
    return known | st.text(max_size=12) | st.builds("{}{}".format, st.text(max_size=4), known)


def scalars() -> st.SearchStrategy[Any]:
    """Return odd values without parts."""
    return st.one_of(
        texts(),
        st.sampled_from(NUMBERS),
        st.sampled_from(FLOATS),
        st.sampled_from(sorted(RAW)),
        st.none() | st.booleans(),
        st.integers(-9, 9) | st.floats(allow_nan=True),
    )


def json_values() -> st.SearchStrategy[Any]:
    """Return odd values, some of them with parts."""
    return st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
        max_leaves=4,
    )


Action = Literal["replace", "drop", "double", "nest", "unlist", "rename", "swap"]
ACTIONS: tuple[Action, ...] = (
    *("replace",) * 6,
    *("drop",) * 2,
    "double",
    "nest",
    "unlist",
    "rename",
    "swap",
)
"""As often as they are taken."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a tree.

    Args:
        place: Which of its places, modulo their number.
        action: What becomes of it.
        value: What it becomes, or the new key.
    """

    place: int
    action: Action
    value: Any

    def apply(self, tree: Any) -> Any:
        """Return the changed tree; the one that is given may be changed, too."""
        places = list(_places(tree))
        if not places:
            return self.value
        parent, key = places[self.place % len(places)]
        value = parent[key]
        if self.action == "drop":
            del parent[key]
        elif self.action == "double" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(value))
        elif self.action == "rename" and isinstance(parent, dict):
            parent[str(self.value)[:200]] = parent.pop(key)
        elif self.action == "swap":
            other, place = places[(self.place * 7 + 3) % len(places)]
            parent[key] = copy.deepcopy(other[place])
        else:
            parent[key] = self._in_place_of(value)
        return tree

    def _in_place_of(self, value: Any) -> Any:
        match self.action:
            case "nest":
                return {"x": value}
            case "double":
                return [value, copy.deepcopy(value)]
            case "unlist":
                return value[0] if isinstance(value, list) and value else str(value)
            case _:
                return self.value


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the lists and objects of a tree with each of their keys."""
    inner: Any = ()
    if isinstance(tree, dict):
        inner = tree.items()
    elif isinstance(tree, list):
        inner = enumerate(tree)
    for key, value in inner:
        yield tree, key
        yield from _places(value)


def edits(most: int = 3) -> st.SearchStrategy[list[Edit]]:
    """Return one change of a tree, or a few."""
    one = st.builds(Edit, st.integers(0, 10_000), st.sampled_from(ACTIONS), json_values())
    return st.lists(one, min_size=1, max_size=most)


def changed(tree: Any, changes: list[Edit]) -> Any:
    """Return a changed copy of a tree."""
    tree = copy.deepcopy(tree)
    for change in changes:
        tree = change.apply(tree)
    return tree


def edited(tree: Any, most: int = 3) -> st.SearchStrategy[Any]:
    """Return a tree with a change or a few."""
    return edits(most).map(lambda changes: changed(tree, changes))


def as_json(tree: Any) -> bytes:
    """Write a tree as JSON, with `RAW` in its places."""
    text = json.dumps(tree)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode()


def as_json_lines(trees: list[Any]) -> bytes:
    """Write trees as JSON, one a line."""
    return b"".join(as_json(tree) + b"\n" for tree in trees)


class _Whole(bytes):
    """Content that hypothesis is not to print."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Return bytes with a piece cut out, put in, doubled, or wholly others."""
    return _damaged(_Whole(whole))


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(BODIES) | st.binary(max_size=64))
    start = draw(st.integers(0, len(whole)))
    end = min(len(whole), start + draw(st.integers(0, 40)))
    put = draw(
        st.sampled_from(BODIES)
        | st.binary(max_size=6)
        | texts().map(lambda text: text.encode("utf-8", "surrogatepass"))
        | st.just(whole[start:end] * 2)
    )
    rest = b"" if draw(st.integers(0, 4)) == 0 else whole[end:]
    return whole[:start] + put + rest


def spoilt(tree: Any) -> st.SearchStrategy[bytes]:
    """Return a document of JSON: with changes mostly, damaged sometimes."""
    whole = as_json(tree)
    return edited(tree).map(as_json) | edited(tree).map(as_json) | damaged(whole)


def spoilt_lines(trees: list[Any]) -> st.SearchStrategy[bytes]:
    """Return JSON Lines, likewise."""
    whole = as_json_lines(trees)
    changed_ones = edited(trees).map(
        lambda tree: as_json_lines(tree if isinstance(tree, list) else [tree])
    )
    return changed_ones | changed_ones | damaged(whole)
