"""Evaluation harnesses side by side on one server on loopback: processor time, wall time, memory.

    python benchmarks/harnesses/race.py [--rivals DIR] [--cases 1000 5000] [--latency 0.05 0]
                                        [--concurrency 64 256] [--only NAME ...] [--limit SECONDS]

Every harness is asked to put the same cases to the same model, so many at once, and to say which
answers are right; it runs in a process of its own, and so does the server. ``aiohttp`` and
``openai`` are loops without any harness: the limits. CPU a case is what a harness takes beyond what
it takes for ten cases, so that its start is counted apart. DIR holds environments of the rivals
(``inspect``, ``lmeval``, ``pydantic``: virtual environments; ``pf``: promptfoo by npm); those that
are not there are left out and named. A harness that takes longer than the limit is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from server import expected  # noqa: E402 - a script beside this one

WARM_UP = 10
"""Cases that measure a harness's start."""


@dataclass(frozen=True)
class Command:
    """How a harness is started.

    Args:
        line: Program and arguments.
        environment: Added to this process's.
    """

    line: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Taken:
    """What one run took.

    Args:
        cpu: Seconds, of all its processes.
        wall: Seconds.
        mib: Most memory of its largest process.
        asked: Requests that came to the server.
        most: In flight at most.
        ended: Whether it ended by itself, and well.
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


def unitune_job(folder: Path, url: str, cases: Path, concurrency: int, contender: str) -> Path:
    """Write a job that judges a model against kept answers."""
    rows = [json.loads(line) for line in cases.read_text(encoding="utf-8").splitlines()]
    test = [
        {
            "id": f"c{at}",
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["expected"]},
            ],
        }
        for at, row in enumerate(rows)
    ]
    kept = [{"case": f"c{at}", "answer": "label-0"} for at in range(len(rows))]
    for name, lines in (("test.jsonl", test), ("kept.jsonl", kept)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = {
        "server": {"type": "server", "url": f"{url}/v1", "model": "m", "role": "candidate"},
        "sdk": {"type": "model", "backend": "openai", "model": "m", "role": "candidate"},
    }[contender]
    job = {
        "name": "race",
        "model": "m",
        "backend": "openai",
        "data": {"test": "test.jsonl"},
        "evaluate": {
            "contenders": [judged, {"type": "recorded", "answers": "kept.jsonl"}],
            "concurrency": concurrency,
            "max_tokens": 16,
        },
    }
    file = folder / "unitune.yaml"
    file.write_text(yaml.safe_dump(job), encoding="utf-8")
    return file


def by_unitune(folder: Path, url: str, cases: Path, concurrency: int, contender: str) -> Command:
    """Judge a model by ``unitune compare``, report and all."""
    job = unitune_job(folder, url, cases, concurrency, contender)
    line = [sys.executable, "-m", "unitune", "compare", job, "--quiet", "--out", folder / "out"]
    home = {"UNITUNE_DIR": str(folder / "home"), "OPENAI_API_KEY": "k"}
    return Command(line, home | {"OPENAI_BASE_URL": f"{url}/v1"})


def by_script(python: str | Path, script: str, url: str, cases: Path, concurrency: int) -> Command:
    """Run a script of this folder."""
    return Command([python, HERE / script, url, cases, str(concurrency)])


def by_inspect(rivals: Path, folder: Path, url: str, cases: Path, concurrency: int) -> Command:
    """Run inspect as its users do, without its live display."""
    line = [
        rivals / "inspect/bin/inspect",
        "eval",
        HERE / "inspect_task.py",
        "--model=openai/m",
        f"--max-connections={concurrency}",
        f"--max-samples={concurrency}",
        "--display=none",
        f"--log-dir={folder / 'logs'}",
    ]
    return Command(
        line,
        {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "k", "BENCH_CASES": str(cases)},
    )


def by_lm_eval(rivals: Path, folder: Path, url: str, cases: Path, concurrency: int) -> Command:
    """Run lm-eval with a task of its own."""
    task = {
        "task": "race_cases",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(cases)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{expected}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 16, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    }
    (folder / "race_cases.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    line = [
        rivals / "lmeval/bin/lm_eval",
        "run",
        "--model=local-chat-completions",
        f"--model_args=model=m,base_url={url}/v1/chat/completions,num_concurrent={concurrency}",
        "--tasks=race_cases",
        f"--include_path={folder}",
        "--apply_chat_template",
    ]
    return Command(line, {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "OPENAI_API_KEY": "k"})


def by_promptfoo(rivals: Path, folder: Path, url: str, cases: Path, concurrency: int) -> Command:
    """Run promptfoo with a configuration file, its cache off."""
    rows = [json.loads(line) for line in cases.read_text(encoding="utf-8").splitlines()]
    config = {
        "prompts": ["{{question}}"],
        "providers": [
            {
                "id": "openai:chat:m",
                "config": {"apiBaseUrl": f"{url}/v1", "max_tokens": 16, "temperature": 0},
            }
        ],
        "tests": [
            {
                "vars": {"question": row["question"]},
                "assert": [{"type": "equals", "value": row["expected"]}],
            }
            for row in rows
        ],
    }
    file = folder / "promptfooconfig.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    line = [
        rivals / "pf/node_modules/.bin/promptfoo",
        "eval",
        f"--config={file}",
        f"--max-concurrency={concurrency}",
        "--no-cache",
        "--no-table",
        "--no-progress-bar",
        f"--output={folder / 'out.json'}",
    ]
    quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
    return Command(
        line, quiet | {"OPENAI_API_KEY": "k", "PROMPTFOO_CONFIG_DIR": str(folder / "pf")}
    )


NAMES = (
    "aiohttp",
    "unitune",
    "openai",
    "unitune, SDK",
    "pydantic-evals",
    "lm-eval",
    "promptfoo",
    "inspect",
)


def command_of(
    name: str, rivals: Path, folder: Path, url: str, cases: Path, concurrency: int
) -> Command:
    """Return how a harness is started."""
    place = folder, url, cases, concurrency
    match name:
        case "aiohttp":
            return by_script(sys.executable, "bare_aiohttp.py", *place[1:])
        case "openai":
            return by_script(sys.executable, "bare_openai.py", *place[1:])
        case "unitune":
            return by_unitune(*place, "server")
        case "unitune, SDK":
            return by_unitune(*place, "sdk")
        case "pydantic-evals":
            python = rivals / "pydantic/bin/python"
            return by_script(python, "with_pydantic_evals.py", *place[1:])
        case "lm-eval":
            return by_lm_eval(rivals, *place)
        case "promptfoo":
            return by_promptfoo(rivals, *place)
        case _:
            return by_inspect(rivals, *place)


@contextmanager
def serving(latency: float) -> Generator[str]:
    """Let a model answer while the body runs."""
    line = [sys.executable, HERE / "server.py", f"--latency={latency}"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.communicate()


def measure(command: Command, url: str, limit: float) -> Taken:
    """Run a harness, and ask the server what came."""
    _count(url)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    # A process group of its own, so that whatever it starts is ended with it.
    process = subprocess.Popen(
        [sys.executable, HERE / "peak.py", *command.line],
        env={**os.environ, **command.environment},
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
    well = bool(found) and process.returncode == 0
    if not well:
        print(f"    ended with {process.returncode}: {said[-800:]}")
    mib = float(found[-1].split()[1]) if found else float("nan")
    return Taken(cpu, wall, mib, counted["asked"], counted["most_in_flight"], well)


def _count(url: str) -> dict[str, int]:
    with urlopen(f"{url}/count") as answer:  # noqa: S310 - our own server
        return json.load(answer)


def missing(name: str, rivals: Path) -> bool:
    """Whether a rival's environment is not there."""
    needs = {
        "pydantic-evals": "pydantic/bin/python",
        "lm-eval": "lmeval/bin/lm_eval",
        "promptfoo": "pf/node_modules/.bin/promptfoo",
        "inspect": "inspect/bin/inspect",
    }
    return name in needs and not (rivals / needs[name]).exists()


def main() -> None:
    """Run all cells."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rivals", type=Path, default=Path("rivals"))
    parser.add_argument("--cases", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.05, 0.0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--limit", type=float, default=240.0)
    given = parser.parse_args()
    names = [name for name in given.only if not missing(name, given.rivals)]
    for name in sorted(set(given.only) - set(names)):
        print(f"left out, not installed under {given.rivals}: {name}")
    for latency in given.latency:
        with serving(latency) as url:
            for number in given.cases:
                for concurrency in given.concurrency:
                    cell(names, given.rivals, url, latency, number, concurrency, given.limit)


def cell(  # noqa: PLR0913, PLR0917 - the axes of the table
    names: Sequence[str],
    rivals: Path,
    url: str,
    latency: float,
    number: int,
    concurrency: int,
    limit: float,
) -> None:
    """Print one table."""
    print(f"\n{number} cases, {concurrency} at once, {latency * 1000:.0f} ms")
    print(f"{'':16}{'wall s':>8}{'CPU s':>8}{'ms a case':>11}{'MiB':>6}{'asked':>7}{'flying':>8}")
    for name in names:
        taken = [
            run_once(name, rivals, url, cases, concurrency, limit) for cases in (WARM_UP, number)
        ]
        start, whole = taken
        marginal = 1000 * (whole.cpu - start.cpu) / (number - WARM_UP)
        end = "" if whole.ended else "  stopped"
        print(
            f"{name:16}{whole.wall:8.1f}{whole.cpu:8.2f}{marginal:11.2f}{whole.mib:6.0f}"
            f"{whole.asked:7}{whole.most:8}{end}",
            flush=True,
        )


def run_once(  # noqa: PLR0913, PLR0917 - the axes of the table
    name: str, rivals: Path, url: str, number: int, concurrency: int, limit: float
) -> Taken:
    """Run a harness once in a folder of its own."""
    folder = Path(tempfile.mkdtemp())
    try:
        cases = write_cases(folder, number)
        command = command_of(name, rivals.absolute(), folder, url, cases, concurrency)
        return measure(command, url, limit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
