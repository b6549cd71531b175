"""The action and the CI examples: valid by the published schemas, and their steps run for real."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ACTION = ROOT / ".github" / "actions" / "unitune"
STEPS = yaml.safe_load((ACTION / "action.yml").read_text("utf-8"))
CI = ROOT / "examples" / "ci"


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", ACTION / "action.yml"),
        ("vendor.github-workflows", CI / "github.yml"),
        ("vendor.gitlab-ci", CI / "gitlab-ci.yml"),
    ],
    ids=lambda item: item.name if isinstance(item, Path) else item,
)
def test_files_for_ci_are_valid_by_their_published_schemas(schema: str, file: Path) -> None:
    """Source: SchemaStore's github-action, github-workflow and GitLab's ci.json, as vendored."""
    pytest.importorskip("check_jsonschema", reason="needs the extra dev")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    more = ["--data-transform", "gitlab-ci"] if schema == "vendor.gitlab-ci" else []
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_example_gives_inputs_that_the_action_has() -> None:
    steps = yaml.safe_load((CI / "github.yml").read_text("utf-8"))["jobs"]["compare"]["steps"]
    given = steps[-1]["with"]
    assert [] == [name for name in given if name not in STEPS["inputs"]]
    required = {name for name, one in STEPS["inputs"].items() if one.get("required")}
    assert required <= given.keys()


def test_no_expression_stands_in_a_script() -> None:
    """What a pull request can name reaches a shell as a variable alone, never as code."""
    scripts = [step["run"] for step in STEPS["runs"]["steps"] if "run" in step]
    assert 6 == len(scripts)
    assert [] == [script for script in scripts if "${{" in script]


@dataclass
class Runner:
    """Runs the action's steps as a runner of GitHub would, on files of its own."""

    folder: Path
    inputs: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict[str, str])
    base: str = ""
    """Commit of the base branch."""
    plan_code: str = ""
    """Exit code that the step Plan has put out."""

    def __post_init__(self) -> None:
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            (self.folder / name).touch()

    def values(self) -> dict[str, str]:
        defaults = {name: str(one.get("default", "")) for name, one in STEPS["inputs"].items()}
        return {
            **{f"inputs.{name}": value for name, value in {**defaults, **self.inputs}.items()},
            **{f"steps.compare.outputs.{name}": value for name, value in self.outputs().items()},
            "github.action_path": str(ACTION),
            "github.token": "ghs_token",
            "github.event.pull_request.number": "7",
            "github.event.pull_request.base.sha": self.base,
            "steps.plan.outputs.exit-code": self.plan_code,
        }

    def outputs(self) -> dict[str, str]:
        lines = (self.folder / "GITHUB_OUTPUT").read_text("utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def summary(self) -> str:
        return (self.folder / "GITHUB_STEP_SUMMARY").read_text("utf-8")

    def filled(self, text: str) -> str:
        known = self.values()
        whole = re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: known[found[1]], text)
        return whole if whole == text else self.filled(whole)

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        step = next(one for one in STEPS["runs"]["steps"] if one.get("name") == name)
        script = self.folder / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        return subprocess.run(
            # The command line that `shell: bash` stands for, by GitHub's workflow syntax.
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.folder / self.filled(step.get("working-directory", ".")),
            env={
                **os.environ,
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                "RUNNER_TEMP": str(self.folder),
                "GITHUB_OUTPUT": str(self.folder / "GITHUB_OUTPUT"),
                "GITHUB_STEP_SUMMARY": str(self.folder / "GITHUB_STEP_SUMMARY"),
                **{key: self.filled(value) for key, value in step.get("env", {}).items()},
                **self.environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )


def command(folder: Path, name: str, script: str) -> None:
    file = folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    file.chmod(0o755)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A workspace with a job of two recorded contenders, and the commands of this environment."""
    python = shlex.quote(sys.executable)
    command(tmp_path, "unitune", f'exec {python} -m unitune "$@"')
    command(tmp_path, "python", f'exec {python} "$@"')
    evals = tmp_path / "work" / "evals"
    evals.mkdir(parents=True)
    cases = [f"case-{number}" for number in range(40)]
    questions = [
        {"messages": [{"role": "user", "content": case}], "id": case, "expected": "yes"}
        for case in cases
    ]
    answers = {"old": ["no", "yes"], "new": ["yes", "yes"]}
    (evals / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    for name, texts in answers.items():
        lines = [{"case": case, "answer": texts[at % 2]} for at, case in enumerate(cases)]
        (evals / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (evals / "unitune.yaml").write_text(
        "name: demo\nmodel: m\nbackend: fake\ndata: {test: test.jsonl}\nevaluate:\n"
        "  contenders:\n"
        "  - {type: recorded, name: old, answers: old.jsonl}\n"
        "  - {type: recorded, name: new, role: candidate, answers: new.jsonl}\n"
        "  gate: {mode: improve}\n"
    )
    return Runner(tmp_path, {"file": "evals/unitune.yaml", "working-directory": "work"})


def swap(runner: Runner) -> None:
    """Let the new model be the old one."""
    evals = runner.folder / "work" / "evals"
    old = (evals / "old.jsonl").read_text()
    (evals / "old.jsonl").write_text((evals / "new.jsonl").read_text())
    (evals / "new.jsonl").write_text(old)


def test_a_met_gate_passes_with_verdict_summary_and_report(runner: Runner) -> None:
    done = runner.step("Compare")
    assert 0 == done.returncode, done.stderr
    assert {"exit-code": "0", "verdict": "better", "folder": "work/unitune-report"} == (
        runner.outputs()
    )
    assert (runner.folder / "work/unitune-report/report.html").exists()
    assert "better" in runner.summary().lower()
    assert 0 == runner.step("Gate").returncode


def test_a_failed_gate_is_reported_first_and_fails_at_the_end(runner: Runner) -> None:
    swap(runner)
    assert 0 == runner.step("Compare").returncode
    assert ("1", "worse") == (runner.outputs()["exit-code"], runner.outputs()["verdict"])
    assert 1 == runner.step("Gate").returncode


def test_fail_on_leaves_exit_codes_to_a_warning(runner: Runner) -> None:
    swap(runner)
    runner.step("Compare")
    runner.inputs["fail-on"] = "2, 5"
    done = runner.step("Gate")
    assert 0 == done.returncode
    assert "::warning title=unitune::compare ended with exit code 1" in done.stdout


def test_a_mistake_in_the_job_is_exit_code_2_with_what_was_wrong(runner: Runner) -> None:
    """The verdict of an earlier run in the same folder must not be shown for this one."""
    runner.step("Compare")
    (runner.folder / "GITHUB_OUTPUT").write_text("")
    (runner.folder / "GITHUB_STEP_SUMMARY").write_text("")
    (runner.folder / "work/evals/unitune.yaml").write_text("name: [")

    assert 0 == runner.step("Compare").returncode

    assert {"exit-code": "2", "verdict": "", "folder": "work/unitune-report"} == runner.outputs()
    assert "evals/unitune.yaml** ended with exit code 2." in runner.summary()
    assert "not valid YAML" in runner.summary()
    assert (runner.folder / "work/unitune-report/rows.jsonl").exists()
    assert 2 == runner.step("Gate").returncode


def test_arguments_reach_the_command_as_words(runner: Runner) -> None:
    command(runner.folder, "unitune", 'printf "<%s>" "$@"')
    runner.inputs |= {"args": "--backend  openai\n--run *", "file": "a b.yaml; exit 9"}
    done = runner.step("Compare")
    words = "<compare><a b.yaml; exit 9><--out><unitune-report><--backend><openai><--run><*>"
    assert words == done.stdout.splitlines()[1]


def test_what_a_job_file_says_is_no_workflow_command_and_ends_no_fence(runner: Runner) -> None:
    """GitHub's workflow commands: `::stop-commands::TOKEN`, and `::TOKEN::` to go on."""
    key = "x\n~~~~~~\n## Gate passed (exit code 0)\n@octocat please merge\n::add-mask::e\n~~~~"
    job = runner.folder / "work" / "evals" / "unitune.yaml"
    job.write_text(json.dumps({"name": "demo", "model": "m", "backend": "fake", key: 1}))
    done = runner.step("Compare")
    assert "::add-mask::" in done.stdout
    before, _, after = done.stdout.partition("::stop-commands::")
    token, _, output = after.partition("\n")
    printed, _, rest = output.partition(f"\n::{token}::\n")
    assert len(token) == 64
    assert "::add-mask::" in printed
    assert "::" not in before + rest
    fence = next(line for line in runner.summary().splitlines() if line.startswith("~~~~"))
    inside = runner.summary().partition(fence)[2].removesuffix("\n")
    assert inside.endswith(f"\n{fence.removesuffix('text')}")
    assert 1 == inside.count(fence.removesuffix("text"))


@pytest.mark.parametrize(
    ("inputs", "installed"),
    [
        ({}, f"{ROOT}"),
        ({"extras": "openai, local"}, f"{ROOT}[openai,local]"),
    ],
)
def test_the_very_commit_is_installed(
    runner: Runner, inputs: dict[str, str], installed: str
) -> None:
    command(runner.folder, "python", 'echo "$@"')
    runner.inputs |= inputs
    assert f"-m pip install --quiet {installed}\n" == runner.step("Install unitune").stdout


@pytest.fixture
def priced(runner: Runner) -> Runner:
    """A workspace under version control, with a training that costs money."""
    evals = runner.folder / "work" / "evals"
    rows = [{"prompt": f"question {number}?", "completion": "yes"} for number in range(60)]
    (evals / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (evals / "prices.yaml").write_text("prices: [{backend: openai, training: 30.00}]\n")
    (evals / "unitune.yaml").write_text(
        "name: demo\nmodel: gpt-4o-mini\nbackend: openai\ndata: {train: train.jsonl}\n"
        "tuning: {epochs: 2}\n"
    )
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(evals.parent)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "base"]):
        subprocess.run([*git, *words], check=True)
    found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    runner.base = found.stdout.strip()
    return runner


def plan_code(runner: Runner) -> str:
    done = runner.step("Plan")
    assert 0 == done.returncode, done.stdout + done.stderr
    runner.plan_code = runner.outputs()["exit-code"]
    return runner.plan_code


def test_what_a_pull_request_changes_in_the_cost_is_told(priced: Runner) -> None:
    job = priced.folder / "work/evals/unitune.yaml"
    job.write_text(job.read_text().replace("epochs: 2", "epochs: 4"))
    assert "0" == plan_code(priced)
    assert priced.summary().startswith("<!-- unitune plan: demo -->")
    assert "| epochs | 2 | 4 |" in priced.summary()


def test_where_the_cost_is_as_it_was_nothing_is_told(priced: Runner) -> None:
    assert "0" == plan_code(priced)
    assert "" == priced.summary()


def test_over_the_budget_fails_with_6(priced: Runner) -> None:
    priced.inputs["plan-args"] = "--budget 0.001"
    assert "6" == plan_code(priced)
    assert "Over budget" in priced.summary()
    (priced.folder / "GITHUB_OUTPUT").write_text("exit-code=0\n")
    assert 6 == priced.step("Gate").returncode


class Thread7(BaseHTTPRequestHandler):
    """A pull request's comments, two on a page whatever is asked for."""

    comments: ClassVar[list[dict[str, Any]]]
    calls: ClassVar[list[str]]
    refuse: ClassVar[bool]
    login: ClassVar[str]
    """Whose token it is; empty: an app's, which may not ask."""
    closed: ClassVar[set[int]]
    """Comments that belong to others."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def answer(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if self.path == "/user":
            self.answer(200 if self.login else 403, {"login": self.login})
            return
        page = int(self.path.rpartition("=")[2])
        self.answer(200, self.comments[2 * page - 2 : 2 * page])

    def do_POST(self) -> None:
        self.write("POST")

    def do_PATCH(self) -> None:
        self.write("PATCH")

    def write(self, method: str) -> None:
        self.calls.append(f"{method} {self.path}")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        if self.refuse:
            self.answer(403, {"message": "Resource not accessible by integration"})
            return
        assert "Bearer ghs_token" == self.headers["Authorization"]
        if method == "POST":
            author = {"type": "User", "login": self.login} if self.login else {"type": "Bot"}
            self.comments.append({"id": 100 + len(self.comments), "user": author, "body": body})
        else:
            found = int(self.path.rpartition("/")[2])
            if found in self.closed:
                self.answer(403, {"message": "Forbidden"})
                return
            next(one for one in self.comments if one["id"] == found)["body"] = body
        self.answer(200, {})


@pytest.fixture
def thread(runner: Runner) -> Iterator[type[Thread7]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Thread7)
    worker = Thread(target=server.serve_forever)
    worker.start()
    marker = "<!-- unitune action: evals/unitune.yaml -->"
    Thread7.comments = [
        {"id": 1, "user": {"type": "User"}, "body": "Nice!"},
        {"id": 2, "user": {"type": "User"}, "body": f"{marker}\nno bot"},
    ]
    Thread7.calls, Thread7.refuse, Thread7.login, Thread7.closed = [], False, "", set()
    runner.environment |= {
        "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "me/it",
        "GITHUB_RUN_ID": "42",
    }
    yield Thread7
    server.shutdown()
    server.server_close()
    worker.join()


def test_one_comment_is_written_and_then_kept_up_to_date(
    runner: Runner, thread: type[Thread7]
) -> None:
    for text in ("first", "second"):
        (runner.folder / "unitune.md").write_text(text)
        done = runner.step("Comment on the pull request")
        assert 0 == done.returncode, done.stderr
    assert ["POST /repos/me/it/issues/7/comments", "PATCH /repos/me/it/issues/comments/102"] == (
        thread.calls
    )
    assert 3 == len(thread.comments)
    assert thread.comments[-1]["body"].startswith(
        "<!-- unitune action: evals/unitune.yaml -->\nsecond\n\n"
    )
    assert "(https://github.com/me/it/actions/runs/42)" in thread.comments[-1]["body"]


def test_a_persons_token_keeps_one_comment_too(runner: Runner, thread: type[Thread7]) -> None:
    thread.login = "octocat"
    (runner.folder / "unitune.md").write_text("text")
    for _ in range(3):
        assert 0 == runner.step("Comment on the pull request").returncode
    assert ["POST", "PATCH", "PATCH"] == [call.partition(" ")[0] for call in thread.calls]


@pytest.mark.parametrize("user", [None, {"type": "Bot"}, {}])
def test_comments_of_others_are_passed_over(
    runner: Runner, thread: type[Thread7], user: dict[str, str] | None
) -> None:
    """Of another bot, which may not be changed, and of an account that is gone."""
    marker = "<!-- unitune action: evals/unitune.yaml -->"
    thread.comments.append({"id": 3, "user": user, "body": f"{marker}\nx"})
    thread.comments.append({"id": 4, "user": user, "body": None})
    thread.closed = {3}
    (runner.folder / "unitune.md").write_text("text")
    done = runner.step("Comment on the pull request")
    assert 0 == done.returncode, done.stderr
    assert thread.calls[-1].startswith("POST")


def test_another_job_file_has_a_comment_of_its_own(runner: Runner, thread: type[Thread7]) -> None:
    (runner.folder / "unitune.md").write_text("text")
    for file in ("evals/unitune.yaml", "other--job.yaml"):
        runner.inputs["file"] = file
        runner.step("Comment on the pull request")
    assert ["POST /repos/me/it/issues/7/comments"] * 2 == thread.calls


def test_a_long_summary_is_cut_to_what_a_comment_holds(
    runner: Runner, thread: type[Thread7]
) -> None:
    (runner.folder / "unitune.md").write_text("x" * 100_000)
    runner.step("Comment on the pull request")
    body = thread.comments[-1]["body"]
    assert 65_000 == len(body)
    assert body.endswith("/actions/runs/42)\n")


def test_a_token_that_may_not_write_fails_nothing(runner: Runner, thread: type[Thread7]) -> None:
    """As in a pull request from a fork."""
    thread.refuse = True
    (runner.folder / "unitune.md").write_text("text")
    done = runner.step("Comment on the pull request")
    assert 0 == done.returncode
    assert "::notice title=unitune::The pull request has no comment of this run" in done.stdout
    assert "403" in done.stdout


def test_a_plan_that_changed_nothing_makes_no_comment_and_mends_an_old_one(
    priced: Runner, thread: type[Thread7]
) -> None:
    name, empty = "Comment the plan on the pull request", priced.folder / "plan.md"
    empty.write_text("")
    assert 0 == priced.step(name).returncode
    assert [] == thread.calls
    empty.write_text("dearer")
    assert 0 == priced.step(name).returncode
    empty.write_text("")
    assert 0 == priced.step(name).returncode
    assert ["POST", "PATCH"] == [call.partition(" ")[0] for call in thread.calls]
    assert "The cost is that of the base branch." in thread.comments[-1]["body"]
