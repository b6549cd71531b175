"""The guide `leave-openai.md`, as written: from a job at OpenAI to a gate that is met.

OpenAI is its loopback server; the training is the quickstart's own, because the rows that come back
from OpenAI's files are the rows that it learned from.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from vendors.openai.vendor import KEY, OpenAIVendor

from unitune.data.load import load
from unitune.testing.loopback import Server, serve
from unitune.testing.vendor_setup import ServerBehavior

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "leave-openai.md"
EXAMPLE = ROOT / "examples" / "leave-openai"
BASH = re.findall(r"```bash\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
COMMANDS = [line for block in BASH for line in block.splitlines()]
RIGHT_OF_TEN = 4
"""Cases of ten that the old model answers as labelled."""


@dataclass(frozen=True)
class Walk:
    """Where the walk is done."""

    folder: Path
    server: Server
    old_job: str
    environment: dict[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(command.replace("ftjob-abc123", self.old_job), comments=True)
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def walk(
    quickstart: Any,
    guarded_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("leaving")
    shutil.copy(quickstart.folder / "bank-intents" / "test.jsonl", folder)
    shutil.copytree(quickstart.folder / ".unitune", folder / ".unitune")
    shutil.copytree(quickstart.state, folder / ".unitune", dirs_exist_ok=True)
    cases = enumerate(load(folder / "test.jsonl"))
    replies = {
        case.prompt[-1].text: case.answer or "" if number % 10 < RIGHT_OF_TEN else "{}"
        for number, case in cases
    }
    # The copied ledger refers to the folder of the run, which other tests read.
    evaluation = quickstart.run_folder / "evaluation"
    shutil.copytree(evaluation, folder / "evaluation")
    with serve(OpenAIVendor(ServerBehavior(replies=replies))) as server:
        yield Walk(
            folder,
            server,
            tuned_by_other_means(server, quickstart.folder / "bank-intents" / "train.jsonl"),
            {
                **guarded_environment,
                "UNITUNE_DIR": str(folder / ".unitune"),
                "OPENAI_BASE_URL": f"{server.url}/v1",
                "OPENAI_API_KEY": KEY,
            },
        )
    shutil.rmtree(evaluation)
    shutil.copytree(folder / "evaluation", evaluation)


def tuned_by_other_means(server: Server, rows: Path) -> str:
    """Tune a model as people did, with OpenAI's own client; return the job's id."""
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        file = client.files.create(file=rows, purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            training_file=file.id,
            model="gpt-4.1-mini-2025-04-14",
            seed=0,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}},
        )
        while job.status != "succeeded":
            job = client.fine_tuning.jobs.retrieve(job.id)
    return str(job.id)


def test_the_walk_ends_with_the_gate_met(walk: Walk) -> None:
    """The training is refused as a twin: it is the quickstart's, to the last row and setting."""
    brought, *plans, run, compare = COMMANDS

    imported = walk.run(brought)
    assert imported.returncode == 0, imported.stderr
    answers = (walk.folder / "moved" / "old-answers.jsonl").read_text("utf-8").splitlines()
    assert len(load(walk.folder / "test.jsonl")) == len(answers)

    shutil.copy(EXAMPLE / "unitune.yaml", walk.folder / "moved")
    assert len(plans) == 4
    for plan in plans:
        planned = walk.run(plan)
        assert planned.returncode == 0, planned.stdout + planned.stderr

    trained = walk.run(run)
    assert trained.returncode == 2
    assert "is the same training" in trained.stderr

    compared = walk.run(compare)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    newest = max(walk.folder.rglob("verdict.json"), key=lambda file: file.stat().st_mtime)
    verdict = json.loads(newest.read_text("utf-8"))
    assert (verdict["baseline"], verdict["candidate"]) == ("old-model", "tuned")
    assert verdict["gate"]["passed"]
    scores = {one["name"]: one["score"] for one in verdict["contenders"]}
    assert pytest.approx(RIGHT_OF_TEN / 10, abs=0.02) == scores["old-model"]
    assert scores["old-model"] < scores["tuned"]


def test_the_same_import_again_asks_the_old_model_nothing(walk: Walk) -> None:
    before = len(walk.server.received("POST", "/chat/completions$"))
    (walk.folder / "moved" / "unitune.yaml").unlink(missing_ok=True)

    again = walk.run(COMMANDS[0])

    assert again.returncode == 0, again.stderr
    assert before == len(walk.server.received("POST", "/chat/completions$"))


def test_the_imported_job_has_the_settings_of_the_old_one(walk: Walk) -> None:
    walk.run("unitune import openai:ftjob-abc123 --output fresh")

    text = (walk.folder / "fresh" / "unitune.yaml").read_text("utf-8")

    assert "gpt-4.1-mini-2025-04-14" in text
    assert "epochs: 4" in text
