"""Standard output and standard error, whatever they lead to: a closed pipe, a full disk, ASCII.

Who closes the pipe behind a command (``| head -1``) has seen enough of its result: it ends as
SIGPIPE would end it, with 141 in a shell, which is no verdict. Nobody is told of a failure of
standard error, and the work goes on: progress that nobody reads is no reason to stop. What an
encoding lacks is spelt in ASCII.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

CLOSED_PIPE = 141
"""128 and the number of SIGPIPE, as shells have it. The signal itself would end a command in the
middle of its files, and whenever a vendor hangs up."""
SPELT = "unitune-spelt"
SPELLING = str.maketrans(
    {
        "…": "...",
        "·": ".",
        "•": "*",
        "●": "o",
        "█": "#",
        "━": "-",
        "╸": "-",
        "╺": "-",
        "–": "-",  # noqa: RUF001
        "—": "-",
        "−": "-",  # noqa: RUF001
        "±": "+-",
        "→": "->",
        "«": "<",
        "»": ">",
        "“": '"',
        "”": '"',
        "‘": "'",  # noqa: RUF001
        "’": "'",  # noqa: RUF001
        "↵": "\\n",
        "\u202f": " ",
        "\ufffd": "?",
        **{chr(code): "*" for code in range(0x2800, 0x2900)},  # the spinner's dots
    }
)
"""What we draw and write with; anything else of a text becomes an escape such as ``\\u4e2d``."""


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(SPELLING)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(SPELT, _spell)


class _Watched:
    """A text stream whose failures are dealt with in one place."""

    def __init__(self, stream: TextIO, failed: Callable[[OSError], None]) -> None:
        self._stream, self._failed = stream, failed

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def watched() -> Generator[None]:
    """Have both streams bear whatever stands behind them.

    Raises:
        SystemExit: `CLOSED_PIPE`, when standard output was written to and nobody reads it.
        OSError: Standard output cannot be written; names it.
    """
    with ExitStack() as stack:
        # None: it was closed at the start.
        out, err = (
            stream or stack.enter_context(Path(os.devnull).open("w"))
            for stream in (sys.stdout, sys.stderr)
        )
        for stream in (out, err):
            if isinstance(stream, TextIOWrapper):
                cast("TextIOWrapper[Any]", stream).reconfigure(errors=SPELT)
        with (
            redirect_stdout(cast("TextIO", _Watched(out, output_failed))),
            redirect_stderr(cast("TextIO", _Watched(err, lambda _: _lead_nowhere(err)))),
        ):
            yield


def output_failed(error: OSError) -> NoReturn:
    """End the command whose standard output cannot be written.

    Raises:
        SystemExit: Nobody reads it any more.
        OSError: The same error, with a name for the place.
    """
    if sys.__stdout__ is not None:
        _lead_nowhere(sys.__stdout__)
    if isinstance(error, BrokenPipeError):
        raise SystemExit(CLOSED_PIPE) from error
    error.filename = "standard output"
    raise error


def _lead_nowhere(stream: TextIO) -> None:
    """Let what is still held for a stream, and all that follows, go where it meets no error."""
    with suppress(OSError, ValueError):  # a stream of a test has no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
