"""Send odd files, rows, names, ledgers and answers to every command, and look for bugs.

    python benchmarks/hostile_inputs.py [--examples 300] [--kind KIND] [--seed 0]

Each kind (tests/hostile/kinds.py) gets so many examples, and each command a tenth of them. The exit
codes are counted. A fault is exit code 70, a traceback, an escape sequence, a hang, or a write
outside the folder; each is printed with its count, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "guard")]

import sitecustomize  # noqa: E402 - must run before anything that could connect
from hostile.attempts import Tally  # noqa: E402 - its folder is on the path only now
from hostile.command_lines import command_lines, commands  # noqa: E402
from hostile.kinds import KINDS  # noqa: E402
from hostile.throwing import table, throw_all  # noqa: E402


def main() -> int:
    """Send all inputs, print the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--kind", action="append", choices=sorted(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    assert sitecustomize
    tally = Tally()
    for kind in given.kind or KINDS:
        throw_all(kind, KINDS[kind](), given.examples, tally, given.seed)
    if not given.kind:
        for words, _ in commands():
            strategy = command_lines(only=words)
            throw_all("command lines", strategy, given.examples // 10, tally, given.seed)
    print(table(tally))
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
