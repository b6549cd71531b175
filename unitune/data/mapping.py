"""Flat rows to messages: by column, by template, or by the names that everybody uses.

A mapping knows which columns it reads, whether a table's header fits it, and how one row becomes
what `unitune.data.rows` reads. Columns that it does not read are left out of the example, so that
nothing which the job did not name leaves the machine; `unitune.data.load` says which. A blank
system prompt is none.
"""

from __future__ import annotations

from collections.abc import Collection
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
_IN_JOB = "Correct the name under `data` in the job file."


class Mapping(Protocol):
    """How a flat row becomes messages."""

    @property
    def reads(self) -> frozenset[str]:
        """The columns that it looks at."""
        ...

    def misfit(self, columns: Collection[str]) -> Finding | None:
        """Return why a table with these columns cannot be read, or None when it can."""
        ...

    def content(self, row: Flat) -> Flat | Finding:
        """Return one row with its messages, or why there are none."""
        ...


@dataclass(frozen=True, slots=True)
class ByColumn:
    """One column for each message.

    Args:
        columns: Which is which.
        fix: What to do about a column that is not there.
    """

    columns: Columns
    fix: str = _IN_JOB

    @property
    def reads(self) -> frozenset[str]:
        """The mapped columns."""
        return frozenset(self._by_role.values())

    @property
    def _by_role(self) -> dict[str, str]:
        named = {role: getattr(self.columns, role) for role in _ROLES}
        return {role: column for role, column in named.items() if column is not None}

    def misfit(self, columns: Collection[str]) -> Finding | None:
        """Return an error when a mapped column is not there."""
        missing = (name for name in self._by_role.values() if name not in columns)
        return next((_no_column(name, columns, self.fix) for name in missing), None)

    def content(self, row: Flat) -> Flat | Finding:
        """Take each message from its column, word for word."""
        if misfit := self.misfit(row.keys()):
            return misfit
        texts: dict[str, str] = {}
        for role, column in self._by_role.items():
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
        """Return an error when a row of blanks cannot be rendered for want of a column."""
        tried = self._render(dict.fromkeys(columns, ""))
        # Any other failure may be due to the blanks, and is told on the row where it is real.
        return tried if isinstance(tried, Finding) and tried.code == "missing-column" else None

    def content(self, row: Flat) -> Flat | Finding:
        """Render every template."""
        texts = self._render(row)
        return texts if isinstance(texts, Finding) else _as_messages(texts)

    def _render(self, row: Flat) -> dict[str, str] | Finding:
        import jinja2  # noqa: PLC0415 - as in `of`

        texts: dict[str, str] = {}
        for role, template in self.templates.items():
            try:
                texts[role] = template.render(row)
            except jinja2.UndefinedError as failure:
                return self._undefined(role, str(failure), row)
            except Exception as failure:  # noqa: BLE001 - whatever the user's template raises is about the row
                return error(
                    "template-failed",
                    f"data.template.{role} cannot be rendered over this row ({failure}).",
                    "Correct the template, or the row.",
                )
        return texts

    def _undefined(self, role: str, why: str, row: Flat) -> Finding:
        absent = sorted(name for name in self.reads if name not in row and f"'{name}'" in why)
        if absent:
            return _no_column(absent[0], row.keys(), _IN_JOB)
        return error(
            "template-failed",
            f"data.template.{role} cannot be rendered over this row ({why}).",
            "Use `| default('')` where a value may be absent.",
        )


_PROMPT_AND_COMPLETION = ByColumn(
    Columns(user="prompt", assistant="completion"),
    fix="Say in the job file which columns hold the messages, e.g. "
    "`data: {columns: {user: QUESTION, assistant: ANSWER}}`, and check the job file.",
)
_PREFERENCES = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class ByUsualNames:
    """A table without a mapping: prompt and completion, or TRL's prompt, chosen and rejected.

    A column `system` beside them holds the system prompt.
    """

    @property
    def reads(self) -> frozenset[str]:
        """The columns of either kind."""
        return _PROMPT_AND_COMPLETION.reads | frozenset((*_PREFERENCES, SYSTEM))

    def misfit(self, columns: Collection[str]) -> Finding | None:
        """Return an error when the table is of neither kind."""
        if "completion" in columns or not {"chosen", "rejected"}.issubset(columns):
            return _PROMPT_AND_COMPLETION.misfit(columns)
        missing = (name for name in _PREFERENCES if name not in columns)
        return next((_no_column(name, columns, "Add it.") for name in missing), None)

    def content(self, row: Flat) -> Flat | Finding:
        """Return the messages of a pair, or the columns of a preference as they stand."""
        system = {SYSTEM: row[SYSTEM]} if SYSTEM in row else {}
        if "completion" in row or not {"chosen", "rejected"}.issubset(row):
            pair = _PROMPT_AND_COMPLETION.content(row)
            return pair if isinstance(pair, Finding) else {**pair, **system}
        return {**{name: row[name] for name in _PREFERENCES}, **system}


def mapping_of(data: Data | None) -> Mapping | Finding | None:
    """Return a job's mapping, what is wrong with it, or None when the job has none."""
    if data is None:
        return None
    if data.template:
        return ByTemplate.of(data.template)
    return ByColumn(data.columns) if data.columns else None


def turns(key: str, value: JsonValue, role: str) -> list[JsonValue] | Finding:
    """Return a value that is a text or a list of messages as messages.

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


def _as_messages(texts: dict[str, str]) -> Flat:
    messages: list[JsonValue] = [
        {"role": role, "content": text}
        for role, text in texts.items()
        if role != "system" or text.strip()
    ]
    return {"messages": messages}


def _no_column(name: str, columns: Collection[str], fix: str) -> Finding:
    near = nearest(name, columns)
    guess = f" Did you mean {near!r}?" if near else ""
    listed = ", ".join(repr(column) for column in columns)
    return error(
        "missing-column",
        f"there is no column {name!r}.{guess} There are: {listed or 'none'}.",
        fix,
    )
