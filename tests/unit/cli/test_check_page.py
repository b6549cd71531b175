"""`unitune check`: what it prints of rows that are worth a look, and the page it writes of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from command_line import Command
from typer.testing import CliRunner

from unitune.cli.main import app


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of 40 rows of two labels, of which the last contradicts the first."""
    chance = random.Random(4)  # noqa: S311 - repeatable, not secret
    words = {label: [f"{label}{at}" for at in range(9)] for label in ("card", "rate")}
    rows = [
        {"prompt": " ".join(chance.sample(words[label], 6)), "completion": label}
        for label in ("card", "rate") * 20
    ]
    rows.append({"prompt": f"{rows[0]['prompt']}!", "completion": "rate"})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_worth_a_look_are_printed_by_cause_beside_others(
    unitune: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = unitune("check", file.name)

    assert 0 == done.code
    assert "1 Nearly the same question, answered differently" in done.out
    assert "rows.jsonl:41 " in done.out
    assert "beside rows.jsonl:1 " in done.out
    assert "No errors, 6 rows worth a look." in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_json_has_all_of_them(file: Path) -> None:
    printed = CliRunner().invoke(app, ["check", str(file), "--json"])
    quality = json.loads(printed.stdout)["quality"]

    assert (41, True) == (quality["rows"], quality["is_whole"])
    assert {"contradictions", "label-errors"} <= {cause["code"] for cause in quality["causes"]}


def test_the_page_replaces_one_of_unitune_and_nothing_else(file: Path, tmp_path: Path) -> None:
    page, other = tmp_path / "check.html", tmp_path / "other.html"
    other.write_text("<p>mine</p>", encoding="utf-8")
    for _ in range(2):
        assert 0 == CliRunner().invoke(app, ["check", str(file), "--html", str(page)]).exit_code
    assert "rows.jsonl:41" in page.read_text(encoding="utf-8")
    refused = CliRunner().invoke(app, ["check", str(file), "--html", str(other)])

    assert refused.exit_code
    assert "<p>mine</p>" == other.read_text(encoding="utf-8")
