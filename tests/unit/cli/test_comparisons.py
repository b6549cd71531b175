"""`unitune comparisons`: the list, one comparison, and what changed between two."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest
from support.command_line import Command
from support.sample_comparison import Counts, gated, sample_comparison

from unitune.backends.exactly_once import comparison_id
from unitune.evaluate.documents import history
from unitune.evaluate.documents.history import keep
from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Gate
from unitune.report.files import write_report


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Comparison]:
    """Three comparisons a second apart: worse, better, and better with a gate."""
    monkeypatch.chdir(tmp_path)
    later = count()
    monkeypatch.setattr(history, "comparison_id", lambda at: comparison_id(at + next(later)))
    counts = (Counts(10, 44, 60, 66), Counts(), Counts())
    made = [sample_comparison(each) for each in counts]
    made[2] = gated(made[2], Gate(mode="improve"))
    return [keep(each) for each in made]


def test_they_are_listed_newest_first_within_80_columns(
    unitune: Command, kept: list[Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = unitune("comparisons").out.splitlines()
    assert [each.id for each in reversed(kept)] == [
        word for line in lines for word in line.split()[:1] if word.startswith("c2")
    ]
    assert max(map(len, lines[:-1])) <= 80
    assert "gate passed" in "\n".join(lines)
    assert lines[-1].endswith("comparisons/ID/report.html")


def test_as_json_they_are_verdicts_with_their_folders(
    unitune: Command, kept: list[Comparison]
) -> None:
    told = json.loads(unitune("comparisons", "--limit", "2", "--json").out)
    assert (told["total"], told["left_out"], told["unreadable"]) == (3, 1, [])
    assert [each["id"] for each in told["comparisons"]] == [kept[2].id, kept[1].id]
    assert all(Path(each["folder"], "verdict.json").exists() for each in told["comparisons"])
    Comparison.model_validate(
        {name: value for name, value in told["comparisons"][0].items() if name != "folder"}
    )


def test_one_is_shown_as_it_was(unitune: Command, kept: list[Comparison]) -> None:
    write_report(kept[0])
    shown = unitune("comparisons", kept[0].id or "").out
    assert "WORSE  tuned" in shown
    assert f"{kept[0].id}/report.html" in shown
    told = unitune("comparisons", kept[0].id or "", "--json").out
    assert (kept[0].id, "worse") == (json.loads(told)["id"], json.loads(told)["verdict"])


def test_two_are_held_against_one_another(
    unitune: Command, kept: list[Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    same = unitune("comparisons", kept[1].id or "", "newest").out
    assert "Not compared case by case" not in same
    assert max(map(len, same.splitlines())) <= 80
    other = keep(sample_comparison(texts={"question": "Where is it?"}))
    told = unitune("comparisons", kept[0].id or "", other.id or "").out
    assert "Not compared case by case: the first has 180 cases" in " ".join(told.split())


def test_the_cases_gained_and_lost_are_shown(unitune: Command, kept: list[Comparison]) -> None:
    case = kept[1].cases[0]
    answers = {**case.answers, "tuned": case.answers["zero-shot"]}
    changed = type(case)(
        id=case.id, messages=case.messages, expected=case.expected, answers=answers
    )
    now = keep(kept[1].model_copy(update={"cases": (changed, *kept[1].cases[1:])}))
    was_right = case.answers["tuned"].scores["json_equal"] == 1
    out = unitune("comparisons", kept[1].id or "", now.id or "").out
    assert (f"tuned lost 1 case:\n  {case.id}" in out) == was_right
    told = json.loads(unitune("comparisons", kept[1].id or "", now.id or "", "--json").out)
    lost = {each["name"]: each["paired"]["lost"] for each in told["contenders"]}
    assert lost["tuned"] == [case.id] * was_right


def test_without_any_the_command_that_makes_one_is_named(unitune: Command) -> None:
    assert "unitune compare" in unitune("comparisons").out
    assert unitune("comparisons", "c26").code == 2
    assert unitune("comparisons", "c26", "--all").code == 2
