"""The example's rows are banking77's, and no test row is trained on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from unitune.data.load import load

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "bank-intents"
BANKING77 = ROOT.parent / "shared" / "data" / "banking77"


def rows(name: str) -> set[tuple[str, str | None]]:
    return {(row.messages[1].text, row.answer) for row in load(EXAMPLE / f"{name}.jsonl")}


@pytest.mark.parametrize("name", ["train", "test"])
def test_each_row_stands_in_the_file_of_the_same_name(name: str) -> None:
    if not BANKING77.is_dir():
        pytest.skip("needs banking77 in ../shared/data")
    with (BANKING77 / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        published = {
            (row["text"].strip(), row["category"].replace("_", " ")) for row in csv.DictReader(file)
        }

    assert rows(name) <= published


def test_no_message_is_in_both_files() -> None:
    assert not {text for text, _ in rows("train")} & {text for text, _ in rows("test")}
