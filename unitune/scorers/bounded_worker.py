"""The process behind `unitune.scorers.bounded`: a script that imports nothing of unitune.

Reads a request a line, ``{"check": …, "text": …}``, where the check is a text of JSON that holds a
`pattern` or a `schema`. Writes a reply a line: ``{"why": null}`` where the text passes,
``{"why": "…"}`` where it does not, and ``{"failed": "SchemaError", "message": "…"}`` where that
cannot be decided.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from types import FrameType
from typing import Any, cast

Check = Callable[[str], str | None]


class OutOfTime(BaseException):
    """Not an `Exception`, so that no code in between handles it."""


def out_of_time(_: int, __: FrameType | None) -> None:
    """End what runs; `re` looks for signals as it searches."""
    raise OutOfTime


@lru_cache(maxsize=64)
def check_of(described: str) -> Check:
    """Return a check, made once."""
    what: Mapping[str, Any] = json.loads(described)
    if "schema" in what:
        return of_schema(what["schema"])
    pattern = re.compile(what["pattern"])
    return lambda text: None if pattern.search(text) else "not found"


def of_schema(schema: Any) -> Check:
    """Return what says whether a text is JSON that a schema allows."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - an extra
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415 - a part of jsonschema

    kind = cast("Callable[..., Any]", validator_for(schema, Draft202012Validator))
    # An empty registry keeps jsonschema from fetching a $ref over the network.
    validator = kind(schema, registry=EMPTY_REGISTRY)
    validator.check_schema(schema)
    list(validator.iter_errors({}))  # meets every $ref that stands at the top

    def check(text: str) -> str | None:
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"not JSON: {error}"
        broken = next(validator.iter_errors(value), None)
        return None if broken is None else str(broken.message)

    return check


def reply_to(line: str, seconds: float) -> Mapping[str, str | None]:
    """Return the reply to one request."""
    request = json.loads(line)
    if '"schema"' in request["check"]:
        import_module("jsonschema")  # not within the time of the first check
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            return {"why": check_of(request["check"])(request["text"])}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except OutOfTime:
        return {"failed": "OutOfTime", "message": f"it took longer than {seconds:g} s"}
    except Exception as error:  # noqa: BLE001 - reported to the other process
        names = [kind.__name__ for kind in type(error).__mro__]
        name = "Unresolvable" if "Unresolvable" in names else names[0]
        return {"failed": name, "message": getattr(error, "message", None) or str(error)}


def main() -> None:
    """Reply until there are no more requests."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process
    signal.signal(signal.SIGPROF, out_of_time)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(reply_to(line, float(sys.argv[1]))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
