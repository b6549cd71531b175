"""Count the tests of promptfoo's example configurations that `unitune import` imports.

    python benchmarks/promptfoo_examples.py --examples promptfoo/examples --promptfoo promptfoo
                                            --results DIR

EXAMPLES is the folder of that name in promptfoo's repository, of the program's version. promptfoo
evaluates each configuration with tests into DIR with its provider `echo`, which needs no model and
no key; existing results are reused (about 25 minutes in all). The results are imported as by
`unitune import promptfoo:FILE --drop`. A test counts if it has an assertion that needs neither a
model nor other answers. Suites of more than 300 generated tests are counted separately.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from unitune.errors import DataError
from unitune.importers.promptfoo.results import read_results

GENERATED = 300
"""Number of tests in the longest suite that is not counted separately."""
ASSERTED = re.compile(r"^(tests|scenarios|defaultTest):", re.MULTILINE)
COMPLETE = re.compile(r"^(prompts|providers|targets):", re.MULTILINE)
UNCOUNTED = ("a model or a service scores it", "it compares the answers of several models")
"""Reasons of findings about tests that only a model could judge."""
FAILS_THERE = ("promptfoo has no such type", "is not next to the results")
"""Reasons of findings about tests that end with an error in promptfoo itself."""
OPTIONS = (
    *("--providers", "echo", "--grader", "echo", "--no-cache", "--no-write", "--no-table"),
    *("--no-progress-bar", "--no-share"),
)
SETTINGS = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "true",
    "PROMPTFOO_DISABLE_SHARING": "1",
}


def configurations(examples: Path) -> Iterator[Path]:
    """Yield the examples' configurations with tests."""
    for path in sorted({*examples.rglob("*.yaml"), *examples.rglob("*.yml")}):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "node_modules" not in path.parts and ASSERTED.search(text) and COMPLETE.search(text):
            yield path


def evaluated(config: Path, output: Path, promptfoo: str) -> bool:
    """Let promptfoo evaluate a configuration once, and return whether results exist."""
    log = output.with_suffix(".log")
    if not output.exists() and not log.exists():
        command = [promptfoo, "eval", "-c", str(config), *OPTIONS, "-o", str(output)]
        place = {**os.environ, **SETTINGS, "PROMPTFOO_CONFIG_DIR": str(output.parent / "settings")}
        with log.open("w") as lines:
            try:
                subprocess.run(
                    command,
                    cwd=config.parent,
                    env=place,
                    stdin=subprocess.DEVNULL,
                    stdout=lines,
                    stderr=lines,
                    timeout=120,
                    check=False,  # a failed test changes the exit code
                )
            except subprocess.TimeoutExpired:
                lines.write("\nstopped after 120 s\n")
    return output.exists()


def imported(config: Path, output: Path) -> Counter[str]:
    """Return how many tests of some results are imported, and why others are not."""
    beside = config.parent / "unitune-results.json"  # paths in a suite are relative to it
    shutil.copy(output, beside)
    try:
        suite = read_results(beside)
    finally:
        beside.unlink()
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for finding in suite.findings:
        case, _, reason = finding.message.partition(": ")
        reasons[case].append("no assertion" if finding.code == "no-assertion" else reason)
    rows = json.loads(output.read_text(encoding="utf-8"))["results"]["results"]
    kept = {case.id for case in suite.cases}
    return Counter(
        key
        for case in {f"test-{row['testIdx'] + 1}" for row in rows}
        for key in outcomes(reasons[case], kept=case in kept)
    )


def outcomes(reasons: list[str], *, kept: bool) -> Iterator[str]:
    """Yield the categories of a test."""
    yield "tests"
    rest = [each for each in reasons if not any(why in each for why in UNCOUNTED)]
    if not kept and rest in ([], ["no assertion"]):
        yield "nothing but a model could judge" if reasons != ["no assertion"] else "no assertion"
        return
    yield "counted"
    yield "imported" if kept else "left out"
    if any(why in each for each in rest for why in FAILS_THERE):
        yield "of the counted, end with an error in promptfoo"
    if reasons and kept:
        yield "of the imported, without some assertion"


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--promptfoo", default="promptfoo")
    chosen = parser.parse_args()
    chosen.results.mkdir(parents=True, exist_ok=True)
    total, generated = Counter[str](), Counter[str]()
    for config in configurations(chosen.examples):
        name = str(config.relative_to(chosen.examples)).replace("/", "__")
        output = chosen.results.resolve() / f"{name}.json"
        if not evaluated(config.resolve(), output, chosen.promptfoo):
            total["configurations without results"] += 1
            continue
        try:
            counts = imported(config, output)
        except DataError as failure:
            total["configurations that cannot be read"] += 1
            print(f"{name}: {failure}")
            continue
        total["configurations"] += 1
        (generated if counts["tests"] > GENERATED else total).update(counts)
    for title, counts in (("all but generated suites", total), ("generated suites", generated)):
        share = counts["imported"] / max(1, counts["counted"])
        print(f"\n{title}: {counts['imported']} of {counts['counted']} ({share:.1%})")
        for key, count in counts.items():
            print(f"  {count:6,}  {key}")


if __name__ == "__main__":
    main()
