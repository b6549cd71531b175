"""Log launches, requests and evaluations under ``unitune.*``, without keys or rows.

Records carry the fields of `FIELDS` that apply, as attributes. Keys are removed at every level.
Texts of rows, answers and vendors' messages are logged at DEBUG only. A library prints nothing
until the application sets a handler; `print_logs` does so for our own processes.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from unitune.errors import UserError
from unitune.security.redaction import one_line, redacted

# `log_fields` sets run_id and vendor; the others are arguments of a message
FIELDS = ("run_id", "vendor", "job_id", "request_id", "status", "attempt")

logging.getLogger("unitune").addHandler(logging.NullHandler())
_fields: ContextVar[dict[str, str]] = ContextVar("unitune_log_fields")


def current_fields() -> dict[str, str]:
    """Return the fields of records that are written now."""
    return _fields.get({})


@contextmanager
def log_fields(**fields: str) -> Generator[None]:
    """Add fields, such as ``run_id``, to all records of the body."""
    before = _fields.set({**current_fields(), **fields})
    try:
        yield
    finally:
        with suppress(ValueError):  # an abandoned stream is closed in another context
            _fields.reset(before)


def cause_of(error: BaseException | None) -> dict[str, object]:
    """Return the status and request id of a vendor's failure, as fields."""
    return {name: getattr(error, name, None) for name in ("status", "request_id")}


class Log:
    """Logger of a module, which adds the current fields and removes keys."""

    def __init__(self, module: str) -> None:
        self._logger = logging.getLogger(module.replace("unitune_", "unitune.", 1))

    def debug(self, message: str, *values: object, **fields: object) -> None:
        """Log details, which may include texts of rows."""
        self._write(logging.DEBUG, message, values, fields)

    def info(self, message: str, *values: object, **fields: object) -> None:
        """Log a step of a launch or an evaluation."""
        self._write(logging.INFO, message, values, fields)

    def warning(self, message: str, *values: object, **fields: object) -> None:
        """Log something that the user may have to act on."""
        self._write(logging.WARNING, message, values, fields)

    def _write(
        self, level: int, message: str, values: tuple[object, ...], fields: dict[str, object]
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        known = {name: value for name, value in fields.items() if value is not None}
        extra = {name: _safe(value) for name, value in {**current_fields(), **known}.items()}
        self._logger.log(level, message, *map(_safe, values), extra=extra, stacklevel=3)


def _safe(value: object) -> object:
    return value if isinstance(value, int | float) else redacted(str(value))


class _Lines(logging.Formatter):
    """One line per record, with its fields at the end."""

    def format(self, record: logging.LogRecord) -> str:
        text = one_line(super().format(record))
        known = {name: vars(record)[name] for name in FIELDS if name in vars(record)}
        return " ".join([text, *(f"{name}={value}" for name, value in known.items())])


class _StandardError(logging.Handler):
    """Handler that looks up standard error at each record, because it may be replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # a full disk or a closed stream ends no training
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201 - not for a console


LEVEL = "UNITUNE_LOG"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def print_logs() -> None:
    """Print records to standard error from the level in ``UNITUNE_LOG`` (default: warning).

    Raises:
        UserError: The variable names another level.
    """
    given = os.environ.get(LEVEL, "")
    if given and given.lower() not in LEVELS:
        raise UserError(f"{LEVEL} is {given!r}. Set it to one of: {', '.join(LEVELS)}.")
    handler = _StandardError()
    handler.setFormatter(_Lines(FORMAT) if given else logging.Formatter("%(message)s"))
    own = logging.getLogger("unitune")
    own.handlers = [handler]
    own.setLevel(LEVELS[given.lower() or "warning"])
