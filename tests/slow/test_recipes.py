"""Each recipe of `examples/`, as its page shows it, on the real model.

The teacher is OpenAI on loopback, and the reviewer is a script that knows the rules of the house.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from unitune.evaluate.documents.history import find_comparison
from unitune.evaluate.review.queue import Review

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
BASH = re.compile(r"```bash\n(.*?)```", re.DOTALL)
VERDICT = re.compile(r"^Verdict([ \w]*): \*\*([-\w ]+)\*\*", re.MULTILINE)
PLAIN = ["json-extraction", "preference-tuning", "tool-calls"]
MOST_CUT = 0.02
"""Share of the answers that may be cut off: of the candidate, and of the prompt hardest to beat."""


def expected_verdicts(folder: Path) -> dict[str, str]:
    """Return the verdicts that a page promises, by what stands before the colon."""
    found = VERDICT.findall((folder / "README.md").read_text("utf-8"))
    return {when.strip(): verdict for when, verdict in found}


@dataclass
class Recipe:
    """A copy of a recipe's folder, and the environment of its commands."""

    folder: Path
    environment: dict[str, str]

    @property
    def expected(self) -> dict[str, str]:
        return expected_verdicts(self.folder)

    def run(self, block: int = 0) -> dict[str, Any]:
        """Run the commands of a block, and return the last verdict."""
        page = (self.folder / "README.md").read_text("utf-8")
        for line in BASH.findall(page)[block].splitlines():
            begun = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", *shlex.split(line, comments=True)],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            print(f"{time.monotonic() - begun:.0f} s", line, done.stdout, done.stderr)  # noqa: T201
            assert done.returncode in (0, 3), line
        files = sorted(self.folder.rglob("evaluation/verdict.json"), key=os.path.getmtime)
        verdict: dict[str, Any] = json.loads(files[-1].read_text("utf-8"))
        for contender in verdict["contenders"]:
            assert not contender["errors"], contender["name"]
            if contender["name"] in (verdict["candidate"], verdict["baseline"]):
                assert contender["cut"] <= MOST_CUT * contender["answers"], contender["name"]
        return verdict


@pytest.fixture
def recipe(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    guarded_environment: dict[str, str],
    default_model: Path,
) -> Recipe:
    assert default_model.is_dir()
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    folder = tmp_path / "examples" / request.param
    own = {"XDG_STATE_HOME": str(tmp_path / "state"), "OPENAI_API_KEY": "sk-loopback"}
    return Recipe(folder, guarded_environment | own)


class Teacher(BaseHTTPRequestHandler):
    """Chat completions that name the topic of a message, and for every tenth a wrong one."""

    answers: ClassVar[dict[str, str]] = {}

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as http.server has it
        """Stay quiet."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": self.answers[request["messages"][-1]["content"]]}
        body = json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 99, "completion_tokens": 9, "total_tokens": 108},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def teacher(recipe: Recipe) -> Iterator[None]:
    rows = read_rows(EXAMPLES / "bank-intents" / "train.jsonl")
    topics = sorted({answer for _, answer in read_rows(recipe.folder / "train.jsonl")})
    for at, (question, topic) in enumerate(rows):
        Teacher.answers[question] = topic if at % 10 else topics[at // 10 % len(topics)]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Teacher)
    Thread(target=server.serve_forever, daemon=True).start()
    recipe.environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{server.server_port}/v1"
    yield
    server.shutdown()
    server.server_close()


def read_rows(file: Path) -> list[tuple[str, str]]:
    """Return the questions and answers of chat rows."""
    rows = (json.loads(line)["messages"] for line in file.read_text("utf-8").splitlines())
    return [(row[-2]["content"], row[-1]["content"]) for row in rows]


def test_classification_ends_with_its_verdict(quickstart: Any) -> None:
    """The recipe for classification is the quickstart's own job."""
    expected = expected_verdicts(EXAMPLES / "bank-intents")
    assert quickstart.verdict["verdict"] == expected[""]


@pytest.mark.parametrize("recipe", PLAIN, indirect=True)
def test_a_recipe_ends_with_its_verdict(recipe: Recipe) -> None:
    assert recipe.run()["verdict"] == recipe.expected[""]


@pytest.mark.usefixtures("teacher")
@pytest.mark.parametrize("recipe", ["distillation"], indirect=True)
def test_a_student_learns_from_its_teacher(recipe: Recipe) -> None:
    assert recipe.run()["verdict"] == recipe.expected[""]


@pytest.mark.parametrize("recipe", ["house-style"], indirect=True)
def test_a_judge_decides_only_with_labels(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recipe.run()
    assert first["verdict"] == recipe.expected["before labels"]
    monkeypatch.setenv("XDG_STATE_HOME", recipe.environment["XDG_STATE_HOME"])
    monkeypatch.chdir(recipe.folder)
    review_by_rules(recipe.folder / "labels.jsonl")
    job = recipe.folder / "unitune.yaml"
    job.write_text(job.read_text("utf-8") + "  labels: labels.jsonl\n", "utf-8")
    assert recipe.run(1)["verdict"] == recipe.expected["with labels"]


def review_by_rules(file: Path) -> None:
    """Review the newest comparison as a person who prefers answers that keep more rules."""
    comparison = find_comparison("newest")
    review = Review(comparison, file, "rules", len(comparison.cases))
    for item in review.look().items:
        case = review.cases[item.case]
        candidate, baseline = (
            kept_rules(case.answers[side].text, case.expected) for side in review.sides
        )
        if candidate == baseline:
            review.write(item, "tie")
        else:
            is_left = (candidate > baseline) is review.candidate_is_left(item)
            review.write(item, "left" if is_left else "right")


def kept_rules(answer: str, reference: str) -> int:
    """Return how many rules an answer keeps: greeting, figures, one sentence, signature."""
    greeting, signature = reference.partition(", ")[0] + ", ", reference.rpartition(". ")[2]
    figures = [re.findall(r"\d+", text) for text in (answer, reference)]
    return sum(
        (
            answer.startswith(greeting),
            figures[0] == figures[1],
            len(re.findall(r"[.!?](?:\s|$)", answer.removesuffix(signature))) == 1,
            answer.endswith(signature),
        )
    )
