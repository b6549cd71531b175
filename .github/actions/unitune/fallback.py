"""Print a summary in Markdown for a command that wrote none.

Usage: ``fallback.py COMMAND FILE CODE OUTPUT-FILE``. The fence of the output is longer than any
fence in it, so that it always stays plain text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LONGEST = 20_000
"""Number of characters kept from the end of the output."""


def main(command: str, file: str, code: str, output: str) -> None:
    """Print the text."""
    text = Path(output).read_text(encoding="utf-8", errors="replace")[-LONGEST:]
    longest = max(map(len, re.findall("~+", text)), default=0)
    fence = "~" * max(4, longest + 1)
    print(f"**unitune {command} {file}** ended with exit code {code}.\n")
    print(f"{fence}text\n{text.rstrip()}\n{fence}")


if __name__ == "__main__":
    main(*sys.argv[1:])
