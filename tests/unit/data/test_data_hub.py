"""Data sets of the hub by name; the hub itself is played by what `datasets` would load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from support.rows import findings_in

from unitune.data.binary_tables import source_name
from unitune.data.check import check_file, read_job
from unitune.data.load import load, read
from unitune.job.job import Job

SPLITS = {
    "train": datasets.Dataset.from_dict({"question": ["q", "r"], "answer": ["a", "b"]}),
    "test": datasets.Dataset.from_dict({"question": ["s"], "answer": ["c"]}),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str | None, *, split: str, revision: str | None) -> Any:
        made.append((path, name, split, revision))
        if path != "owner/set":
            raise ConnectionError(f"Couldn't reach {path!r} on the Hub\nand more")
        return SPLITS[split]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return made


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf://o/n", ("o/n", None, "train", None)),
        ("hf://o/n/test", ("o/n", None, "test", None)),
        ("hf://o/n/main/test", ("o/n", "main", "test", None)),
        ("hf://o/n@v1.0/test", ("o/n", None, "test", "v1.0")),
    ],
)
def test_a_name_says_split_configuration_and_revision(
    calls: list[tuple[Any, ...]], name: str, expected: tuple[Any, ...]
) -> None:
    list(read(name))  # which the hub has not
    assert calls == [expected]
    assert name == source_name(Path(name))  # which has lost a slash


def test_a_job_reads_data_sets_by_their_names(calls: list[tuple[Any, ...]]) -> None:
    data = {"train": "hf://owner/set", "test": "hf://owner/set/test"}
    job = Job.model_validate({"name": "j", "model": "m", "backend": "b", "data": data})
    report = read_job(job).report
    assert [(file.name, file.rows) for file in report.files] == [
        ("hf://owner/set", 2),
        ("hf://owner/set/test", 1),
    ]
    assert report.files[0].read_as == "a data set of the Hub: pairs from question, answer"
    assert sorted(call[2] for call in calls) == ["test", "train"]


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("hf://owner/other", "unreachable-dataset"),
        ("hf://owner", "wrong-name"),
        ("hf://a/b/c/d/e", "wrong-name"),
    ],
)
def test_what_cannot_be_loaded_is_one_error_with_its_name(name: str, code: str) -> None:
    (found,) = findings_in(name)
    assert (code, name) == (found.code, found.file)


@pytest.mark.usefixtures("calls")
def test_a_folder_of_the_same_name_is_not_read_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "owner" / "set").mkdir(parents=True)
    (found,) = check_file("hf://owner/set").findings
    assert found.code == "two-meanings"


@pytest.mark.usefixtures("calls")
def test_a_path_object_names_it_too() -> None:
    assert len(load(Path("hf://owner/set"))) == 2
