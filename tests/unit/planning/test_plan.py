"""A plan looks and starts nothing; what the backend cannot honour is an error in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitune.backends import registry
from unitune.errors import MissingExtra
from unitune.job.job import Data, Job
from unitune.planning.plan import plan


def job(**changes: object) -> Job:
    content = {"name": "demo", "model": "small", "backend": "fake", "data": Data(train="t.jsonl")}
    return Job.model_validate({**content, **changes})


def rows(folder: Path, count: int) -> None:
    row = '{{"prompt": "question {0}", "completion": "answer {0}"}}\n'
    text = "".join(row.format(number) for number in range(count))
    (folder / "t.jsonl").write_text(text, encoding="utf-8")


def test_a_plan_counts_rows_and_writes_nothing(tmp_path: Path) -> None:
    rows(tmp_path, 100)
    before = sorted(tmp_path.rglob("*"))

    found = plan(job(folder=tmp_path))

    assert (found.train_rows, found.validation_rows, found.test_rows) == (70, 30, None)
    assert found.errors == ()
    assert before == sorted(tmp_path.rglob("*"))


def test_bad_data_is_in_the_plan_not_raised(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("{\n", encoding="utf-8")

    assert plan(job(folder=tmp_path)).errors


def test_a_missing_extra_is_an_error_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> None:
        raise MissingExtra("Install it with: pip install 'unitune[fake]'")

    rows(tmp_path, 100)
    monkeypatch.setattr(registry, "backend", missing)

    assert [finding.code for finding in plan(job(folder=tmp_path)).errors] == ["missing-extra"]
