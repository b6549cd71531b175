"""Run untrusted patterns, JSON Schemas and templates within limits of time and memory.

They run in a separate process, because `re`, jsonschema and Jinja2 have no limits: a pattern such
as ``(a+)+$`` could run for days. Other engines (`regex`, RE2) read Python's patterns differently.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from unitune.files.system import after_fork
from unitune.scorers.interface import Unscorable

# CPU time for one text. Plain patterns take microseconds on the longest answers.
SECONDS = 1.0
OUT_OF_TIME = "OutOfTime"  # `CheckFailed.kind` after a time-out
# Time until a process that does not stop itself is killed, including a slow start
TIMEOUT_SECONDS = 20.0


class CheckFailed(Unscorable):
    """A pattern, schema or template failed on a text."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}"[:300])
        self.kind = kind
        self.message = message


class _Worker:
    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)
        after_fork(self._forget)

    def _forget(self) -> None:
        self._process, self._lock = None, threading.Lock()  # the process belongs to the parent

    def send(self, request: str) -> str:
        with self._lock:
            process = self._started()
            assert process.stdin, "the process was started with pipes"
            assert process.stdout, "the process was started with pipes"
            reply = ""
            late = threading.Timer(TIMEOUT_SECONDS, process.kill)
            late.daemon = True
            late.start()
            with suppress(OSError):  # the process has ended
                process.stdin.write(request + "\n")
                process.stdin.flush()
                reply = process.stdout.readline()
            late.cancel()
            if not reply:
                self.close()
            return reply

    def close(self) -> None:
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
    """Return why a text fails a check, or None.

    Args:
        check: ``{"pattern": …}``, searched anywhere by Python's `re`, or ``{"schema": …}``, a JSON
            Schema for the text as JSON.
        text: Answer to check.

    Raises:
        CheckFailed: The check took too long or failed.
    """
    return _result(check, text)


def rendered(template: dict[str, JsonValue], values: Mapping[str, JsonValue]) -> str:
    """Render a Jinja2 template in a sandbox.

    Args:
        template: ``{"template": source}``; unknown names are errors. With ``"today"``, a date, the
            template is rendered as a chat template, as transformers does.
        values: Values by name.

    Raises:
        CheckFailed: Rendering took too long or too much memory, or failed.
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
