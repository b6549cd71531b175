"""What must hold of every command, whatever it was given: `faults`, and `signature` of a crash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hostile.sandbox import Ended, TookTooLong

CONTRACT = frozenset({0, 1, 2, 3, 4, 5, 6, 130})
"""Exit codes that say something of what was given; 70 says that unitune has a bug."""
VERDICTS = frozenset({1, 3})
JUDGES = frozenset({"compare", "quickstart"})
"""The gate's codes, and the commands that have a gate."""
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys, but for tab and line feed."""
FRAME = re.compile(r'File "[^"]*?/(unitune\w*/[^"]+)", line \d+, in (\S+)')
ERROR = re.compile(r"^(?:[\w.]+\.)?([A-Z]\w+)(?::|$)", re.MULTILINE)
"""Of a traceback: a function of ours, and the line that names an exception."""


def faults(arguments: Sequence[str], ended: Ended) -> Iterator[str]:
    """Yield what is wrong with how a command ended."""
    if isinstance(ended.uncaught, TookTooLong):
        yield "hangs"
    elif ended.uncaught is not None:
        yield f"let {type(ended.uncaught).__name__} out"
    elif ended.code not in CONTRACT:
        yield f"exit {ended.code}: {signature(ended.err)}"
    elif "Traceback (most recent call last)" in ended.err:
        yield f"prints a traceback: {signature(ended.err)}"
    if ended.code in VERDICTS and arguments[:1] and arguments[0] not in JUDGES:
        yield f"exit {ended.code} without a gate"
    for name, text in (("output", ended.out), ("error", ended.err)):
        if found := CONTROLS.search(text):
            yield f"standard {name} has the control character {found[0]!r}"
    for path in ended.written_outside:
        yield f"writes outside its folder: {path}"


def signature(traceback: str) -> str:
    """Return the last exception of a traceback and the last function of ours above it."""
    frames, kinds = FRAME.findall(traceback), ERROR.findall(traceback)
    kinds = [kind for kind in kinds if kind not in ("Traceback", "This", "Error")]
    return f"{kinds[-1] if kinds else '?'} in {':'.join(frames[-1]) if frames else '?'}"
