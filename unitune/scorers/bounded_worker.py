"""Worker process of `unitune.scorers.bounded`: a script that imports nothing from unitune.

Requests are lines of ``{"check": …, "text": …}``; the check is JSON with a `pattern`, a `schema` or
a `template`. Replies are lines of ``{"result": …}``, null if the text passes, or ``{"failed":
"SchemaError", "message": …}``.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from functools import lru_cache, partial
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn, cast

Check = Callable[[str], str | None]
MOST_BYTES = 1 << 30  # memory limit; Jinja2 and jsonschema take a tenth of it
MOST_CHARACTERS = 1 << 24  # limit of a rendered text; the largest context is a fourth of it


class OutOfTime(BaseException):
    """The time limit was reached. A BaseException, so that no code in between catches it."""


def out_of_time(_: int, __: FrameType | None) -> None:
    """Interrupt the running check; `re` checks for signals while it searches."""
    raise OutOfTime


@lru_cache(maxsize=64)
def check_of(described: str) -> Check:
    """Return a check, compiled once."""
    what: Mapping[str, Any] = json.loads(described)
    if "schema" in what:
        return of_schema(what["schema"])
    if "template" in what:
        template = environment(what.get("today")).from_string(what["template"])
        return lambda values: of_size(template.render(json.loads(values)))
    pattern = re.compile(what["pattern"])
    return lambda text: None if pattern.search(text) else "not found"


def of_schema(schema: Any) -> Check:
    """Return a check of JSON text against a schema."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - an extra
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415 - a part of jsonschema

    kind = cast("Callable[..., Any]", validator_for(schema, Draft202012Validator))
    # An empty registry keeps jsonschema from fetching a $ref over the network.
    validator = kind(schema, registry=EMPTY_REGISTRY)
    validator.check_schema(schema)
    list(validator.iter_errors({}))  # resolves every $ref at the top

    def check(text: str) -> str | None:
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"not JSON: {error}"
        broken = next(validator.iter_errors(value), None)
        return None if broken is None else str(broken.message)

    return check


def of_size(text: str) -> str:
    """Return a text unless it is too long."""
    if len(text) > MOST_CHARACTERS:
        raise MemoryError(f"the rendered text has {len(text):,} characters")
    return text


def environment(today: str | None) -> Any:
    """Return a Jinja2 environment; with a date, that of chat templates.

    Source: transformers 5.24, utils/chat_template_utils.py.
    """
    import jinja2.ext  # noqa: PLC0415 - slow to import, and rarely needed
    import jinja2.sandbox  # noqa: PLC0415

    # Jinja2's filter sorts keys and escapes HTML. Prompts are plain text.
    tojson = partial(json.dumps, ensure_ascii=False)
    if today is None:
        plain: Any = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
        plain.filters["tojson"] = tojson
        return plain

    class Generation(jinja2.ext.Extension):
        """Parser that ignores ``{% generation %}``, which marks answers for training."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja2 declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    made: Any = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals.update(raise_exception=refuse, strftime_now=date.fromisoformat(today).strftime)
    return made


def reply_to(line: str, seconds: float) -> Mapping[str, str | None]:
    """Return the reply to one request."""
    request = json.loads(line)
    if '"schema"' in request["check"]:
        import_module("jsonschema")  # not counted in the time of the first check
    if '"template"' in request["check"]:
        import_module("jinja2.sandbox")
    try:
        set_timer(seconds)
        try:
            return {"result": check_of(request["check"])(request["text"])}
        finally:
            set_timer(0)
    except OutOfTime:
        return {"failed": "OutOfTime", "message": f"the check took longer than {seconds:g} s"}
    except Exception as error:  # noqa: BLE001 - reported to the other process
        names = [kind.__name__ for kind in type(error).__mro__]
        name = "Unresolvable" if "Unresolvable" in names else names[0]
        message = getattr(error, "message", None) or str(error) or "too much memory"
        return {"failed": name, "message": message}


def set_timer(seconds: float) -> None:
    """Limit the processor time; on Windows the other process ends this one after a longer time."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, out_of_time)
    with suppress(ImportError, ValueError, OSError):  # not every system supports this limit
        import_module("resource").setrlimit(import_module("resource").RLIMIT_AS, (MOST_BYTES,) * 2)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(reply_to(line, float(sys.argv[1]))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
