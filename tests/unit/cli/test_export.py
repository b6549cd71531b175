"""`unitune models export` hands a backend the rows that verify, and says what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import trained_run

from unitune.backends import registry
from unitune.backends.local_capabilities import Exported, ExportSpec
from unitune.data.example import Example, Message
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.run import exporting
from unitune.testing.fake import FakeBackend


class ExportingFake(FakeBackend):
    """Writes a file, and says that one of two answers was the run's own."""

    asked: ExportSpec

    def export(self, model: TunedModel, spec: ExportSpec) -> Exported:
        type(self).asked = spec
        return Exported(
            form=spec.form,
            folder=spec.folder,
            files={"tiny.gguf": 1_500_000, "unitune.json": 300},
            seconds=2.4,
            program="llama.cpp 1",
            rows=2,
            equal=1,
            use=f"llama-server -m {spec.folder}/tiny.gguf",
            notes=("First.", f"Of {model.base}."),
        )


class DownloadingFake(FakeBackend):
    """Hands out weights, as some vendors do."""

    def download(self, model: TunedModel, folder: Path) -> Path:
        del model
        folder.mkdir()
        (folder / "adapter.tar.zst").write_bytes(b"weights")
        return folder / "adapter.tar.zst"


@pytest.fixture
def _run(unitune: Command, tmp_path: Path) -> None:
    evaluate = {"max_tokens": 9, "temperature": 0.5}
    trained_run(unitune, tmp_path, system="Be brief.", evaluate=evaluate)


def taking(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "backend", lambda _: backend)


@pytest.mark.usefixtures("_run")
def test_the_validation_rows_verify_as_an_evaluation_asks_them(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking(ExportingFake(), monkeypatch)
    assert unitune("models", "export", "--to", "ollama", "--quantization", "Q8_0").code == 0
    spec = ExportingFake.asked
    assert (spec.name, spec.form, spec.quantization) == ("demo", "ollama", "Q8_0")
    assert (Path("demo-ollama"), 0.5, "Be brief.") == (spec.folder, spec.temperature, spec.system)
    (kept,) = tmp_path.glob(".unitune/runs/*/validation.jsonl")
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    expected = [[turn["content"] for turn in row["messages"][:-1]] for row in rows]
    assert expected == [[turn.text for turn in each.messages] for each in spec.requests]
    assert {(each.max_tokens, each.temperature) for each in spec.requests} == {(9, 0.0)}


def test_the_beginning_of_a_raw_text_verifies(tmp_path: Path) -> None:
    row = Example(messages=(Message(role="user", content="abcdef"),))
    (tmp_path / "validation.jsonl").write_text(row.line + "\n", encoding="utf-8")
    content = {"name": "x", "model": "m", "backend": "local", "method": "cpt"}
    job = Job.model_validate({**content, "data": {"train": "texts.jsonl"}})
    (request,) = exporting._requests(tmp_path, job)
    assert [turn.text for turn in request.messages] == ["abcd"]
    assert request.max_tokens > 0


@pytest.mark.usefixtures("_run")
def test_it_says_what_was_written_and_how_it_was_verified(
    unitune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking(ExportingFake(), monkeypatch)
    assert unitune("models", "export", "--to", "gguf", "-o", "out").out == (
        "folder          out  1.5 MB, 2 s\n"
        "  tiny.gguf     1.5 MB\n"
        "  unitune.json  0.3 kB\n"
        "verified        1 of 2 greedy answers equal the run's own (50%), in llama.cpp 1\n"
        "note            First.\n"
        "                Of any.\n"
        "Use it: llama-server -m out/tiny.gguf\n"
    )
    assert unitune("models", "export", "--to", "gguf", "-o", "out", "--quiet").out == "out\n"
    shown = json.loads(unitune("models", "export", "--to", "gguf", "-o", "out", "--json").out)
    assert tuple(shown[name] for name in ("schema_version", "folder", "rows", "equal")) == (
        1,
        "out",
        2,
        1,
    )


@pytest.mark.usefixtures("_run")
def test_a_vendor_that_hands_out_weights_gives_an_adapter_alone(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking(DownloadingFake(), monkeypatch)
    refused = unitune("models", "export", "--to", "gguf", "-o", "out")
    assert refused.code == 2
    assert "backend 'fake' offers only adapters (--to adapter)." in refused.err
    shown = unitune("models", "export", "--to", "adapter", "-o", "out")
    assert (tmp_path / "out" / "adapter.tar.zst").read_bytes() == b"weights"
    assert "verified           no\n" in shown.out
    assert "not verified: no model was run" in shown.out
    assert "out already exists" in unitune("models", "export", "--to", "adapter", "-o", "out").err


@pytest.mark.usefixtures("_run")
def test_a_vendor_that_keeps_its_weights_is_named(unitune: Command) -> None:
    refused = unitune("models", "export", "--to", "merged")
    assert refused.code == 2
    assert "backend 'fake' offers no weights. Models tuned on this machine" in refused.err
