"""Each recipe of `examples/`, as its README shows it, on the real model.

The teacher is OpenAI on loopback, which knows the labels.
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
from typing import ClassVar

import pytest

pytestmark = pytest.mark.exhaustive  # minutes each, on a quiet machine

EXAMPLES = Path(__file__).parents[2] / "examples"
BASH = re.compile(r"```bash\n(.*?)```", re.DOTALL)
VERDICT = re.compile(r"^Verdict([ \w]*): \*\*([\w ]+)\*\*", re.MULTILINE)
PLAIN = ["json-extraction"]


@dataclass
class Recipe:
    """A copy of a recipe's folder, and the environment of its commands."""

    folder: Path
    environment: dict[str, str]

    @property
    def readme(self) -> str:
        return (self.folder / "README.md").read_text("utf-8")

    def expected(self) -> dict[str, str]:
        """Return the verdicts that the page promises, by what stands before the colon."""
        return {when.strip(): verdict for when, verdict in VERDICT.findall(self.readme)}

    def run(self, block: int = 0) -> str:
        """Run the commands of a block, and return the last verdict."""
        for line in BASH.findall(self.readme)[block].splitlines():
            begun = time.monotonic()
            words = shlex.split(line)
            command = [sys.executable, *(words[1:] if words[0] == "python" else ["-m", *words])]
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            print(f"{time.monotonic() - begun:.0f} s", line, done.stdout, done.stderr)  # noqa: T201
            assert done.returncode in (0, 3), line
        files = sorted(self.folder.rglob("evaluation/verdict.json"), key=os.path.getmtime)
        verdict = json.loads(files[-1].read_text("utf-8"))
        print(verdict["verdict"], verdict["interval"], verdict["n"])  # noqa: T201
        return verdict["verdict"]


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


class Vendor(BaseHTTPRequestHandler):
    """Chat completions: the label of a question of bank-intents."""

    labels: ClassVar[dict[str, str]] = {}

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = request["messages"][-1]["content"]
        text = self.labels.get(question, "I do not know")
        message = {"role": "assistant", "content": text}
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
def vendor(recipe: Recipe) -> Iterator[None]:
    rows = (EXAMPLES / "bank-intents" / "train.jsonl").read_text("utf-8").splitlines()
    for row in (json.loads(line)["messages"] for line in rows):
        Vendor.labels[row[-2]["content"]] = row[-1]["content"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    Thread(target=server.serve_forever, daemon=True).start()
    recipe.environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{server.server_port}/v1"
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("recipe", PLAIN, indirect=True)
def test_a_recipe_ends_with_its_verdict(recipe: Recipe) -> None:
    assert recipe.run() == recipe.expected()[""]


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize("recipe", ["distillation"], indirect=True)
def test_a_student_learns_from_its_teacher(recipe: Recipe) -> None:
    assert recipe.run() == recipe.expected()[""]
