"""Measure the verdict of a judge with labels of people: its coverage, and a judge of real pairs.

    python benchmarks/judges.py coverage [--trials 2000]
    python benchmarks/judges.py pairs PAIRS [--cases 30] [--characters 1600]

`coverage` draws people's verdicts on the cases, and a judge that is right on 75 %, else random, and
moved one step towards the candidate with 15 %. It shows how often the 95 % interval of `compare`
contains the true difference, and the judge's own interval.

`pairs` compares the two answers of preference rows, in a folder of its own: in two of three pairs
the preferred answer is the candidate's. The model of the documentation judges them in both orders,
and the rows' own preferences are the labels of people.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import yaml

from unitune.data.load import load
from unitune.evaluate.compare import compare
from unitune.evaluate.statistics.judgements import compare_labelled
from unitune.evaluate.statistics.paired import compare_paired
from unitune.job.job import Job
from unitune.report.facts import judge as judge_facts

CELLS = ((15, 200), (30, 200), (50, 200), (100, 300))
SHARES = (0.25, 0.3, 0.45)
MODEL = "smollm2-135m-instruct"


def coverage(trials: int) -> None:
    """Show the coverage of both intervals by the number of labels and cases."""
    truth = SHARES[2] - SHARES[0]
    print("labels of cases   by labels and judge (width)   by the judge alone (width)")
    for labels, cases in CELLS:
        random, found = np.random.default_rng(labels), np.zeros((trials, 2, 2))
        for trial in range(trials):
            people = random.choice([-1.0, 0.0, 1.0], cases, p=SHARES)
            judge = np.where(random.random(cases) < 0.75, people, random.integers(-1, 2, cases))
            judge = np.minimum(1, judge + (random.random(cases) < 0.15))
            sides = (1 - judge) / 2, (1 + judge) / 2
            given = {int(at): float(people[at]) for at in random.permutation(cases)[:labels]}
            for kind, result in enumerate(
                (compare_labelled(*sides, given), compare_paired(*sides))
            ):
                low, high = result.interval.ends
                found[trial, kind] = low <= truth <= high, high - low
        shown = [f"{100 * share:5.1f} % ({width:.3f})" for share, width in found.mean(0)]
        print(f"{labels:>6} of {cases:<15}{shown[0]:<30}{shown[1]}", flush=True)


def pairs(file: Path, cases: int, characters: int) -> None:
    """Judge real pairs with a local model, and show its figures and the verdict."""
    folder = Path(tempfile.mkdtemp())
    os.environ["UNITUNE_DIR"] = str(folder / "home")
    rows = (
        (row.prompt[-1].text, row.messages[-1].text, row.non_preferred_output[-1].text)
        for row in load(file, None, "dpo")
        if row.non_preferred_output
    )
    short = (row for row in rows if sum(map(len, row)) <= characters)
    written: dict[str, list[dict[str, str]]] = {"test": [], "new": [], "old": [], "labels": []}
    for at, (question, better, worse) in enumerate(islice(short, cases)):
        case, is_win = f"c{at}", at % 3 > 0
        new, old = (better, worse) if is_win else (worse, better)
        written["test"].append({"id": case, "prompt": question})
        written["new"].append({"case": case, "answer": new})
        written["old"].append({"case": case, "answer": old})
        written["labels"].append({"case": case, "verdict": "win" if is_win else "loss"})
    for name, lines in written.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    judge = {"type": "judge", "backend": "local", "model": MODEL, "compare": "more helpful"}
    contenders = [
        {"type": "recorded", "name": name, "answers": f"{name}.jsonl", "role": role}
        for name, role in (("old", "baseline"), ("new", "candidate"))
    ]
    job = {
        "name": "pairs",
        "backend": "local",
        "model": MODEL,
        "data": {"test": "test.jsonl"},
        "evaluate": {
            "scorers": [judge | {"max_tokens": 80}],
            "labels": "labels.jsonl",
            "contenders": contenders,
        },
    }
    (folder / "unitune.yaml").write_text(yaml.safe_dump(job))
    result = compare(Job.load(folder / "unitune.yaml"))
    for fact in judge_facts(result.judges[0]):
        print(f"{fact.term:<24}{fact.value}")
    low, high = result.interval
    print(f"{'Verdict':<24}{result.verdict}, {result.difference:+.3f} [{low:+.3f}, {high:+.3f}]")


def main() -> None:
    """Run one of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("coverage").add_argument("--trials", type=int, default=2000)
    of_pairs = kinds.add_parser("pairs")
    of_pairs.add_argument("file", type=Path)
    of_pairs.add_argument("--cases", type=int, default=30)
    of_pairs.add_argument("--characters", type=int, default=1600)
    given = parser.parse_args()
    if given.kind == "coverage":
        coverage(given.trials)
    else:
        pairs(given.file, given.cases, given.characters)


if __name__ == "__main__":
    main()
