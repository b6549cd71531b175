"""Run comparisons under faults, and look for lost rows, repeated requests and wrong results.

    python benchmarks/harnesses/faults.py [--cases 1000] [--kills 10] [--seed 0]

Each line is `unitune compare` in its own process against the server of this folder, which counts
requests. Verdict and score are known beforehand, as the server answers by hashes. The exit code is
0 when every promise was kept:

    no written row is lost; requests beyond one a case are at most those that failed and those in
    flight at a kill; the score matches the rows and the server; the exit code is 4 for a vendor
    that is down, 6 for a spent budget, 1 for a failed gate; the same command then continues.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from race import serving, test_rows, write_cases  # noqa: E402 - scripts in this folder
from server import answer_to  # noqa: E402

CONCURRENCY = 32


@dataclass(frozen=True)
class Suite:
    """Cases, and the folder of their comparisons.

    Args:
        folder: Folder of job, home and results.
        cases: Number of cases.
    """

    folder: Path
    cases: int

    @property
    def rows(self) -> list[dict[str, str]]:
        """Answers of the evaluated model so far, without an incomplete line."""
        file = self.folder / "out" / "rows.jsonl"
        lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
        return [row for row in map(json.loads, lines) if row["contender"] == "judged"]

    @property
    def answers(self) -> list[dict[str, str]]:
        """Rows without errors."""
        return [row for row in self.rows if "error" not in row]

    def write(self, url: str, model: str, **evaluate: object) -> None:
        """Write a job that compares a model with answers that are right for half of the cases."""
        cases = write_cases(self.folder, self.cases)
        test = test_rows(cases)
        kept = [
            {"case": row["id"], "answer": row["messages"][1]["content"] if at % 2 else "none"}
            for at, row in enumerate(test)
        ]
        for name, rows in (("test.jsonl", test), ("kept.jsonl", kept)):
            (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        judged = {"type": "server", "url": f"{url}/v1", "model": model, "prompt": "zero-shot"}
        job = {
            "name": "faults",
            "model": "m",
            "backend": "openai",
            "data": {"test": "test.jsonl"},
            "evaluate": {
                "contenders": [
                    {**judged, "name": "judged", "role": "candidate"},
                    {"type": "recorded", "answers": "kept.jsonl"},
                ],
                "concurrency": CONCURRENCY,
                "max_tokens": 16,
                "gate": {"mode": "improve"},
                **evaluate,
            },
        }
        (self.folder / "unitune.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start a comparison."""
        job, out = self.folder / "unitune.yaml", self.folder / "out"
        line = [
            sys.executable,
            "-m",
            "unitune",
            "compare",
            job,
            "--quiet",
            "--output",
            out,
            *options,
        ]
        return subprocess.Popen(
            line,
            env={**os.environ, "UNITUNE_DIR": str(self.folder / "home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def compare(self, *options: str) -> int:
        """Run a comparison, and return its exit code."""
        process = self.start(*options)
        said, _ = process.communicate()
        if process.returncode not in (0, 1, 3, 4, 6):
            print(said)
        return process.returncode

    def score(self, out: str = "out") -> float:
        """Return the evaluated model's score, from the verdict."""
        verdict = json.loads((self.folder / out / "verdict.json").read_text(encoding="utf-8"))
        (judged,) = [one for one in verdict["contenders"] if one["name"] == "judged"]
        return judged["score"]

    def true_score(self, model: str) -> float:
        """Return the share of right answers of a model, by its own rule."""
        rows = test_rows(self.folder / f"cases-{self.cases}.jsonl")
        turns = [[turn["content"] for turn in row["messages"]] for row in rows]
        return sum(answer_to(model, asked) == right for asked, right in turns) / len(rows)


@contextmanager
def suite(cases: int) -> Generator[Suite]:
    """Give a suite its own folder while the body runs."""
    with tempfile.TemporaryDirectory() as folder:
        yield Suite(Path(folder), cases)


def told(url: str) -> dict[str, int]:
    """Ask the server for the requests since the last call."""
    with urlopen(f"{url}/count") as answer:  # noqa: S310 - our own server
        return json.load(answer)


class Table:
    """Printer of results and of broken promises."""

    def __init__(self) -> None:
        self.kept = True

    def line(self, what: str, **checks: bool) -> None:
        """Print one line."""
        broken = [name.replace("_", " ") for name, held in checks.items() if not held]
        self.kept = self.kept and not broken
        print(f"{what:66} {'kept' if not broken else 'BROKEN: ' + ', '.join(broken)}", flush=True)


def met_by_attempts(table: Table, cases: int, fault: str, share: str) -> None:
    """Let some requests fail with a transient error."""
    with serving(0.02, fault, share) as url, suite(cases) as one:
        one.write(url, "m")
        begun = time.perf_counter()
        code = one.compare()
        seconds, count = time.perf_counter() - begun, told(url)
        table.line(
            f"{fault[2:]} {float(share):.0%}: {count['asked']} asked, {seconds:.1f} s",
            every_case_answered=len(one.answers) == cases,
            no_row_but_those=len(one.rows) == cases,
            asked_again_only_what_failed=count["answered"] == cases,
            score_right=one.score() == one.true_score("m"),
            exit_code_right=code == 0,
        )


def killed(table: Table, cases: int, kills: int, seed: int) -> None:
    """Kill a comparison at random points, and continue it each time."""
    lots, lost, beyond = random.Random(seed), 0, 0
    with serving(0.05) as url, suite(cases) as one:
        one.write(url, "m")
        for share in sorted(lots.random() for _ in range(kills)):
            wanted, process = int(share * cases * 0.95), one.start()
            while len(one.rows) < wanted and process.poll() is None:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            before = {row["case"] for row in one.answers}
            lost += len(before - {row["case"] for row in one.answers})
        code = one.compare()
        count = told(url)
        beyond = count["asked"] - cases
        table.line(
            f"kill -9 at {kills} points: {count['asked']} asked, {beyond} of them again",
            no_row_lost=lost == 0 and len({row["case"] for row in one.answers}) == cases,
            repeats_at_most_in_flight=0 <= beyond <= kills * CONCURRENCY,
            one_row_a_case=len(one.answers) == cases,
            score_right=one.score() == one.true_score("m"),
            exit_code_right=code == 0,
        )


def down(table: Table, cases: int) -> None:
    """Let the vendor stop answering after half of the cases, and return."""
    with suite(cases) as one:
        with serving(0.01, "--down-after", str(cases // 2)) as url:
            one.write(url, "m")
            code = one.compare()
        answered = len(one.answers)
        with serving(0.01) as url:
            # For the engine, the same server at another port would be another model.
            one.write(url, "m")
            again = one.compare()
        table.line(
            f"down after {cases // 2}: exit {code}, {answered} kept; back: exit {again}",
            down_is_no_finding=code == 4,
            answers_kept=answered >= cases // 2 - CONCURRENCY,
            score_right=one.score() == one.true_score("m"),
            exit_code_right=again == 0,
        )


def two_models(table: Table, cases: int) -> None:
    """Compare two models on one server with one home: neither gets the other's answers."""
    with serving(0.0) as url, suite(cases) as one:
        scores: dict[str, float] = {}
        for out, model in (("first", "m"), ("other", "better"), ("again", "m")):
            one.write(url, model)
            one.compare("--use-cache", "--output", str(one.folder / out))
            scores[model] = one.score(out)
        count = told(url)
        table.line(
            f"one cache, two models: {scores['m']:.3f} and {scores['better']:.3f}",
            scores_right=scores == {name: one.true_score(name) for name in scores},
            each_asked_once=count["asked"] == 2 * cases,
        )


def empty_purse(table: Table, cases: int) -> None:
    """Run with a budget for a tenth of the cases, then for all."""
    price = {"judged": {"input": "1", "output": "10"}}
    tenth = 40e-6 * cases / 10
    with serving(0.01) as url, suite(cases) as one:
        one.write(url, "m", prices=price, budget={"usd": f"{tenth:.6f}"})
        code, paid = one.compare(), 40e-6 * len(one.answers)
        again = one.compare("--budget", "1")
        table.line(
            f"${tenth:.6f} for a tenth: ${paid:.6f} paid, exit {code}; more: exit {again}",
            stops_before_the_cap=paid <= tenth and code == 6,
            uses_most_of_it=paid >= tenth * 0.5,
            goes_on=again == 0 and len(one.answers) == cases,
        )


def failing_gate(table: Table, cases: int) -> None:
    """Run with a gate above the model's score."""
    with serving(0.0) as url, suite(cases) as one:
        one.write(url, "m", gate={"mode": "absolute", "threshold": 0.9})
        code = one.compare()
        replayed = one.compare("--replay")
        table.line(
            f"a gate above the model: exit {code}; replayed: exit {replayed}",
            failed_on_evidence=code == 1,
            replay_says_the_same=replayed == 1,
            replay_asks_nobody=told(url)["asked"] == cases,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    table = Table()
    for fault, share in (("--refuse", "0.05"), ("--cut", "0.05"), ("--slow", "0.02")):
        met_by_attempts(table, given.cases, fault, share)
    killed(table, given.cases, given.kills, given.seed)
    down(table, given.cases)
    two_models(table, given.cases)
    empty_purse(table, given.cases)
    failing_gate(table, given.cases)
    return 0 if table.kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
