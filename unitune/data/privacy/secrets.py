"""Find keys, tokens and passwords in texts by gitleaks' rules and our own (`vendors.toml`).

`gitleaks.toml` is config/gitleaks.toml at commit 09242ce9c8a60d9b051fc2d166f9e849b88c7ac0 of
2025-11-20 (https://github.com/gitleaks/gitleaks, MIT, `gitleaks.LICENSE`), unchanged. Base64,
percent-encoded text and unannounced passwords are not found.
Every text of a row is searched: values, keys, and JSON inside strings.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, JsonValue, TypeAdapter

from unitune.data.images import DATA_URI
from unitune.data.records import json_or_none
from unitune.documents import Closed

_PLAIN = {  # full-width letters, non-breaking spaces and hyphens, with plain forms
    **{0xFF01 + at: 0x21 + at for at in range(94)},
    **dict.fromkeys((0xA0, 0x2007, 0x202F, 0x3000), ord(" ")),
    **dict.fromkeys((0x2010, 0x2011), ord("-")),
}


def plain(text: str) -> str:
    """Return a text of the same length with plain letters, spaces and hyphens."""
    return text if text.isascii() else text.translate(_PLAIN)


def strings(value: JsonValue) -> Iterator[str]:
    """Yield all texts of a JSON value, keys and JSON inside strings included."""
    if isinstance(value, str):
        if not DATA_URI.fullmatch(value):
            yield value
            yield from strings(_within(value))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from strings(key)
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def changed(value: JsonValue, change: Callable[[str], str]) -> JsonValue:
    """Return a JSON value with all its texts changed, keys and JSON inside strings included."""
    if isinstance(value, str):
        if DATA_URI.fullmatch(value):
            return value
        inner = _within(value)
        within, new = changed(inner, change), change(value)
        is_same = within == inner or within == _within(new)
        return new if is_same else json.dumps(within, ensure_ascii=False)
    if isinstance(value, list):
        return [changed(each, change) for each in value]
    if isinstance(value, dict):
        return {change(key): changed(each, change) for key, each in value.items()}
    return value


def _within(text: str) -> JsonValue:
    is_json = "\\" in text and text.lstrip()[:1] in ("{", "[", '"')
    return json_or_none(text) if is_json else None


_LETTERS = r"[\w.+/=~:@$-]"
_FEWEST_LETTERS = 8  # of the shortest secret of any rule
_WORD = re.compile(f"{_LETTERS}{{{_FEWEST_LETTERS},}}")
# Letters of a secret without digits: prefixed ones of letters only are longer
_LONG_LETTERS = 20
_DIGIT = re.compile("[0-9]")
# Most characters shown of a secret, and only of a prefix shared by all secrets of its rule
HINT_CHARACTERS = 3
# Many rules begin with the rest of a name, tried at every character. Without it, the time is linear
# and the group is the same; allowlists get it back.
_BEFORE = r"[\w.-]{0,50}?"
# Characters on both sides that count as the secret's line, which may have megabytes
_AROUND = 200
# Characters after its keyword that a rule with ``.*`` searches: RE2 is linear, Python is not
_REACH = 1000


_GITLEAKS_END = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
_GENERIC_END = r"""(?:[\x60'"\s;&\\]|$)"""
# What may follow a secret. The generic rule finds a key by its end, so no sentence ends it.
_END = r"""(?:[\x60'"\s;&<>)\]},\\]|[.:?!](?=\s|$)|$)"""


class Secret(NamedTuple):
    """Rule, place and harmless prefix of an apparent secret in a text."""

    rule: str
    start: int
    end: int
    prefix: str


class _Allowlist(Closed):
    description: str = ""
    condition: Literal["AND", "OR"] = "OR"
    paths: tuple[str, ...] = ()
    target: Annotated[Literal["match", "line"] | None, Field(alias="regexTarget")] = None
    regexes: tuple[str, ...] = ()
    stopwords: tuple[str, ...] = ()

    def allows(self, secret: str, match: str, line: str) -> bool:
        text = {"match": match, "line": line, None: secret}[self.target]
        if self.condition == "AND" and self.paths:
            return False  # rows have no path
        lower = secret.lower()
        return any(each.search(text) for each in self._compiled) or any(
            word in lower for word in self.stopwords
        )

    @cached_property
    def _compiled(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_compiled, self.regexes))


class _Rule(Closed):
    id: str
    description: str
    regex: str = ""
    path: str = ""
    keywords: tuple[str, ...] = ()
    entropy: float = 0
    secret_group: Annotated[int, Field(alias="secretGroup")] = 0
    allowlists: tuple[_Allowlist, ...] = ()

    def find(self, text: str) -> Iterator[Secret]:
        for match in self._matches(text):
            group = self.secret_group or next(
                (at for at, value in enumerate(match.groups(), 1) if value), 0
            )
            secret, (start, end) = match[group], match.span(group)
            if _entropy(secret) <= self.entropy and self.entropy:
                continue
            before = text[max(0, match.start() - _AROUND) : match.start()].rpartition("\n")[2]
            after = text[match.end() : match.end() + _AROUND].partition("\n")[0]
            name = re.search(r"[\w.-]{0,50}\Z", before)
            whole = f"{name[0] if name else ''}{match[0]}"
            known = (_rules().allowlist, *self.allowlists)
            if not any(each.allows(secret, whole, before + match[0] + after) for each in known):
                yield Secret(self.id, start, end, self._prefix(secret))

    def _matches(self, text: str) -> Iterator[re.Match[str]]:
        if ".*" not in self.regex:
            yield from self._pattern.finditer(text)
            return
        lines = text.replace("\r", "\n")
        for begin in re.finditer(re.escape(self.keywords[0]), lines):
            match = self._pattern.match(lines, begin.start(), begin.start() + _REACH)
            if match is not None:
                yield match

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        end = _GENERIC_END if self.is_generic else _END
        return _compiled(self.regex.replace(_BEFORE, "", 1).replace(_GITLEAKS_END, end))

    @property
    def is_generic(self) -> bool:
        """True if the rule identifies a secret only by the word before it."""
        return self.id.startswith("generic")

    def _prefix(self, secret: str) -> str:
        lower = secret.lower()
        known = any(lower.startswith(each) and len(each) < len(lower) for each in self.keywords)
        return secret[:HINT_CHARACTERS] if known else ""


class _Rules(Closed):
    title: str
    min_version: Annotated[str, Field(alias="minVersion")]
    allowlist: _Allowlist
    rules: tuple[_Rule, ...]

    @cached_property
    def by_keyword(self) -> dict[str, list[_Rule]]:
        known: dict[str, list[_Rule]] = {}
        for rule in self.rules:
            for word in rule.keywords if not rule.path else ():
                known.setdefault(word, []).append(rule)
        return known

    @cached_property
    def _beginnings(self) -> dict[str, list[str]]:
        """The keywords that each keyword begins with, itself included."""
        return {
            word: [other for other in self.by_keyword if word.startswith(other)]
            for word in self.by_keyword
        }

    def that_may_match(self, text: str) -> dict[str, _Rule]:
        longest = set(self._keyword.findall(text))
        keywords = {beginning for word in longest for beginning in self._beginnings[word]}
        ordered = filter(keywords.__contains__, self.by_keyword) if keywords else ()
        return {rule.id: rule for word in ordered for rule in self.by_keyword[word]}

    @cached_property
    def _keyword(self) -> re.Pattern[str]:
        """Pattern that finds the longest keyword at each place."""
        return re.compile(f"(?=({_any_of(self.by_keyword)}))")


def _any_of(words: Iterable[str]) -> str:
    """Return an expression for the longest of some words that tries no letter twice."""
    by_letter: dict[str, list[str]] = {}
    for word in words:
        by_letter.setdefault(word[0], []).append(word[1:])
    branches: list[str] = []
    for letter, rest in by_letter.items():
        longer = _any_of(filter(None, rest))
        optional = "?" if "" in rest else ""
        branches.append(re.escape(letter) + (f"(?:{longer}){optional}" if longer else ""))
    return "|".join(branches)


def find_secrets(text: str) -> list[Secret]:
    """Return apparent secrets in a text; at one place, the first rule wins."""
    text = plain(text)
    if not _may_hold(text):
        return []
    rules = _rules().that_may_match(text.lower())
    secrets, taken = list[Secret](), bytearray(len(text))
    # The generic rule is the least specific, so it comes last.
    for rule in sorted(rules.values(), key=lambda rule: rule.is_generic):
        for secret in rule.find(text):
            place = slice(secret.start, secret.end)
            if not any(taken[place]):
                taken[place] = b"\1" * (secret.end - secret.start)
                secrets.append(secret)
    return sorted(secrets, key=lambda secret: secret.start)


def _may_hold(text: str) -> bool:
    words = text.split() if len(text) >= _FEWEST_LETTERS else ()
    long = (word for word in words if len(word) >= _FEWEST_LETTERS and _may_be(word))
    return any(_may_be(word) for some in long for word in _WORD.findall(some))


def _may_be(word: str) -> bool:
    return len(word) >= _LONG_LETTERS or _DIGIT.search(word) is not None


@cache
def _rules() -> _Rules:
    gitleaks, own = (
        TypeAdapter(_Rules).validate_python(
            tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
        )
        for name in ("gitleaks.toml", "vendors.toml")
    )
    stand_ins = tuple(
        rule.model_copy(update={"allowlists": (own.allowlist, *rule.allowlists)})
        for rule in own.rules
    )
    return gitleaks.model_copy(update={"rules": (*gitleaks.rules, *stand_ins)})


def _entropy(text: str) -> float:
    shares = (count / len(text) for count in Counter(text).values())
    return -sum(share * math.log2(share) for share in shares)


def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(_pythons(expression), re.ASCII)  # as RE2 interprets \w, \d, \s and \b


_PIECE = re.compile(r"\\.|\[\[:alnum:\]\]|\[(?:\\.|\[:\w+:\]|[^\]\\])+\]|\(\?i\)|[(|)]|[^\\\[(|)]+")


def _pythons(expression: str) -> str:
    r"""Convert a Go expression to Python.

    Go allows ``(?i)`` anywhere, for the rest of its group; Python needs a group around it.
    ``[[:alnum:]]`` and ``\z`` have other names.
    """
    if expression.startswith("(?i)"):
        return f"(?i:{_pythons(expression[4:])})"
    written: list[str] = []
    opened = [0]  # groups opened by (?i), for each enclosing group
    for piece in _PIECE.findall(expression):
        if piece == "(?i)":
            opened[-1] += 1
            written.append("(?i:")
            continue
        if piece == "(":
            opened.append(0)
        elif piece == ")":
            written.append(")" * opened.pop())
        elif piece == "|" and opened[-1]:
            written.append(f"{')' * opened[-1]}|{'(?i:' * opened[-1]}")
            continue
        written.append({"[[:alnum:]]": "[a-zA-Z0-9]", r"\z": r"\Z"}.get(piece, piece))
    return "".join(written) + ")" * opened.pop()
