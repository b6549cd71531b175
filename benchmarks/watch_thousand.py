"""Watch a thousand runs from one process; measure its memory, requests and delays.

    python benchmarks/watch_thousand.py [--runs 1000] [--vendor NAME] [--apart]

The runs are launched on all four vendors on loopback, or on those that --vendor names, so that one
process needs all their SDKs; with --apart on one vendor after the other. Vendors and launches run
in another process, so only ``unitune runs watch --all`` is measured. The jobs all start at once
and end in the order of their launches. The exit code is 0 when these promises were kept:

    at most 300 MiB of memory; at most one page of its list a vendor and interval, plus one search
    for a second job per finished run, which reads the whole list where a server does not filter
    it; every finish noticed within 60 s.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from unitune.backends.protocol import State
from unitune.run.watching import INTERVAL_SECONDS

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from unitune.testing.loopback import VendorRequest

VENDORS = ("openai", "together", "vertex", "bedrock")
PAGE = 100
"""Jobs on a page of Bedrock's list, as at AWS; on loopback it has two, to need several pages."""
MOST_MIB, MOST_SECONDS = 300, 60
FIRST_END_SECONDS = 20.0
"""From the beginning of the watch to the end of the first job."""
FOR_EVER = 1_000_000


def serve(vendors: list[str]) -> None:
    """Serve vendors: print their addresses, let jobs end in time, and print the requests.

    Reads two lines: the seconds that each job lasts, at the start of the count, and the end.
    """
    from vendors.bedrock import wire  # noqa: PLC0415 - in this process only
    from vendors.serving import serve_vendor  # noqa: PLC0415 - in this process only

    from unitune.testing.loopback import Server  # noqa: PLC0415 - in this process only
    from unitune.testing.vendor_setup import ServerBehavior  # noqa: PLC0415 - in this process only

    wire.PAGE = PAGE
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    before, behavior = dict(os.environ), ServerBehavior(queued_polls=FOR_EVER)
    requests: dict[str, list[bool]] = defaultdict(list)  # for each vendor: whether for its list
    names: dict[Server, str] = {}
    handle = Server.handle

    def noted(server: Server, request: VendorRequest, connection: BaseHTTPRequestHandler) -> None:
        name = names[server]
        lists = request.method == "GET" and pages[name].search(request.path) is not None
        requests[name].append(lists)
        server.requests.clear()
        handle(server, request, connection)

    with ExitStack() as stack:
        played = {name: stack.enter_context(serve_vendor(name, behavior)) for name in vendors}
        pages = {name: re.compile(served.setup.create) for name, served in played.items()}
        names |= {served.server: name for name, served in played.items()}
        Server.handle = noted
        changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
        print(json.dumps(changed), flush=True)
        behavior.seconds = float(sys.stdin.readline())
        requests.clear()
        sys.stdin.readline()
        print(json.dumps(requests), flush=True)


def launch_all(vendors: list[str], number: int) -> None:
    """Launch runs in turn on each vendor."""
    from vendors.serving import VENDORS  # noqa: PLC0415 - in this process only

    from unitune.job.job import Data, Job  # noqa: PLC0415 - in this process only
    from unitune.run.run import launch  # noqa: PLC0415 - in this process only

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"What is {row} plus 1?"},
                    {"role": "assistant", "content": str(row + 1)},
                ]
            }
            for row in range(40)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "train.jsonl").write_text(text, encoding="utf-8")
        (folder / "validation.jsonl").write_text(text.replace("plus", "and"), encoding="utf-8")
        for run in range(number):
            name = vendors[run % len(vendors)]
            job = Job(
                name=f"run-{run}",
                model=VENDORS[name].model,
                backend=name,
                data=Data(train="train.jsonl", validation="validation.jsonl"),
                folder=folder,
            )
            launch(job, allow_duplicate=True)


def watch() -> tuple[dict[str, float], float]:
    """Watch all runs; return the time of each noticed success, and the peak memory in MiB."""
    peak = Path(__file__).parent / "harnesses" / "peak.py"
    command = [peak, sys.executable, "-m", "unitune", "runs", "watch", "--all", "--json"]
    noticed: dict[str, float] = {}
    mib = math.nan
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True
    ) as watching:
        for line in cast("IO[str]", watching.stdout):
            if line.startswith("{"):
                run = json.loads(line)
                if run["state"] == State.SUCCEEDED:
                    noticed[run["id"]] = time.time()
            elif line.startswith("PEAK "):
                mib = float(line.split()[1])
    return noticed, mib


def main() -> int:
    """Start the processes, and check their results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--vendor", action="append", choices=VENDORS)
    parser.add_argument("--apart", action="store_true", help="all runs on each vendor in turn")
    parser.add_argument("--role", choices=("serve", "launch"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    vendors = given.vendor or list(VENDORS)
    if given.role == "serve":
        serve(vendors)
    elif given.role == "launch":
        launch_all(vendors, given.runs)
    else:
        groups = [[name] for name in vendors] if given.apart else [vendors]
        kept = [measure(group, given.runs) for group in groups]
        return 0 if all(kept) else 1
    return 0


def measure(vendors: list[str], number: int) -> bool:
    """Launch, watch, print; return whether all promises were kept."""
    from unitune.run.run import runs  # noqa: PLC0415 - in this process only

    options = [part for name in vendors for part in ("--vendor", name)]
    with tempfile.TemporaryDirectory() as home:
        os.environ["UNITUNE_DIR"] = home
        server = _started("serve", *options, stdin=subprocess.PIPE)
        os.environ |= json.loads(_line(server.stdout))
        launched = time.time()
        _started("launch", *options, "--runs", str(number)).wait()
        oldest, *others = sorted(runs(), key=lambda run: run.created)
        seconds = time.time() - launched
        print(f"{1 + len(others)} runs launched in {seconds:.0f} s, on {', '.join(vendors)}")

        begun = time.time()
        lasting = begun - oldest.created.timestamp() + FIRST_END_SECONDS
        _tell(server, str(lasting))
        noticed, mib = watch()
        ended = time.time()
        _tell(server, "end")
        requests = json.loads(_line(server.stdout))
    ends = {run.id: run.created.timestamp() + lasting for run in (oldest, *others)}
    delays = sorted(at - ends[run] for run, at in noticed.items())
    return _judged(number, delays, mib, requests, ended - begun)


def _judged(
    number: int,
    delays: list[float],
    mib: float,
    requests: dict[str, list[bool]],
    seconds: float,
) -> bool:
    intervals = int(seconds / INTERVAL_SECONDS) + 1
    print(f"watched for {seconds:.0f} s: {intervals} intervals of {INTERVAL_SECONDS:g} s")
    jobs = math.ceil(number / len(requests))
    searches = jobs * math.ceil(jobs / PAGE)
    for name, are_for_lists in requests.items():
        pages = sum(are_for_lists)
        print(
            f"{name:10}{pages:5} pages of its list, {pages / intervals:.2f} an interval; "
            f"{len(are_for_lists) - pages} other requests"
        )
    middle, last = delays[len(delays) // 2], delays[-1]
    print(f"{len(delays)} finishes noticed after {middle:.1f} s (median), {last:.1f} s (most)")
    print(f"peak memory {mib:.0f} MiB")
    kept = {
        f"all {number} finishes noticed within {MOST_SECONDS} s": len(delays) == number
        and last <= MOST_SECONDS,
        f"at most one page a vendor and interval, and {searches} for searches": (
            max(map(sum, requests.values())) <= intervals + searches
        ),
        f"at most {MOST_MIB} MiB": mib <= MOST_MIB,
    }
    for promise, is_kept in kept.items():
        print(f"{'kept' if is_kept else 'BROKEN'}: {promise}", flush=True)
    return all(kept.values())


def _started(role: str, *options: str, stdin: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", role, *options]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True)


def _line(stream: IO[str] | None) -> str:
    return cast("IO[str]", stream).readline()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    stream = cast("IO[str]", process.stdin)
    stream.write(line + "\n")
    stream.flush()


if __name__ == "__main__":
    raise SystemExit(main())
