"""A wrong option is told before anything is sent, without a key and with the nearest right name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from vendors.serving import ServedVendor, serve_vendor

from unitune.backends import registry
from unitune.backends.capabilities import ValidatesOptions
from unitune.errors import JobError, Unsupported
from unitune.job.job import Data, Job
from unitune.planning.plan import plan
from unitune.run.run import launch, runs
from unitune.testing.contract_base import ROWS
from unitune.workspace.user_settings import current

GRADER = {"type": "string_check"}
MISSPELT: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("gpt-4.1", {"learning_rate_multiplyer": 2}),
    "azure": ("gpt-4.1", {"trainingtype": "Standard"}),
    "mantle": ("openai.gpt-oss-20b", {"graders": GRADER}),
    "nebius": ("any", {"max_gradnorm": 0.1}),
    "together": ("Qwen/Qwen3-8B", {"n_eval": 1}),
    "vertex": ("gemini-3.5-flash", {"learning_rate_multiplyer": 2}),
    "bedrock": ("amazon.nova-micro-v1:0", {"role": "arn"}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "reinforcement without a grader": ("openai", {"method": "rft"}, "needs a grader"),
    "grader for supervised": ("openai", {"options": {"grader": GRADER}}, "for method rft"),
    "open model on Azure": ("azure", {"model": "gpt-oss-20b"}, "only with globalStandard"),
    "adapter settings without adapters": (
        "nebius",
        {"options": {"lora": False}, "tuning": {"lora": {"rank": 8}}},
        "lora is false",
    ),
    "schedule without its kind": (
        "together",
        {"options": {"num_cycles": 1}},
        "needs tuning.schedule",
    ),
    "rank between sizes": ("vertex", {"tuning": {"lora": {"rank": 5}}}, "rank is 5"),
    "learning rate beyond Nova's": ("bedrock", {"tuning": {"learning_rate": 0.1}}, "1e-06 to 0.0"),
    "warm-up of Nova for Llama": (
        "bedrock",
        {"model": "meta.llama3-3-70b-instruct-v1:0", "tuning": {"warmup": 1}},
        "only for Nova models",
    ),
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No key and no server of any vendor."""
    for name in ("OPENAI_API_KEY", "TOGETHER_API_KEY", "AZURE_OPENAI_API_KEY", "NEBIUS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    current().backends.clear()
    yield
    current().backends.clear()


def job(backend: str, folder: Path, changes: dict[str, Any]) -> Job:
    (folder / "train.jsonl").write_text("".join(ROWS) * 20)
    model, _ = MISSPELT[backend]
    own = {backend: changes.get("options", {})}
    fixed = {"name": "a", "model": model, "backend": backend, "data": Data(train="train.jsonl")}
    return Job.model_validate({**fixed, **changes, "options": own, "folder": folder})


def validate_options(wanted: Job) -> None:
    backend = registry.backend(wanted.backend)
    assert isinstance(backend, ValidatesOptions)
    backend.validate_options(wanted)


@pytest.mark.parametrize("backend", MISSPELT)
def test_an_unknown_option_is_refused_with_all_right_names(backend: str, tmp_path: Path) -> None:
    _, options = MISSPELT[backend]
    method = "rft" if backend == "mantle" else "sft"
    with pytest.raises(JobError) as told:
        validate_options(job(backend, tmp_path, {"options": options, "method": method}))
    (key,) = options
    assert f"options.{backend}.{key} is not a known key. Did you mean" in str(told.value)
    assert "Known: " in str(told.value)


@pytest.mark.parametrize(("backend", "changes", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(
    backend: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises((JobError, Unsupported), match=words):
        validate_options(job(backend, tmp_path, changes))


@pytest.mark.parametrize("backend", sorted(set(MISSPELT) - {"mantle"}))
def test_a_job_without_options_passes(backend: str, tmp_path: Path) -> None:
    validate_options(job(backend, tmp_path, {}))


def test_the_plan_shows_a_wrong_option_as_an_error(tmp_path: Path) -> None:
    found = plan(job("together", tmp_path, {"options": {"n_eval": 1}}))
    assert [finding.code for finding in found.errors] == ["refused-options"]


@pytest.mark.parametrize("backend", ["openai", "together", "vertex"])
def test_a_launch_with_a_wrong_option_sends_and_writes_nothing(
    backend: str, tmp_path: Path
) -> None:
    served: ServedVendor
    with serve_vendor(backend) as served:
        with pytest.raises(JobError):
            launch(job(backend, tmp_path, {"options": MISSPELT[backend][1]}))
        assert served.server.requests == []
    assert runs() == []
