"""What others wrote and is run here, within limits: patterns, JSON Schemas, templates.

A pattern such as ``(a+)+$`` doubles its time with each letter, a schema whose parts refer to each
other likewise, a template may loop for days or format a text of gigabytes, and neither `re` nor
jsonschema nor Jinja2 has a limit. So all of them run in one separate process, which stops itself
after `SECONDS` of processor time or at a limit of memory, and is killed where it cannot.

Why no other engine: `regex` has a time-out, but reads some of Python's patterns otherwise (``{e}``,
``[[:alpha:]]``, what is a letter); RE2 knows no look-around and no back-references; and neither
bounds a schema.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from select import select
from typing import Any

from pydantic import JsonValue

from unitune.scorers.interface import Unscorable

# Of processor time for one text. Plain patterns take microseconds on the longest answers.
SECONDS = 1.0
OUT_OF_TIME = "OutOfTime"  # the `CheckFailed.kind` of what took too long
# Until a process that does not stop itself is killed: its start on a busy machine included
TIMEOUT_SECONDS = 20.0


class CheckFailed(Unscorable):
    """A pattern or schema cannot say anything of a text."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}"[:300])
        self.kind = kind
        self.message = message


class _Worker:
    """The process, started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._process, self._lock = None, threading.Lock()  # the process is the parent's

    def send(self, request: str) -> str:
        """Return the reply to a request; empty where there was none in time."""
        with self._lock:
            process = self._started()
            assert process.stdin, "it was started with pipes"
            assert process.stdout, "it was started with pipes"
            reply = ""
            with suppress(BrokenPipeError):
                process.stdin.write(request + "\n")
                process.stdin.flush()
                readable, _, _ = select([process.stdout], [], [], TIMEOUT_SECONDS)
                reply = process.stdout.readline() if readable else ""
            if not reply:
                self.close()
            return reply

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            program = Path(__file__).with_name("bounded_worker.py")
            self._process = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-P", str(program), str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="ascii",
            )
        return self._process


_WORKER = _Worker()


def broken_by(check: dict[str, JsonValue], text: str) -> str | None:
    """Return why a text does not pass a check; None where it does.

    Args:
        check: ``{"pattern": …}``, to be found somewhere in the text by Python's `re`, or
            ``{"schema": …}``, a JSON Schema for the text as JSON.
        text: An answer.

    Raises:
        CheckFailed: It took too long, or the check itself fails.
    """
    return _result(check, text)


def rendered(template: dict[str, JsonValue], values: Mapping[str, JsonValue]) -> str:
    """Return what a template of Jinja2 makes of some values, in a sandbox.

    Args:
        template: ``{"template": source}``, in which a name must be known. Or a chat template, with
            ``"today"``, a date, as transformers renders one.
        values: By the names that the template has for them.

    Raises:
        CheckFailed: It took too long or too much memory, or the template fails.
    """
    return _result(template, json.dumps(values)) or ""


def _result(check: dict[str, JsonValue], text: str) -> str | None:
    reply = _WORKER.send(json.dumps({"check": json.dumps(check), "text": text}))
    if not reply:
        raise CheckFailed(OUT_OF_TIME, f"no answer within {TIMEOUT_SECONDS:g} s")
    outcome: dict[str, Any] = json.loads(reply)
    if "failed" in outcome:
        raise CheckFailed(outcome["failed"], outcome["message"])
    return outcome["result"]
