"""Compare evaluation harnesses on one server on loopback: processor time, wall time, memory.

    python benchmarks/harnesses/race.py [--rivals DIR] [--cases 1000 5000] [--latency 0.05 0]
                                        [--concurrency 64 256] [--only NAME ...] [--limit SECONDS]

Every harness sends the same cases to the same model, so many at once, and scores the answers;
harness and server run in their own processes. ``aiohttp`` and ``openai`` are loops without a
harness: the limits. CPU a case excludes the CPU of ten cases, and so the start of the harness. DIR
holds environments of the rivals (``inspect``, ``lmeval``, ``pydantic``: virtual environments;
``pf``: promptfoo by npm); missing ones are reported and left out. A harness that takes longer than
the limit is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from server import expected  # noqa: E402 - a script in this folder

WARM_UP = 10
"""Number of cases that measure a harness's start."""


@dataclass(frozen=True)
class Command:
    """Start of a harness.

    Args:
        line: Program and arguments.
        environment: Variables added to this process's.
        folder: Working directory.
        done: Exit code of success; promptfoo's differs when an answer was wrong.
    """

    line: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    folder: Path = Path()
    done: int = 0


@dataclass(frozen=True)
class Place:
    """Work of a harness.

    Args:
        rivals: Folder of the rivals' environments.
        folder: Folder of the harness.
        url: Address of the server.
        cases: File of cases.
        concurrency: Requests at once.
    """

    rivals: Path
    folder: Path
    url: str
    cases: Path
    concurrency: int

    def rows(self) -> list[dict[str, str]]:
        """Return the cases."""
        return [json.loads(line) for line in self.cases.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Taken:
    """Cost of one run.

    Args:
        cpu: Seconds, of all its processes.
        wall: Seconds.
        mib: Peak memory of its largest process.
        asked: Requests that the server received.
        most: Maximum requests in flight.
        ended: Whether the harness ended without being stopped, and successfully.
    """

    cpu: float
    wall: float
    mib: float
    asked: int
    most: int
    ended: bool


def write_cases(folder: Path, number: int) -> Path:
    """Write cases, one JSON object a line."""
    file = folder / f"cases-{number}.jsonl"
    questions = (
        f"Which label has message {at}? It says: word-{at * 7919 % 10007}." for at in range(number)
    )
    rows = ({"question": one, "expected": expected(one)} for one in questions)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_rows(cases: Path) -> list[dict[str, Any]]:
    """Return cases as rows of a job."""
    read = [json.loads(line) for line in cases.read_text(encoding="utf-8").splitlines()]
    return [
        {
            "id": f"c{at}",
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["expected"]},
            ],
        }
        for at, row in enumerate(read)
    ]


def by_unitune(place: Place, judged: dict[str, str]) -> Command:
    """Compare a model with stored answers by ``unitune compare``, including the report."""
    folder, test = place.folder, test_rows(place.cases)
    kept = [{"case": row["id"], "answer": "label-0"} for row in test]
    for name, lines in (("test.jsonl", test), ("kept.jsonl", kept)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = {
        "name": "race",
        "model": "m",
        "backend": "openai",
        "data": {"test": "test.jsonl"},
        "evaluate": {
            "contenders": [
                {"name": "judged", "role": "candidate", "model": "m", "prompt": "zero-shot"}
                | judged,
                {"type": "recorded", "answers": "kept.jsonl"},
            ],
            "concurrency": place.concurrency,
            "max_tokens": 16,
            "prices": {"judged": {"input": 1, "output": 1}},
            "budget": {"usd": 100},
        },
    }
    (folder / "unitune.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    line = [sys.executable, "-m", "unitune", "compare", folder / "unitune.yaml"]
    home = {"UNITUNE_DIR": str(folder / "home"), "OPENAI_API_KEY": "k"}
    return Command(
        [*line, "--quiet", "--output", folder / "out"],
        home | {"OPENAI_BASE_URL": f"{place.url}/v1"},
    )


def by_server(place: Place) -> Command:
    """Let unitune send requests over aiohttp."""
    return by_unitune(place, {"type": "server", "url": f"{place.url}/v1"})


def by_backend(place: Place) -> Command:
    """Let unitune send requests through the openai backend."""
    return by_unitune(place, {"type": "model", "backend": "openai"})


def by_script(place: Place, script: str, python: str | Path = sys.executable) -> Command:
    """Run a script of this folder."""
    return Command([python, HERE / script, place.url, place.cases, str(place.concurrency)])


def by_pydantic_evals(place: Place) -> Command:
    """Run pydantic-evals."""
    return by_script(place, "with_pydantic_evals.py", place.rivals / "pydantic/bin/python")


def by_inspect(place: Place) -> Command:
    """Run inspect without its live display."""
    line = [
        place.rivals / "inspect/bin/inspect",
        "eval",
        "inspect_task.py",
        "--model=openai/m",
        "-Mresponses_api=false",
        f"--max-connections={place.concurrency}",
        f"--max-samples={place.concurrency}",
        "--display=none",
        f"--log-dir={place.folder / 'logs'}",
    ]
    cases = {"BENCH_CASES": str(place.cases)}
    server = {"OPENAI_BASE_URL": f"{place.url}/v1", "OPENAI_API_KEY": "k"}
    return Command(line, cases | server, folder=HERE)


def by_lm_eval(place: Place) -> Command:
    """Run lm-eval with its own task."""
    task = {
        "task": "race_cases",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(place.cases)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{expected}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 16, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    }
    (place.folder / "race_cases.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    address = f"{place.url}/v1/chat/completions"
    line = [
        place.rivals / "lmeval/bin/lm_eval",
        "run",
        "--model=local-chat-completions",
        f"--model_args=model=m,base_url={address},num_concurrent={place.concurrency}",
        "--tasks=race_cases",
        f"--include_path={place.folder}",
        "--apply_chat_template",
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place.folder)}
    return Command(line, offline | {"OPENAI_API_KEY": "k"})


def by_promptfoo(place: Place) -> Command:
    """Run promptfoo with a configuration file, its cache off."""
    options = {"apiBaseUrl": f"{place.url}/v1", "max_tokens": 16, "temperature": 0}
    config = {
        "prompts": ["{{question}}"],
        "providers": [{"id": "openai:chat:m", "config": options}],
        "tests": [
            {
                "vars": {"question": row["question"]},
                "assert": [{"type": "equals", "value": row["expected"]}],
            }
            for row in place.rows()
        ],
    }
    file = place.folder / "promptfooconfig.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    line = [
        place.rivals / "pf/node_modules/.bin/promptfoo",
        "eval",
        f"--config={file}",
        f"--max-concurrency={place.concurrency}",
        "--no-cache",
        "--no-table",
        "--no-progress-bar",
        f"--output={place.folder / 'out.json'}",
    ]
    quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
    own = {"OPENAI_API_KEY": "k", "PROMPTFOO_CONFIG_DIR": str(place.folder / "pf")}
    return Command(line, quiet | own, done=100)


HARNESSES: dict[str, Callable[[Place], Command]] = {
    "aiohttp": lambda place: by_script(place, "bare_aiohttp.py"),
    "unitune": by_server,
    "openai": lambda place: by_script(place, "bare_openai.py"),
    "unitune, backend": by_backend,
    "pydantic-evals": by_pydantic_evals,
    "lm-eval": by_lm_eval,
    "promptfoo": by_promptfoo,
    "inspect": by_inspect,
}


@contextmanager
def serving(latency: float, *faults: str) -> Generator[str]:
    """Serve a model while the body runs."""
    line = [sys.executable, HERE / "server.py", f"--latency={latency}", *faults]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.communicate()


def measure(command: Command, url: str, limit: float) -> Taken:
    """Run a harness, and ask the server for its counts."""
    _count(url)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    # A process group of its own, so that its children are ended with it.
    process = subprocess.Popen(
        [sys.executable, HERE / "peak.py", *command.line],
        env={**os.environ, **command.environment},
        cwd=command.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counted = _count(url)
    found = [line for line in said.splitlines() if line.startswith("PEAK ")]
    well = bool(found) and process.returncode == command.done and counted["asked"] > 0
    if not well:
        print(f"    ended with {process.returncode}: {said[-800:]}")
    mib = float(found[-1].split()[1]) if found else float("nan")
    return Taken(cpu, wall, mib, counted["asked"], counted["most_in_flight"], well)


def _count(url: str) -> dict[str, int]:
    with urlopen(f"{url}/count") as answer:  # noqa: S310 - our own server
        return json.load(answer)


def main() -> None:
    """Run all cells."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rivals", type=Path, default=Path("rivals"))
    parser.add_argument("--cases", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.05, 0.0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--only", nargs="+", choices=HARNESSES, default=list(HARNESSES))
    parser.add_argument("--limit", type=float, default=240.0)
    given = parser.parse_args()
    for latency, number, concurrency in product(given.latency, given.cases, given.concurrency):
        print(f"\n{number} cases, {concurrency} at once, {latency * 1000:.0f} ms")
        print(f"{'':16}{'wall s':>8}{'CPU s':>8}{'ms a case':>11}{'MiB':>6}{'flying':>8}")
        for name in given.only:
            row(name, given.rivals.absolute(), latency, number, concurrency, given.limit)


def row(  # noqa: PLR0913, PLR0917 - the axes of the table
    name: str, rivals: Path, latency: float, number: int, concurrency: int, limit: float
) -> None:
    """Run a harness with few cases and with all, and print its cost."""
    start, whole = [
        run_once(name, rivals, latency, cases, concurrency, limit) for cases in (WARM_UP, number)
    ]
    if start is None or whole is None:
        print(f"{name:16} left out: it is not installed under {rivals}")
        return
    marginal = 1000 * (whole.cpu - start.cpu) / (number - WARM_UP)
    end = "" if whole.ended and whole.asked == number else f"  {whole.asked} asked, then ended"
    print(
        f"{name:16}{whole.wall:8.1f}{whole.cpu:8.2f}{marginal:11.2f}{whole.mib:6.0f}"
        f"{whole.most:8}{end}",
        flush=True,
    )


def run_once(  # noqa: PLR0913, PLR0917 - the axes of the table
    name: str, rivals: Path, latency: float, number: int, concurrency: int, limit: float
) -> Taken | None:
    """Run a harness once with its own folder and server; None if it is not installed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, serving(latency) as url:
        cases = write_cases(Path(folder), number)
        command = HARNESSES[name](Place(rivals, Path(folder), url, cases, concurrency))
        return measure(command, url, limit) if Path(command.line[0]).exists() else None


if __name__ == "__main__":
    main()
