"""An existing job of each vendor becomes a job of ours: its rows, its settings, its old model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from vendors.serving import VENDORS, ServedVendor, serve_vendor

from unitune.backends.capabilities import ImportedJob
from unitune.backends.protocol import State
from unitune.data.load import load
from unitune.errors import DataError, NotFoundError, UnituneError, Unsupported, UserError
from unitune.evaluate.inference.sources import read_answers
from unitune.importers.vendor_jobs import ANSWERS, OLD_MODEL, import_job, record_answers
from unitune.job.contenders import Recorded, Tuned
from unitune.job.job import Data, Job, Tuning
from unitune.run.run import Run, launch
from unitune.testing.loopback import Fault
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.openai.backend import OpenAIBackend

ROWS = [
    {
        "messages": [
            {"role": "system", "content": "VendorResponse in one word."},
            {"role": "user", "content": f"What is {number} and {number}? «ß»\n"},
            {"role": "assistant", "content": str(2 * number)},
        ]
    }
    for number in range(60)
]


@pytest.fixture(params=sorted(VENDORS.keys() - {"fireworks"}))  # its backend imports none
def vendor(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ServedVendor]:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    behavior = ServerBehavior(replies={row["messages"][1]["content"]: "old" for row in ROWS[:40]})
    with serve_vendor(request.param, behavior) as served:
        yield served


@pytest.fixture
def old(vendor: ServedVendor, tmp_path: Path) -> Run:
    """A training that is done; how it was launched does not matter to an import."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    name = next(name for name, part in VENDORS.items() if part is vendor.setup)
    job = Job(
        name="old",
        model=vendor.setup.model,
        backend=name,
        data=Data(train="train.jsonl", validation=None),
        tuning=Tuning(epochs=2),
        folder=tmp_path,
    )
    run = launch(job).wait(0.01)
    assert State.SUCCEEDED is run.state
    return run


def source(run: Run) -> str:
    return f"{run.backend_name}:{run.job_id}"


def test_rows_and_settings_come_back_as_they_were_handed_over(old: Run, tmp_path: Path) -> None:
    found = import_job(source(old), tmp_path / "moved")

    assert [example.content for example in load(old.folder / "train.jsonl")] == [
        example.content for example in load(tmp_path / "moved" / "train.jsonl")
    ]
    job = Job.load(tmp_path / "moved" / "unitune.yaml")
    assert job == found.job
    assert (old.backend_name, "sft", 2) == (job.backend, job.method, job.tuning.epochs)
    assert [spec.name for spec in job.evaluate.contenders] == [OLD_MODEL, "tuned"]
    assert [type(spec) for spec in job.evaluate.contenders] == [Recorded, Tuned]
    assert old.model is not None
    assert found.model is not None
    assert old.model.name == found.model.name


def test_a_second_import_changes_nothing_and_other_files_are_left_alone(
    old: Run, tmp_path: Path
) -> None:
    import_job(source(old), tmp_path / "moved")
    before = {file: file.read_bytes() for file in (tmp_path / "moved").iterdir()}
    import_job(source(old), tmp_path / "moved")
    assert before == {file: file.read_bytes() for file in (tmp_path / "moved").iterdir()}

    (tmp_path / "moved" / "train.jsonl").write_text("mine\n", encoding="utf-8")
    (tmp_path / "moved" / "unitune.yaml").unlink()
    with pytest.raises(UserError, match=r"exists with other content\. Nothing was written"):
        import_job(source(old), tmp_path / "moved")
    assert not (tmp_path / "moved" / "unitune.yaml").exists()


def test_an_unknown_job_is_said_to_be_so(vendor: ServedVendor, tmp_path: Path) -> None:
    name = next(name for name, part in VENDORS.items() if part is vendor.setup)
    with pytest.raises(UnituneError, match="no-such-job"):
        import_job(f"{name}:no-such-job", tmp_path / "moved")
    assert not (tmp_path / "moved").exists()


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
def test_rows_that_cannot_be_read_are_named_and_nothing_is_written(
    old: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = OpenAIBackend.import_job

    def spoiled(self: OpenAIBackend, job_id: str) -> ImportedJob:
        found = whole(self, job_id)
        return replace(found, training=b'{"messages": []}\n' + (found.training or b""))

    monkeypatch.setattr(OpenAIBackend, "import_job", spoiled)
    with pytest.raises(DataError, match=rf"{source(old)}/train\.jsonl has 1 rows.*:1"):
        import_job(source(old), tmp_path / "moved")
    assert not (tmp_path / "moved").exists()


@pytest.mark.parametrize("vendor", ["openai", "vertex"], indirect=True)
def test_old_answers_are_kept_and_only_missing_ones_are_asked_again(
    old: Run, vendor: ServedVendor, tmp_path: Path
) -> None:
    cases = list(load(tmp_path / "train.jsonl"))[:12]
    file = tmp_path / ANSWERS
    model = import_job(source(old), tmp_path / "moved").model
    assert model is not None
    questions = r"/chat/completions$|:generateContent$"
    vendor.server.inject_fault(Fault.EXPIRED_KEY, "POST", questions, times=2)

    failures = record_answers(model, cases, file)
    assert len(cases) - len(failures) == len(read_answers(file)) < len(cases)
    asked = len(vendor.server.received("POST", questions))
    assert record_answers(model, cases, file) == []

    assert set(read_answers(file).values()) == {"old"}
    assert {case.case_id for case in cases} == set(read_answers(file))
    assert asked + len(failures) == len(vendor.server.received("POST", questions))


@pytest.mark.parametrize("vendor", ["openai", "vertex"], indirect=True)
def test_a_rate_limit_is_waited_for_and_loses_no_old_answer(
    old: Run, vendor: ServedVendor, tmp_path: Path
) -> None:
    cases = list(load(tmp_path / "train.jsonl"))[:12]
    model = import_job(source(old), tmp_path / "moved").model
    assert model is not None
    questions = r"/chat/completions$|:generateContent$"
    vendor.server.inject_fault(Fault.RATE_LIMITED, "POST", questions, times=2)

    assert record_answers(model, cases, tmp_path / ANSWERS) == []
    assert len(cases) == len(read_answers(tmp_path / ANSWERS))


def test_what_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="openai:ftjob-abc123"):
        import_job("openai", tmp_path)
    with pytest.raises(Unsupported, match="has no jobs to import"):
        import_job("local:r1", tmp_path)
    with pytest.raises(NotFoundError, match="opnai"):
        import_job("opnai:ftjob-1", tmp_path)
