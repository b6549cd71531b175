"""A comparison in batches has each contender's questions answered in batches at its own vendor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("anthropic", reason="needs the vendors' extras")

from vendors.serving import ANTHROPIC, serve_vendor

from unitune.evaluate.compare import compare
from unitune.evaluate.inference import batch_runner
from unitune.job.job import Job
from unitune.testing import vendor_setup
from unitune.testing.loopback import Server

CASES = 12
RIVAL = {"type": "model", "backend": "anthropic", "model": "claude-haiku-4-5", "name": "claude"}


def job(folder: Path, backend: str, model: str) -> Job:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{number}?"},
                {"role": "assistant", "content": str(number)},
            ]
        }
        for number in range(CASES)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "test.jsonl").write_text(lines, encoding="utf-8")
    contenders = [
        {"type": "zero-shot", "role": "baseline"},
        RIVAL | {"prompt": "zero-shot", "role": "candidate"},
    ]
    return Job.model_validate(
        {
            "name": "rivals",
            "model": model,
            "backend": backend,
            "data": {"test": "test.jsonl"},
            "evaluate": {"contenders": contenders, "scorers": ["exact"]},
            "folder": folder,
        }
    )


def questions(server: Server, path: str) -> int:
    """Count what was asked one by one; a single one tries which settings a model takes."""
    return len(server.received("POST", path))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(batch_runner, "LONGEST_POLL_SECONDS", 0.01)


@pytest.mark.parametrize(
    ("backend", "batched", "singly"),
    [("openai", {"zero-shot", "claude"}, []), ("together", {"claude"}, ["zero-shot"])],
)
def test_each_vendor_that_can_answers_in_batches_and_who_cannot_is_named_before(
    tmp_path: Path,
    backend: str,
    batched: set[str],
    singly: list[str],
) -> None:
    told: list[str] = []
    with serve_vendor(backend) as own, vendor_setup.serve_vendor(ANTHROPIC) as served:
        rival = served.server
        comparing = job(tmp_path, backend, own.setup.model)
        found = compare(comparing, out=tmp_path / "out", batch=True, announce=told.append)
        asked = questions(own.server, r"/chat/completions$")
        assert asked == CASES if singly else asked <= 1
        assert questions(rival, r"/v1/messages$") <= 1
        assert len(rival.received("POST", r"/v1/messages/batches$")) == 1
    lines = (tmp_path / "out" / "batches.jsonl").read_text(encoding="utf-8").splitlines()
    assert batched == {json.loads(line)["contender"] for line in lines if "contender" in line}
    assert {result.errors for result in found.contenders} == {0}
    beginnings = [f"{name} uses single requests" for name in singly]
    warned = [line.partition(" at ")[0] for line in told if "single requests" in line]
    assert beginnings == warned
