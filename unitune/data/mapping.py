"""Flat rows to messages: by column, by template, or by the usual names.

A mapping knows which columns it reads, whether a table's header fits it, and how one row becomes
what `unitune.data.rows` reads. Columns that it does not read are left out of the example, so that
nothing which the job did not name leaves the machine; `unitune.data.load` reports which. A blank
system prompt is none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from unitune.data.foreign import SYSTEM
from unitune.errors import nearest
from unitune.findings import Finding, clip, error
from unitune.job.job import Columns, Data, Template

if TYPE_CHECKING:
    import jinja2

Flat = dict[str, JsonValue]
"""One row of a table, or one JSON object, by column."""

_ROLES = ("system", "user", "assistant")
_PAIR = ("prompt", "completion")
_PREFERENCE = ("prompt", "chosen", "rejected")
_IN_JOB = "Correct the name under `data` in the job file."
_NAME_THEM = (
    "Say in the job file which columns hold the messages, e.g. "
    "`data: {columns: {user: QUESTION, assistant: ANSWER}}`, and check the job file."
)


class Mapping(Protocol):
    """How a flat row becomes messages."""

    @property
    def reads(self) -> frozenset[str]:
        """The columns that it reads."""
        ...

    def misfit(self, columns: Collection[str]) -> Finding | None:
        """Return why a table with these columns cannot be read, or None when it can."""
        ...

    def content(self, row: Flat) -> Flat | Finding:
        """Return one row with its messages, or why there are none."""
        ...


class ByColumn:
    """One column for each message, word for word.

    Args:
        columns: Which is which.
    """

    def __init__(self, columns: Columns) -> None:
        named = {role: getattr(columns, role) for role in _ROLES}
        self._columns = {role: column for role, column in named.items() if column is not None}
        self.reads = frozenset(self._columns.values())

    def misfit(self, columns: Collection[str]) -> Finding | None:
        return _missing(self._columns.values(), columns, _IN_JOB)

    def content(self, row: Flat) -> Flat | Finding:
        if misfit := self.misfit(row):
            return misfit
        texts: dict[str, str] = {}
        for role, column in self._columns.items():
            value = row[column]
            if not isinstance(value, str):
                return error(
                    "not-a-text",
                    f"column {column!r} holds {clip(value)}, which is no text.",
                    "Put it in quotes, or use `data.template`, which takes any value.",
                )
            texts[role] = value
        return _as_messages(texts)


@dataclass(frozen=True, slots=True)
class ByTemplate:
    """One Jinja2 template for each message, rendered over the row's columns in a sandbox.

    Args:
        templates: By role.
        reads: The names that the templates use.
    """

    templates: dict[str, jinja2.Template]
    reads: frozenset[str]

    @classmethod
    def of(cls, template: Template) -> ByTemplate | Finding:
        """Compile the templates, or return which one is broken."""
        import jinja2.meta  # noqa: PLC0415 - most rows need no template
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415 - likewise

        environment = ImmutableSandboxedEnvironment(  # prompts are plain text, never HTML
            undefined=jinja2.StrictUndefined, autoescape=False
        )
        compiled: dict[str, jinja2.Template] = {}
        names: set[str] = set()
        for role in _ROLES:
            source: str | None = getattr(template, role)
            if source is None:
                continue
            try:
                names |= jinja2.meta.find_undeclared_variables(environment.parse(source))
                compiled[role] = environment.from_string(source)
            except jinja2.TemplateSyntaxError as failure:
                return error(
                    "broken-template",
                    f"data.template.{role}, line {failure.lineno} of the template: "
                    f"{failure.message}",
                    "Write a column as {{ name }}.",
                )
        return cls(compiled, frozenset(names))

    def misfit(self, columns: Collection[str]) -> Finding | None:
        """Return an error when a row of blanks cannot be rendered for lack of a column."""
        rendered = self.content(dict.fromkeys(columns, ""))
        # Any other failure may be due to the blanks, and is reported on the row where it is real.
        if isinstance(rendered, Finding) and rendered.code == "missing-column":
            return rendered
        return None

    def content(self, row: Flat) -> Flat | Finding:
        import jinja2  # noqa: PLC0415 - as in `of`

        texts: dict[str, str] = {}
        for role, template in self.templates.items():
            fix = "Correct the template, or the row."
            try:
                texts[role] = template.render(row)
                continue
            except jinja2.UndefinedError as failure:
                why = str(failure)
                fix = "Use `| default('')` where a value may be absent."
                if absent := sorted(name for name in self.reads - set(row) if f"'{name}'" in why):
                    return _no_column(absent[0], row, _IN_JOB)
            except Exception as failure:  # noqa: BLE001 - whatever the user's template raises is about the row
                why = str(failure)
            what = f"data.template.{role} cannot be rendered over this row ({why})."
            return error("template-failed", what, fix)
        return _as_messages(texts)


class ByUsualNames:
    """A table without a mapping: prompt and completion, or TRL's prompt, chosen and rejected.

    A column `system` beside them holds the system prompt.
    """

    reads = frozenset((*_PAIR, *_PREFERENCE, SYSTEM))

    def misfit(self, columns: Collection[str]) -> Finding | None:
        return _missing(_usual(columns), columns, _NAME_THEM)

    def content(self, row: Flat) -> Flat | Finding:
        return {name: row[name] for name in (*_usual(row), SYSTEM) if name in row}


def mapping_of(data: Data | None) -> Mapping | Finding | None:
    """Return a job's mapping, what is wrong with it, or None when the job has none."""
    if data is None:
        return None
    if data.template:
        return ByTemplate.of(data.template)
    return ByColumn(data.columns) if data.columns else None


def turns(key: str, value: JsonValue, role: str) -> list[JsonValue] | Finding:
    """Return a value that is a text, from this role, or a list of messages as messages.

    Args:
        key: Under which it stands.
        value: Of the key.
        role: Of a text.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return value
    return error(
        "not-a-text",
        f"{key!r} is {clip(value)}.",
        "Allowed is text in quotes, or a list of messages.",
    )


def _usual(columns: Collection[str]) -> tuple[str, ...]:
    preference = "completion" not in columns and {"chosen", "rejected"}.issubset(columns)
    return _PREFERENCE if preference else _PAIR


def _as_messages(texts: dict[str, str]) -> Flat:
    messages: list[JsonValue] = [
        {"role": role, "content": text}
        for role, text in texts.items()
        if role != "system" or text.strip()
    ]
    return {"messages": messages}


def _missing(names: Iterable[str], columns: Collection[str], fix: str) -> Finding | None:
    """Return an error about the first name that is no column."""
    return next((_no_column(name, columns, fix) for name in names if name not in columns), None)


def _no_column(name: str, columns: Collection[str], fix: str) -> Finding:
    near = nearest(name, columns)
    guess = f" Did you mean {near!r}?" if near else ""
    listed = ", ".join(map(repr, columns)) or "none"
    return error("missing-column", f"there is no column {name!r}.{guess} There are: {listed}.", fix)
