"""Patterns and JSON Schemas from jobs, applied within a time limit: `broken_by`.

A pattern such as ``(a+)+$`` doubles its time with each letter, a schema whose parts refer to each
other likewise, and neither `re` nor jsonschema has a limit. So both run in one separate process for
all scorers, which stops itself after `SECONDS` of processor time, and is killed where it cannot.

Why no other engine: `regex` has a time-out, but reads some of Python's patterns otherwise (``{e}``,
``[[:alpha:]]``, what is a letter); RE2 knows no look-around and no back-references; and neither
bounds a schema.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from select import select
from typing import Any

from pydantic import JsonValue

from unitune.scorers.interface import Unscorable

SECONDS = 1.0
"""Of processor time for one text. Plain patterns take microseconds on the longest answers."""
TIMEOUT_SECONDS = 20.0
"""Until a process that does not stop itself is killed: its start on a busy machine included."""


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
    reply = _WORKER.send(json.dumps({"check": json.dumps(check), "text": text}))
    if not reply:
        raise CheckFailed("OutOfTime", f"no answer within {TIMEOUT_SECONDS:g} s")
    verdict: dict[str, Any] = json.loads(reply)
    if "failed" in verdict:
        raise CheckFailed(verdict["failed"], verdict["message"])
    return verdict["why"]
