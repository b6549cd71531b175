"""Turn flat rows into messages by column, by template or by the usual names.

`check_header` and `content` raise `BadRow`. Columns outside `reads` stay custom keys of the row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias

from pydantic import JsonValue

from unitune.data.example import Example
from unitune.data.records import BadRow, Flat, bad
from unitune.data.shapes import Shape, shape_of
from unitune.files.validation import did_you_mean
from unitune.job.job import Columns, Data, Template
from unitune.scorers.bounded import OUT_OF_TIME, CheckFailed, rendered
from unitune.text import clip

_ROLES = ("system", "user", "assistant")
_OPTIONAL = frozenset(Example.model_fields) - {"messages"}
_IN_JOB = "Correct the name under `data` in the job file."
_NAME_THEM = (
    "Name the columns of the messages in the job file, e.g. `data: {columns: {user: QUESTION, "
    "assistant: ANSWER}}`; `unitune init --data FILE` writes such a file."
)


class ByColumn:
    """Mapping of one column to each message, unchanged."""

    def __init__(self, columns: Columns) -> None:
        named = {role: getattr(columns, role) for role in _ROLES}
        self._columns = {role: column for role, column in named.items() if column is not None}
        self.reads = frozenset(self._columns.values())

    def check_header(self, columns: Collection[str]) -> None:
        _require(self._columns.values(), columns, _IN_JOB)

    def content(self, row: Flat) -> Flat:
        self.check_header(row)
        texts: dict[str, str] = {}
        for role, column in self._columns.items():
            value = row[column]
            if not isinstance(value, str):
                raise bad(
                    "not-a-text",
                    f"column {column!r} holds {clip(value)}, which is not a string.",
                    "Quote it, or use `data.template`, which accepts any value.",
                )
            texts[role] = value
        return _as_messages(texts)


class ByTemplate:
    """Mapping by one Jinja2 template per message, rendered within limits."""

    def __init__(self, template: Template) -> None:
        import jinja2.meta  # noqa: PLC0415 - most rows need no template

        environment = jinja2.Environment()  # noqa: S701 - only parses
        self._templates: dict[str, str] = {}
        self._hopeless: CheckFailed | None = None
        names: set[str] = set()
        for role in _ROLES:
            source: str | None = getattr(template, role)
            if source is None:
                continue
            try:
                names |= jinja2.meta.find_undeclared_variables(environment.parse(source))
                self._templates[role] = source
            except jinja2.TemplateSyntaxError as failure:
                where = f"data.template.{role}, line {failure.lineno} of the template"
                what = f"{where}: {failure.message}"
                raise bad("broken-template", what, "Write columns as {{ name }}.") from failure
        self.reads = frozenset(names)

    def check_header(self, columns: Collection[str]) -> None:
        """Refuse columns if a template needs another one, even for a row of blanks."""
        try:
            self.content(dict.fromkeys(columns, ""))
        except BadRow as problem:
            # Other failures may come from the blanks and are reported at their row.
            if problem.findings[0].code == "missing-column":
                raise

    def content(self, row: Flat) -> Flat:
        texts: dict[str, str] = {}
        for role, template in self._templates.items():
            try:
                if self._hopeless:  # the next row would take as long
                    raise self._hopeless
                texts[role] = rendered({"template": template}, row)
            except CheckFailed as failure:
                fix = "Correct the template or the row."
                if failure.kind in (OUT_OF_TIME, MemoryError.__name__):
                    self._hopeless = failure
                if failure.kind == "UndefinedError":
                    fix = "Use `| default('')` where a value may be absent."
                    absent = (n for n in sorted(self.reads - set(row)) if f"'{n}'" in str(failure))
                    _require(absent, row, _IN_JOB)
                why = failure.message
                what = f"data.template.{role} cannot be rendered for this row ({why})."
                raise bad("template-failed", what, fix) from failure
        return _as_messages(texts)


class ByUsualNames:
    """Mapping for tables whose columns have the usual names; blank optional cells are ignored."""

    reads: frozenset[str] = frozenset()

    def __init__(self, shape: Shape | None = None) -> None:
        self._shape = shape

    def check_header(self, columns: Collection[str]) -> None:
        if self._shape is None and shape_of(dict.fromkeys(columns, "")) is None:
            names = ("chosen", "rejected") if "chosen" in columns else ("completion",)
            _require(("prompt", *names), columns, _NAME_THEM)

    def content(self, row: Flat) -> Flat:
        return {key: value for key, value in row.items() if value or key not in _OPTIONAL}


Mapping: TypeAlias = ByColumn | ByTemplate | ByUsualNames


def mapping_of(data: Data | None) -> Mapping | None:
    """Return a job's mapping, or None; raises `BadRow` for a broken template."""
    if data and data.template:
        return ByTemplate(data.template)
    return ByColumn(data.columns) if data and data.columns else None


def _as_messages(texts: dict[str, str]) -> Flat:
    messages: list[JsonValue] = [
        {"role": role, "content": text}
        for role, text in texts.items()
        if role != "system" or text.strip()
    ]
    return {"messages": messages}


def _require(names: Iterable[str], columns: Collection[str], fix: str) -> None:
    for name in names:
        if name not in columns:
            listed = ", ".join(map(repr, columns)) or "none"
            guess = did_you_mean(name, columns)
            what = f"column {name!r} does not exist.{guess} The columns are: {listed}."
            raise bad("missing-column", what, fix)
