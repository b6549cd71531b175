"""Poll every hosted vendor while it leaves out fields at random, and count crashes.

    python benchmarks/left_out_fields.py [--backend NAME] [--polls 1000] [--seed 0] [--any]

Each backend uses its vendor's real SDK with a server on loopback, whose answers omit, or set to
null, three of ten fields that the SDK's types call optional. With --any it is one field of six,
optional or not, as with servers that only imitate a vendor. Every poll, list, search, import,
checkpoint list and answer counts. The exit code is 0 when nothing crashed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.sparse_vendors import BATCHED, STAGES

from unitune.testing.omissions import Omissions

KINDS = {"trainings": STAGES, "batches": BATCHED}


def main() -> int:
    """Poll all vendors, print the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", action="append", choices=sorted({*STAGES, *BATCHED}))
    parser.add_argument("--polls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--any", action="store_true")
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return max(
        polled(name, kind, given)
        for kind, vendors in KINDS.items()
        for name in vendors
        if not given.backend or name in given.backend
    )


def polled(name: str, kind: str, given: argparse.Namespace) -> int:
    """Poll one vendor and print the result."""
    share = 1 / 6 if given.any else 0.3
    omits = Omissions(given.seed, share, required=given.any)
    with tempfile.TemporaryDirectory() as folder, KINDS[kind][name]() as stage:
        if kind == "batches":
            tally = stage.batches_polled(omits, given.polls)
        else:
            tally = stage.polled(Path(folder), omits, given.polls)
    crashes = sum(tally.crashes.values())
    print(
        f"{name:10} {kind:10} {tally.polls:6,} polls  {len(omits.met):4} fields that may go  "
        f"{omits.omitted:7,} left out  {sum(tally.refusals.values()):4} refusals  "
        f"{crashes:4} crashes",
        flush=True,
    )
    for where, times in tally.crashes.most_common():
        print(f"    {times:4} {where}")
    return int(crashes > 0)


if __name__ == "__main__":
    sys.exit(main())
