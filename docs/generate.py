"""Write the reference pages from the code: ``python docs/generate.py``.

The text between the lines ``<!-- generated: NAME ARGUMENTS -->`` and ``<!-- end -->`` of a page is
replaced by the result of the function NAME. The pages are committed, and a test compares them with
the code. `docs/llms.py` writes ``llms.txt``, `docs/docstrings.py` the reference of the Python API.
"""

from __future__ import annotations

import inspect
import json
import re
import runpy
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

import unitune
from unitune import errors
from unitune.backends import registry
from unitune.decision.rules import RULES
from unitune.documents import Spec
from unitune.job.job import Job
from unitune.main import app
from unitune.scorers import ENTRIES, Entry, Scorer

DOCS = Path(__file__).parent
PART = re.compile(
    r"^(<!-- generated: (?P<name>[\w-]+)(?P<arguments>[ \w./]*) -->)\n.*?^<!-- end -->$",
    re.DOTALL | re.MULTILINE,
)
DOCUMENTED = runpy.run_path(str(DOCS / "docstrings.py"))["documented"]
STYLE = re.compile(r"\[/?(?:dim|bold|italic)\]")


def generated(page: str) -> str:
    """Return the text of a page with its generated parts updated."""

    def part(match: re.Match[str]) -> str:
        text = GENERATED[match["name"]](*match["arguments"].split())
        return f"{match[1]}\n\n{text.strip()}\n\n<!-- end -->"

    return PART.sub(part, page)


def file(path: str, section: str = "", title: str = "") -> str:
    """Return a file of the repository, or its part between ``# [start:SECTION]`` and ``[end:…]``.

    Args:
        path: Path relative to the repository.
        section: Name of the part; empty or ``all`` for the whole file.
        title: Title of the block on the site.
    """
    text = (DOCS.parent / path).read_text(encoding="utf-8")
    if section not in {"", "all"}:
        text = text.split(f"# [start:{section}]\n", 1)[1].split(f"# [end:{section}]", 1)[0]
        text = textwrap.dedent(text)
    language = {".py": "python"}.get(Path(path).suffix, Path(path).suffix[1:])
    heading = f' title="{title}"' if title else ""
    return f"```{language}{heading}\n{text.strip()}\n```"


def python(*names: str) -> str:
    """Return the signatures and docstrings of public names of `unitune`, or of dotted paths."""
    return "\n".join(line for name in names for line in DOCUMENTED(name))


def command_line() -> str:
    """Return each command with its arguments, options and examples."""
    return "\n".join(_commands("unitune", typer.main.get_command(app)))


def job_file() -> str:
    """Return each part of a job file with its keys, types, defaults and descriptions."""
    schema = Job.model_json_schema()
    parts = {"Job": schema} | schema["$defs"]
    return "\n".join(line for name in _reachable(parts) for line in _part(name, parts))


def job_parts(namespace: str = "") -> str:
    """Return the parts of a job in `unitune` or a namespace of it, with their summaries."""
    package = getattr(unitune, namespace) if namespace else unitune
    public = ((name, getattr(package, name)) for name in package.__all__)
    return _table(
        ("class", "what it is"),
        (
            (f"[`{name}`](job-file.md#{name.lower()})", _cell((part.__doc__ or "").split("\n")[0]))
            for name, part in public
            if inspect.isclass(part) and issubclass(part, Spec) and part not in NOT_PARTS
        ),
    )


def scorers() -> str:
    """Return the scorers with their descriptions."""
    return _table(
        ("scorer", "what it scores"),
        (
            (f"[`{name}`](job-file.md#{entry.__name__.lower()})", _cell(entry.words()))
            for name, entry in sorted(ENTRIES.items())
        ),
    )


def model_families() -> str:
    """Return the results of each model family from tests/support/model_families.py."""
    path = DOCS / "reference" / "model-families.json"
    table: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    columns = ("plan", "train", "resume", "peft", "merge", "serve", "gguf")
    return _table(
        ("model type", "models", *columns),
        (
            (f"`{name}`", row["models"], *(_cell(row.get(each, "")) for each in columns))
            for name, row in table.items()
        ),
    )


def decision_rules() -> str:
    """Return the rules of a decision in their order, with their conditions."""
    return _table(
        ("rule", "applies when"),
        ((f"`{rule.__name__}`", _cell(rule.__doc__ or "")) for rule in RULES),
    )


def backends() -> str:
    """Return the backends with their methods and number of models."""
    offers = (registry.offer(name) for name in registry.offer_names())
    return _table(
        ("backend", "methods", "models", "what it is"),
        (
            (
                f"`{offer.name}`",
                ", ".join(offer.methods) or "-",
                str(len(offer.models)),
                offer.summary,
            )
            for offer in offers
        ),
    )


def exit_codes() -> str:
    """Return the exit codes with the errors that cause them."""
    by_code: dict[int, list[str]] = {}
    for name, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, errors.UnituneError) and error is not errors.UnituneError:
            by_code.setdefault(error.exit_code, []).append(f"[`{name}`](python.md#{name.lower()})")
    return _table(
        ("code", "meaning", "errors"),
        ((f"**{code}**", text, ", ".join(by_code.get(code, []))) for code, text in CODES.items()),
    )


def exit_help() -> str:
    """Return what to do for each exit code."""
    return _table(
        ("code", "meaning", "what to do"),
        ((f"**{code}**", text, HELP[code]) for code, text in CODES.items()),
    )


def error_codes() -> str:
    """Return the errors with their codes."""
    found = inspect.getmembers(errors, inspect.isclass)
    return _table(
        ("code", "exit code", "error"),
        (
            (
                f"`{error.code}`",
                GATE.get(error, str(error.exit_code)),
                _cell((error.__doc__ or "").partition("\n")[0]),
            )
            for _, error in found
            if issubclass(error, errors.UnituneError) and error is not errors.UnituneError
        ),
    )


def findings() -> str:
    """Return the findings of the code with their messages."""
    rows = runpy.run_path(str(DOCS / "messages.py"))["findings"]()
    return _table(
        ("code", "severity", "message"),
        ((f"`{code}`", severity, _cell(text, "<br>")) for code, severity, text in rows),
    )


GATE = {errors.GateNotPassed: "1, 3 or 4"}  # the gate's own
NOT_PARTS = (Job, Entry, Scorer)
CODES = {
    0: "success; the gate is met",
    1: "the gate failed on evidence",
    2: "usage, configuration or data must change",
    3: "inconclusive: not enough evidence for either answer",
    4: "the vendor or the machine failed; run the same command to continue",
    5: "integrity: a leak, a mismatch or a changed plan",
    6: "budget exceeded, or a price that is unknown or stale",
    70: "a bug in unitune, with a traceback",
    130: "interrupted; can be resumed",
    141: "standard output was closed early, as by `| head -1`",
}
HELP = {
    0: "nothing",
    1: "read the report: the cases that were lost are listed first",
    2: "correct what the message names; run `unitune check` or `unitune COMMAND --help`",
    3: "add test cases; the report shows how many",
    4: "run the same command again, it continues; `unitune doctor` shows the connection",
    5: "remove the leak, or restore the file that changed; nothing was evaluated",
    6: "raise the budget, add a price (`--price`), or run `unitune prices refresh`",
    70: "report it with the traceback",
    130: "run the same command again to continue",
    141: "nothing, if the reader closed the pipe on purpose",
}
GENERATED = {
    "file": file,
    "python": python,
    "command-line": command_line,
    "job-file": job_file,
    "job-parts": job_parts,
    "scorers": scorers,
    "backends": backends,
    "decision-rules": decision_rules,
    "model-families": model_families,
    "exit-codes": exit_codes,
    "exit-help": exit_help,
    "error-codes": error_codes,
    "findings": findings,
}


def _commands(path: str, command: Any) -> Iterator[str]:
    for name, child in getattr(command, "commands", {}).items():
        if child.hidden:
            continue
        yield from _command(f"{path} {name}", child)
        yield from _commands(f"{path} {name}", child)


def _command(path: str, command: Any) -> Iterator[str]:
    text = STYLE.sub("", inspect.cleandoc(command.help or ""))
    paragraphs = text.split("\n\n")
    examples = [part for part in paragraphs if part.startswith("$ ")]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join([path, *map(_argument, arguments)])
    yield f"## `{path}`\n"
    yield from (f"{part}\n" for part in paragraphs if part not in examples)
    yield f"```text\n{usage}{' [OPTIONS]' if options else ''}\n```\n"
    for example in examples:
        lines = (line.removeprefix("$ ") for line in example.splitlines())
        yield "```bash\n" + "\n".join(lines) + "\n```\n"
    rows = [(_option(p), _cell(p.help or "")) for p in (*arguments, *options) if p.name != "help"]
    if rows:
        yield _table(("argument or option", "meaning"), rows) + "\n"


def _option(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_argument(parameter)}`"
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    return ", ".join(f"`{name}{value}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.nargs == 1 else f"{name}..."


def _reachable(parts: Mapping[str, Any]) -> list[str]:
    """Return the names of the parts in the order of their first use in a job file."""
    order = ["Job"]
    for name in order:
        own = {key: value for key, value in parts[name].items() if key != "$defs"}
        order += dict.fromkeys(each for each in _references(own) if each not in order)
    return [name for name in order if name != "JsonValue"]


def _references(schema: object) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
        return own + [name for value in schema.values() for name in _references(value)]
    return (
        [name for value in schema for name in _references(value)]
        if isinstance(schema, list)
        else []
    )


def _part(name: str, parts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a part; a key without a description gets that of the part it refers to."""
    schema = parts[name]
    yield f"## {name}\n"
    yield _cell(schema.get("description", "").partition("\n\nExample")[0], " ") + "\n"
    required = schema.get("required", [])
    rows = [
        (
            f"`{key}`",
            _kind(field) + ("<br>required" if key in required else _default(field)),
            _cell(field.get("description") or _summary(field, parts)),
        )
        for key, field in _keys(schema).items()
    ]
    if rows:
        yield _table(("key", "value", "meaning"), rows) + "\n"


def _summary(field: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    names = [name for name in _references(field) if name in parts]
    return parts[names[0]].get("description", "").partition("\n")[0] if len(names) == 1 else ""


def _keys(schema: Mapping[str, Any]) -> dict[str, Any]:
    return schema.get("properties", {})


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "any" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if literals := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " \\| ".join(f"`{value}`" for value in literals)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " \\| ".join(dict.fromkeys(_kind(choice) for choice in choices))
    if schema.get("type") == "array":
        is_sweep = schema.get("uniqueItems")
        return "list of these" if is_sweep else f"list of {_kind(schema.get('items', {}))}"
    if isinstance(values := schema.get("additionalProperties"), dict):
        return f"map to {_kind(values)}"
    return str(schema.get("type", "any"))


def _default(field: Mapping[str, Any]) -> str:
    default = None if isinstance(field.get("default"), dict) else field.get("default")
    return "" if default in (None, "", [], {}) else f"<br>default `{default}`"


def _cell(text: str, line_break: str = "<br>") -> str:
    lines = STYLE.sub("", text).strip().replace("|", "\\|").replace("[", "\\[").split("\n\n")
    return line_break.join(" ".join(line.split()) for line in lines)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ["--"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Update the generated parts of every page, and ``llms.txt``."""
    for page in DOCS.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(generated(text), encoding="utf-8")
    runpy.run_path(str(DOCS / "llms.py"))["main"]()


if __name__ == "__main__":
    main()
