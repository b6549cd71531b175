"""Each page of the documentation does what it says: its blocks, in their order, in one folder.

A block with a title is a file; a command is run; Python is run; YAML without a title is part of a
job. A line ``<!-- test: … -->`` before a block says otherwise: ``exit N`` that its last command
ends so, `DRIFT` after it that the vendor's models have changed before, ``skip: WHY`` that another
test covers it.

Pages that train do so on the model that they name, in `slow`; in others a tiny one stands for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from crash.postgres import new_database
from support.command_line import ran
from support.job_files import write_rows
from support.trained_runs import IMPROVE, change_answers_of, triage_job
from support.warm import WarmPopen, warm_run

import unitune.errors
from unitune.cost.budget import ProjectBudget
from unitune.cost.prices.book import PricesFile
from unitune.job.job import Job
from unitune.workspace.user_config import UserConfig

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATE = runpy.run_path(str(DOCS / "generate.py"))
BLOCK = re.compile(
    r"(?:<!-- test: (?P<note>[^\n]*) -->\n)?"
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
VARIABLE = re.compile(r"(?P<name>[A-Z_]+)=(?P<value>.*)")
DRIFT = "after the vendor changed its models"
JOB = {
    "name": "job",
    "model": "smollm2-135m-instruct",
    "backend": "local",
    "data": {"train": "train.jsonl"},
}
TRAINS = ("tutorial.md", "how-to/tune-on-your-own-machine.md")
TUTORIAL_LINES = slice(165, 225)
"""Few, so that its training takes seconds."""
WALKED_ELSEWHERE = (
    "how-to/leave-openai.md",  # tests/slow/test_leave_openai.py, with OpenAI's double
    "how-to/work-behind-a-proxy.md",  # tests/docs/test_work_behind_a_proxy.py, likewise
)
PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@dataclass(frozen=True)
class Walk:
    """A page that is walked through.

    Args:
        folder: Where its files are written and its commands run.
        environment: Of its commands.
        port: In place of 8000, which may be taken.
        ends: What ends with the page.
    """

    folder: Path
    environment: dict[str, str]
    port: int
    ends: contextlib.ExitStack

    def command(self, line: str) -> int:
        """Run one command line of unitune and return its exit code."""
        words, environment = shlex.split(line, comments=True), dict(self.environment)
        while words and (given := VARIABLE.fullmatch(words[0])):
            environment[given["name"]] = given["value"]
            del words[0]
        if words[:2] == ["unitune", "serve"]:
            return self.serve([*words, "--port", str(self.port)])
        if words[0] == "export":
            assert words[1].partition("=")[0] in self.environment, words[1]
            return 0
        if words[0] != "unitune":
            assert words[:2] == ["pip", "install"], line
            return 0
        done = warm_run([sys.executable, "-m", *words], cwd=self.folder, env=environment)
        print(line, done.stdout, done.stderr)  # noqa: T201 - shown where the test fails
        return done.returncode

    def serve(self, words: list[str]) -> int:
        """Serve until the page ends."""
        printed = self.folder.parent / "served"
        with printed.open("w") as stdout:
            command = [sys.executable, "-m", *words]
            options = {"cwd": self.folder, "env": self.environment, "stdout": stdout.fileno()}
            server = WarmPopen(command, **options)
        self.ends.callback(server.wait)
        self.ends.callback(os.kill, server.pid, signal.SIGTERM)
        while not printed.read_text():
            assert server.poll() is None
            time.sleep(0.1)
        return 0

    def python(self, text: str) -> int:
        """Run Python and return its exit code."""
        text = text.replace("8000", str(self.port))
        block = self.folder.parent / "block.py"
        block.write_text(text, encoding="utf-8")
        done = warm_run([sys.executable, str(block)], cwd=self.folder, env=self.environment)
        print(text, done.stdout, done.stderr)  # noqa: T201 - likewise
        return done.returncode

    def write(self, title: str, text: str) -> None:
        """Write a file of the page, which must be what its name says."""
        file = self.folder / title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if title.endswith("prices.yaml"):
            PricesFile.model_validate(yaml.safe_load(text))
        elif title == "budget.yaml":
            ProjectBudget.model_validate(yaml.safe_load(text))
        elif title == "config.yaml":
            UserConfig.model_validate(yaml.safe_load(text))
        elif title.endswith("unitune.yaml"):
            Job.load(file)


def free_port() -> int:
    """Return a port of this machine that no one listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def rows(folder: Path) -> None:
    """Write what a page takes for granted: training and test rows."""
    for name, first, count in (("train", 0, 48), ("test", 64, 6)):
        numbers = range(first, first + count)
        given = (
            {"id": f"c{n}", "prompt": f"What is {n} plus {n}?", "completion": str(2 * n)}
            for n in numbers
        )
        write_rows(folder / f"{name}.jsonl", given)


def recorded_evaluation(folder: Path) -> None:
    """Write a comparison whose answers are there already, for the pages about verdicts."""
    evals = folder / "evals"
    evals.mkdir()
    rows(evals)
    cases = [json.loads(line) for line in (evals / "test.jsonl").read_text().splitlines()]
    answers = [{"case": case["id"], "answer": case["completion"]} for case in cases]
    for name in ("old", "new"):
        write_rows(evals / f"{name}.jsonl", answers)
    job = JOB | {
        "data": {"test": "test.jsonl"},
        "evaluate": {
            "scorers": ["exact"],
            "margin": 0.5,
            "contenders": [
                {"type": "recorded", "name": "old", "answers": "old.jsonl", "role": "baseline"},
                {"type": "recorded", "name": "new", "answers": "new.jsonl", "role": "candidate"},
            ],
            "gate": {"mode": "no-regress", "baseline": "baseline.jsonl", "min_cases": 5},
        },
    }
    (evals / "unitune.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")


def three_jobs(folder: Path) -> None:
    """Write three jobs of one name at the fake vendor, with models of different worth."""
    for name, right in (("unitune", 40), ("more-rows", 50), ("smaller", 20)):
        job = triage_job(right, IMPROVE, "support-triage", folder)
        job.save(folder / f"{name}.yaml")


@pytest.fixture
def walk(
    request: pytest.FixtureRequest, tmp_path: Path, guarded_environment: dict[str, str]
) -> Iterator[Walk]:
    page = request.node.callspec.params["page"]
    with contextlib.ExitStack() as stack:
        environment = guarded_environment | {"XDG_STATE_HOME": os.environ["XDG_STATE_HOME"]}
        if page in TRAINS:
            request.getfixturevalue("default_model")
        else:
            environment["UNITUNE_CACHE"] = str(request.getfixturevalue("tiny_default"))
        if "share-a-ledger" in page:
            environment["UNITUNE_LEDGER"] = stack.enter_context(new_database(empty=True))
        if page == "tutorial.md":
            messages = (DOCS / "tutorial" / "messages.csv").read_text("utf-8")
            header, *lines = messages.splitlines(keepends=True)
            kept = "".join([header, *lines[TUTORIAL_LINES]])
            (tmp_path / "messages.csv").write_text(kept, encoding="utf-8")
        elif "gate" in page or "judge" in page:
            recorded_evaluation(tmp_path)
        elif "promote" in page:
            environment["UNITUNE_FAKE_DIR"] = str(tmp_path / "vendor")
            three_jobs(tmp_path)
        else:
            rows(tmp_path)
            job = JOB | {"data": {"train": "train.jsonl", "test": "test.jsonl"}}
            (tmp_path / "unitune.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
        made = Walk(tmp_path, environment, free_port(), stack)
        if "export" in page or "card" in page:
            assert made.command("unitune run --quiet") == 0
        yield made


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in TRAINS else [])
        for page in PAGES
        if page not in WALKED_ELSEWHERE
    ],
)
def test_a_page_does_what_it_says(page: str, walk: Walk) -> None:
    walk_through(DOCS / page, walk)


def walk_through(page: Path, walk: Walk) -> None:
    """Write the files of a page and run its commands, in order."""
    text = GENERATE["PART"].sub("", page.read_text(encoding="utf-8"))
    for block in BLOCK.finditer(text):
        note, language, title = block["note"] or "", block["language"], block["title"]
        if note.startswith("skip: ") or (title is None and language == "text"):
            continue
        text = block["text"]
        if title is not None:
            walk.write(title, text)
        if language == "bash":
            if note.endswith(DRIFT):
                for model in walk.folder.glob("vendor/*.*/"):
                    change_answers_of(model, 10)
            expected = int(note.removeprefix("exit ").removesuffix(DRIFT) or 0)
            codes = [walk.command(line) for line in text.splitlines() if line.strip()]
            assert [0] * (len(codes) - 1) + [expected] == codes, text
        elif language == "python":
            assert walk.python(text) == 0, text
        elif language == "yaml" and title is None:
            part: dict[str, Any] = yaml.safe_load(text)
            Job.model_validate(JOB | part)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every link and anchor leads somewhere, and every name that is documented is there."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = ran(build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_generated_parts_are_those_of_the_code(page: str) -> None:
    """`python docs/generate.py` would change nothing."""
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text == GENERATE["generated"](text)


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^### ([\w.]+)$", page, re.MULTILINE))
    described |= set(re.findall(r"\[`(\w+)`\]\(job-file", page))
    namespaces = {"errors", "registry", "scorers", "types"}
    public = {*unitune.__all__} - namespaces
    public |= {f"registry.{name}" for name in unitune.registry.__all__}
    public |= {f"types.{name}" for name in unitune.types.__all__}
    public |= {kind.__name__ for kind in unitune.scorers.ENTRIES.values()}
    assert public - described == set()
