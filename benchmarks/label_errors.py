"""Measure the list of doubtful labels of `unitune check` on rows with flipped labels.

Prints, for each data set and share of flipped labels, how many rows are listed, which share of
them was flipped, and which share of the flipped rows is listed.

    python benchmarks/label_errors.py [--banking77 train.csv] [--fortunes /usr/share/games/fortunes]
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path

from unitune.data.quality.similar_rows import label_errors
from unitune.data.questions import normal
from unitune.data.report import QualityRow

Pairs = Sequence[tuple[str, str]]
SHARES = (0.0, 0.05, 0.15)


def invented(count: int = 4000, labels: int = 20, own: float = 0.3) -> Pairs:
    """Return questions of eight words, some of them specific to their label."""
    chance = random.Random(1)
    common = [f"w{number}" for number in range(600)]
    words = {f"l{label}": [f"o{label}x{number}" for number in range(60)] for label in range(labels)}

    def question(label: str) -> str:
        pools = (words[label] if chance.random() < own else common for _ in range(8))
        return " ".join(map(chance.choice, pools))

    return [(question(label), label) for label in chance.choices(list(words), k=count)]


def banking77(file: Path) -> Pairs:
    """Return the rows of banking77's train.csv."""
    with file.open(encoding="utf-8", newline="") as rows:
        return [(row["text"], row["category"]) for row in csv.DictReader(rows)]


def fortunes(folder: Path) -> Pairs:
    """Return the fortunes of a folder, with the names of their files as labels."""
    pairs: list[tuple[str, str]] = []
    for file in sorted(folder.iterdir()):
        if not file.suffix:
            texts = file.read_text(encoding="utf-8", errors="replace").split("\n%\n")
            pairs += [(" ".join(text.split()), file.name) for text in texts if len(text) > 20]
    return pairs


def measure(name: str, pairs: Pairs, share: float) -> str:
    """Flip a share of the labels at random and describe the list."""
    chance, labels = random.Random(11), sorted({label for _, label in pairs})
    flipped = set(chance.sample(range(len(pairs)), int(share * len(pairs))))
    rows = [
        QualityRow(
            at,
            (normal(text),),
            text,
            chance.choice([each for each in labels if each != label]) if at in flipped else label,
            len(text),
        )
        for at, (text, label) in enumerate(pairs)
    ]
    listed = [issue.at for issue in label_errors(rows).rows]
    found = len(flipped.intersection(listed))
    return (
        f"{name:<10} {len(pairs):>6,} rows {len(labels):>3} labels, {share:.0%} flipped: "
        f"{len(listed):,} listed, precision {found / max(len(listed), 1):.0%}, "
        f"recall {found / max(len(flipped), 1):.0%}"
    )


def main() -> None:
    """Print a line for each data set and share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--banking77", type=Path)
    parser.add_argument("--fortunes", type=Path)
    options = parser.parse_args()
    sets = {"invented": invented()}
    sets |= {"banking77": banking77(options.banking77)} if options.banking77 else {}
    sets |= {"fortunes": fortunes(options.fortunes)} if options.fortunes else {}
    for name, pairs in sets.items():
        for share in SHARES:
            print(measure(name, pairs, share), flush=True)


if __name__ == "__main__":
    main()
