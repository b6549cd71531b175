"""The action and the CI examples: valid by the published schemas, and their steps run for real."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from support.command_line import ran
from support.github_action import ACTION, ROOT, STEPS, Runner, command

CI = ROOT / "examples" / "ci"
GITHUB = ROOT / ".github"
FORMS = GITHUB / "ISSUE_TEMPLATE"


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", ACTION / "action.yml"),
        ("vendor.github-workflows", CI / "github.yml"),
        ("vendor.gitlab-ci", CI / "gitlab-ci.yml"),
        *(("vendor.github-workflows", file) for file in (GITHUB / "workflows").iterdir()),
        *(("vendor.github-issue-forms", FORMS / f"{name}.yml") for name in ("bug", "feature")),
        ("vendor.github-issue-config", FORMS / "config.yml"),
        ("vendor.dependabot", GITHUB / "dependabot.yml"),
        ("vendor.citation-file-format", ROOT / "CITATION.cff"),
    ],
    ids=lambda item: item.name if isinstance(item, Path) else item,
)
def test_files_for_ci_are_valid_by_their_published_schemas(schema: str, file: Path) -> None:
    """Source: SchemaStore's schemas and GitLab's ci.json, as check-jsonschema vendors them."""
    pytest.importorskip("check_jsonschema", reason="needs the extra dev")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    more = ["--data-transform", "gitlab-ci"] if schema == "vendor.gitlab-ci" else []
    done = ran([*command, *more])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_gives_inputs_that_the_action_has() -> None:
    steps = yaml.safe_load((CI / "github.yml").read_text("utf-8"))["jobs"]["compare"]["steps"]
    given = steps[-1]["with"]
    assert [name for name in given if name not in STEPS["inputs"]] == []
    required = {name for name, one in STEPS["inputs"].items() if one.get("required")}
    assert required <= given.keys()


def test_no_expression_stands_in_a_script() -> None:
    """What a pull request can name reaches a shell as a variable alone, never as code."""
    scripts = [step["run"] for step in STEPS["runs"]["steps"] if "run" in step]
    assert len(scripts) == 7
    assert [script for script in scripts if "${{" in script] == []


def test_actions_of_others_are_pinned_by_their_commits() -> None:
    """A tag can be moved to other code, which would see the keys of the job."""
    files = [ACTION / "action.yml", CI / "github.yml", *(ROOT / ".github/workflows").iterdir()]
    used = [name for file in files for name in re.findall(r"uses: (\S+)", file.read_text("utf-8"))]
    assert len(used) > 5
    commit = re.compile(r"@[0-9a-f]{40}$")
    assert [name for name in used if not commit.search(name)] == [
        "OWNER/unitune/.github/actions/unitune@COMMIT"
    ]


def test_a_workflow_that_hands_secrets_to_forks_is_refused(runner: Runner) -> None:
    step = STEPS["runs"]["steps"][0]
    assert step["if"] == "github.event_name == 'pull_request_target'"
    done = runner.step(step["name"])
    assert done.returncode == 2
    assert "Use pull_request instead." in done.stdout


def test_no_module_of_the_workspace_is_imported(priced: Runner) -> None:
    """A pull request may bring a file that is named like a module of the standard library."""
    trap = "open(__file__ + '.ran', 'w')\nraise SystemExit\n"
    for folder in (priced.folder, priced.folder / "work", priced.folder / "work/evals"):
        for module in ("secrets", "json", "pip", "typer"):
            (folder / f"{module}.py").write_text(trap)
    command(priced.folder, "unitune", f'exec {sys.executable} -P -m unitune "$@"')
    for name in ("Plan", "Compare"):
        assert priced.step(name).returncode == 0
    command(priced.folder, "python", f"exec {sys.executable} ${{@/install/--version}}")
    assert priced.step("Install unitune").stdout.startswith("pip ")
    assert list(priced.folder.rglob("*.ran")) == []


def swap(runner: Runner) -> None:
    """Let the new model be the old one."""
    evals = runner.folder / "work" / "evals"
    old = (evals / "old.jsonl").read_text()
    (evals / "old.jsonl").write_text((evals / "new.jsonl").read_text())
    (evals / "new.jsonl").write_text(old)


def test_a_met_gate_passes_with_verdict_summary_and_report(runner: Runner) -> None:
    folder = runner.folder / "unitune-report"  # in RUNNER_TEMP
    done = runner.step("Compare")
    assert done.returncode == 0, done.stderr
    assert runner.outputs() == {"exit-code": "0", "verdict": "better", "folder": str(folder)}
    assert (folder / "report.html").exists()
    assert "better" in runner.summary().lower()
    assert runner.step("Gate").returncode == 0


def test_a_failed_gate_is_reported_first_and_fails_at_the_end(runner: Runner) -> None:
    swap(runner)
    assert runner.step("Compare").returncode == 0
    assert (runner.outputs()["exit-code"], runner.outputs()["verdict"]) == ("1", "worse")
    assert runner.step("Gate").returncode == 1


def test_fail_on_leaves_exit_codes_to_a_warning(runner: Runner) -> None:
    swap(runner)
    runner.step("Compare")
    runner.inputs["fail-on"] = "2, 5"
    done = runner.step("Gate")
    assert done.returncode == 0
    assert "::warning title=unitune::compare ended with exit code 1" in done.stdout


def test_a_mistake_in_the_job_is_exit_code_2_with_what_was_wrong(runner: Runner) -> None:
    """The verdict of an earlier run in the same folder must not be shown for this one."""
    runner.step("Compare")
    (runner.folder / "GITHUB_OUTPUT").write_text("")
    (runner.folder / "GITHUB_STEP_SUMMARY").write_text("")
    (runner.folder / "work/evals/unitune.yaml").write_text("name: [")

    assert runner.step("Compare").returncode == 0

    folder = runner.folder / "unitune-report"
    assert runner.outputs() == {"exit-code": "2", "verdict": "", "folder": str(folder)}
    assert "evals/unitune.yaml** ended with exit code 2." in runner.summary()
    assert "not valid YAML" in runner.summary()
    assert (folder / "rows.jsonl").exists()
    assert runner.step("Gate").returncode == 2


def test_arguments_reach_the_command_as_words(runner: Runner) -> None:
    command(runner.folder, "unitune", 'printf "<%s>" "$@"')
    runner.inputs |= {"args": "--backend  openai\n--run *", "file": "a b.yaml; exit 9"}
    done = runner.step("Compare")
    output = runner.folder / "unitune-report"
    words = f"<compare><a b.yaml; exit 9><--output><{output}><--backend><openai><--run><*>"
    assert words == done.stdout.splitlines()[1]


def test_answers_that_a_pull_request_commits_do_not_count(priced: Runner) -> None:
    """The default folder is outside of the checkout; in a folder there they are refused."""
    evals = priced.folder / "work" / "evals"
    recorded = {"type": "recorded", "name": "old", "answers": "old.jsonl"}
    new = {"type": "server", "name": "new", "url": "http://127.0.0.1:9", "model": "m"}
    contenders = [recorded, {**new, "role": "candidate", "prompt": "zero-shot"}]
    job = {"name": "demo", "model": "m", "backend": "fake", "data": {"test": "test.jsonl"}}
    (evals / "unitune.yaml").write_text(json.dumps({**job, "evaluate": {"contenders": contenders}}))
    rows = priced.folder / "work/rows/rows.jsonl"
    rows.parent.mkdir()
    rows.write_text('{"contender": "new", "case": "c", "text": "better"}\n', encoding="utf-8")
    priced.inputs["out"] = "rows"
    done = priced.step("Compare")
    assert priced.outputs() == {"exit-code": "5", "verdict": "", "folder": "work/rows"}
    assert "unitunedidnotwritehereforyou" in "".join(done.stdout.split())


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
    assert inside.count(fence.removesuffix("text")) == 1


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
    assert runner.step("Install unitune").stdout == f"-P -m pip install --quiet {installed}\n"


def plan_code(runner: Runner) -> str:
    done = runner.step("Plan")
    assert done.returncode == 0, done.stdout + done.stderr
    runner.plan_code = runner.outputs()["exit-code"]
    return runner.plan_code


def test_what_a_pull_request_changes_in_the_cost_is_told(priced: Runner) -> None:
    job = priced.folder / "work/evals/unitune.yaml"
    job.write_text(job.read_text().replace("epochs: 2", "epochs: 4"))
    assert plan_code(priced) == "0"
    assert priced.summary().startswith("<!-- unitune plan: demo -->")
    assert re.search(r"in 2 epochs \| .* in 4 epochs \|", priced.summary())


def test_where_the_cost_is_as_it_was_nothing_is_told(priced: Runner) -> None:
    assert plan_code(priced) == "0"
    assert priced.summary() == ""


def test_over_the_budget_fails_with_6(priced: Runner) -> None:
    priced.inputs["plan-args"] = "--budget 0.001"
    assert plan_code(priced) == "6"
    assert "Over budget" in priced.summary()
    (priced.folder / "GITHUB_OUTPUT").write_text("exit-code=0\n")
    assert priced.step("Gate").returncode == 6
