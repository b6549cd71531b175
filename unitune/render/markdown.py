"""Draw documents as Markdown for CI: the summary of a step, the comment on a pull request.

The first line is a hidden comment that identifies the job, so the next run can replace the comment.
Names and models' texts are escaped, so they create no markup, mentions or links. The whole stays
below GitHub's limit; the last parts are omitted first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from unitune.render.sections import (
    Bullets,
    Cell,
    Document,
    Facts,
    Findings,
    Folded,
    Part,
    Section,
    Table,
    text_of,
)

# GitHub allows 65,536 characters in a comment. Bytes are never fewer, and an action adds links.
MAX_BYTES = 60_000
MAX_ROWS = 30  # maximum rows, facts and notes of each part
NAME_CHARACTERS = 60
SENTENCE_CHARACTERS = 400
MARKS = {"good": "\N{LARGE GREEN CIRCLE} ", "doubtful": "\N{LARGE YELLOW CIRCLE} "}
MARKS["bad"] = "\N{LARGE RED CIRCLE} "

_MARKUP = re.compile(r"([\\`*_\[\]|~])")
# Where GitHub detects a mention, an issue or an address; a zero-width space after it prevents that.
_LINKS = re.compile(r"[@#]|(?<=\w)://|(?<=www)\.", re.IGNORECASE)


def render(document: Document, command: str, more: Iterable[str] = ()) -> str:
    """Return a document as Markdown.

    Args:
        document: Document whose first `about` is the name of its job.
        command: Command that the marker names.
        more: Further parts for the end, already escaped.
    """
    parts = [marker(command, document.about[0]), *_parts(document), *more]
    while len("\n\n".join(parts).encode()) >= MAX_BYTES:
        parts.pop()
    return "\n\n".join(parts) + "\n"


def _parts(document: Document) -> Iterator[str]:
    yield f"### {escaped(document.title)}"
    if document.text:
        yield " ".join(map(escaped, re.split(r"(?<=\.) (?=[A-Z])", document.text)))
    if document.state is not None:
        mark = MARKS.get(document.state.tone, "")
        yield f"{mark}**{escaped(document.state.text)}** {escaped(document.state.note)}".rstrip()
    if document.notes:
        yield bullets(document.notes)
    for section in document.sections:
        if text := "\n\n".join(filter(None, map(_part, section.parts))):
            yield _section(section, text)
    if document.figures:
        yield f"<sub>{escaped('; '.join(document.figures))}</sub>"


def _section(section: Section, text: str) -> str:
    if section.on_page:
        return folded(section.title, text)
    return f"**{escaped(section.title)}**\n\n{text}" if section.title else text


def folded(title: str, text: str) -> str:
    """Return a Markdown text that is folded below its title."""
    return f"<details><summary>{_inert(title)}</summary>\n\n{text}\n\n</details>"


def _part(part: Part) -> str:
    text = ""
    match part:
        case str():
            text = escaped(part)
        case Facts(rows):
            width = 3 if any(fact.meaning for fact in rows) else 2
            text = _lines([""] * width, ["---"] * width, (fact[:width] for fact in rows))
        case Table() if part.rows:
            shown = [at for at, each in enumerate(part.heads) if not (each.on_page or each.axis)]
            columns = [part.heads[at] for at in shown]
            rules = ["--:" if column.number else "---" for column in columns]
            cells = [[text_of(row[at]) for at in shown] for row in part.rows]
            table = _lines([column.title for column in columns], rules, cells)
            text = f"{escaped(part.caption)}\n\n{table}" if part.caption else table
        case Bullets(items):
            text = bullets(items)
        case Findings(findings):
            text = bullets([Cell(each.severity, str(each), strong=True) for each in findings])
        case Folded(title, parts):
            text = folded(title, "\n\n".join(filter(None, map(_part, parts))))
        case _:
            pass
    return text


def _lines(
    titles: Iterable[str], rules: Iterable[str], rows: Iterable[Iterable[str | Cell]]
) -> str:
    listed = list(rows)
    lines = [[escaped(title, NAME_CHARACTERS) for title in titles], [*rules]]
    for cells in listed[:MAX_ROWS]:
        name, *others = map(text_of, cells)
        lines.append([_cell(name, NAME_CHARACTERS), *map(_cell, others)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    more = len(listed) - MAX_ROWS
    return f"{table}\n\nand {more:,} more" if more > 0 else table


def _cell(cell: Cell, limit: int = SENTENCE_CHARACTERS) -> str:
    text = escaped(cell.text, limit)
    shown = f"**{text}**" if text and (cell.strong or cell.tone in ("accent", "bad")) else text
    return f"{shown} {escaped(cell.note)}".strip()


def bullets(items: Iterable[str | Cell]) -> str:
    """Return a list of sentences."""
    listed = [f"- {_cell(text_of(item))}" for item in items]
    more = len(listed) - MAX_ROWS
    return "\n".join([*listed[:MAX_ROWS], *([f"- and {more:,} more"] if more > 0 else [])])


def marker(command: str, job: str) -> str:
    """Return the line that identifies the comment of a command on a job."""
    name = re.sub("[^a-z0-9-]", "-", job)[:40]
    return f"<!-- unitune {command}: {name} -->"


def escaped(text: str, limit: int = SENTENCE_CHARACTERS) -> str:
    """Return a text escaped for Markdown, on one line."""
    return _MARKUP.sub(r"\\\1", _inert(text, limit))


def _inert(text: str, limit: int = SENTENCE_CHARACTERS) -> str:
    line = " ".join(clipped(text, limit).split())
    return escape(_LINKS.sub(lambda match: f"{match[0]}\u200b", line), quote=False)


def code(text: str, limit: int) -> str:
    """Return a text as HTML code, in which GitHub detects no mentions or links."""
    lines = escape(clipped(text, limit)).splitlines()
    return f"<code>{'<br>'.join(lines)}</code>" if lines else ""


def clipped(text: str, limit: int) -> str:
    """Return the beginning of a text, without control characters."""
    begin = text[:limit].replace("\r\n", "\n")
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in begin)
    return f"{shown}\u2026 ({len(text) - limit:,} characters more)" if len(text) > limit else shown
