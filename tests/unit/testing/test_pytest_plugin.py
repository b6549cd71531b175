"""A comparison as a test: what fails, what is an error, and what a failure shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import scipy.stats  # noqa: F401 - see below; the statistics import it late
from support.sample_comparison import infested, sample_comparison

# pytester forgets what a run inside this process imports, and numpy cannot be imported twice.
import unitune.evaluate.compare
import unitune.report.files  # noqa: F401 - likewise
from unitune.pytest_plugin import describe

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]
VERDICT = """
def test_the_new_model_is_better(unitune_compare):
    assert unitune_compare("evals/unitune.yaml").verdict == "better"
"""
GATE = """
from unitune.pytest_plugin import assert_gate

def test_the_gate_is_met(unitune_compare):
    assert_gate(unitune_compare("evals/unitune.yaml"))
"""


def write_job(folder: Path, *, gate: bool, lost: int = 0, missing: int = 0) -> None:
    """Write 60 cases that the old model gets half right, and the new one all but some."""
    evals = folder / "evals"
    evals.mkdir()
    names = [f"case-{number}" for number in range(60)]
    cases = [
        {
            "messages": [{"role": "user", "content": f"Is {name} odd?"}],
            "id": name,
            "expected": "yes",
        }
        for name in names
    ]
    old = {name: "yes" if number % 2 else "no" for number, name in enumerate(names)}
    new = {name: "no" if number < lost else "yes" for number, name in enumerate(names)}
    rows = {
        "test": cases,
        "old": [{"case": name, "answer": answer} for name, answer in old.items()],
        "new": [{"case": name, "answer": answer} for name, answer in new.items()][missing:],
    }
    for name, lines in rows.items():
        (evals / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (evals / "unitune.yaml").write_text(
        "name: odd\nmodel: m\nbackend: fake\ndata: {test: test.jsonl}\nevaluate:\n"
        "  contenders:\n"
        "  - {type: recorded, name: old, answers: old.jsonl}\n"
        "  - {type: recorded, name: new, role: candidate, answers: new.jsonl}\n"
        + ("  gate: {mode: improve}\n" if gate else "")
    )


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test)
    return pytester.runpytest("--junitxml=junit.xml", *options)


@pytest.mark.parametrize("test", [VERDICT, GATE])
def test_a_better_model_passes(pytester: pytest.Pytester, test: str) -> None:
    write_job(pytester.path, gate=True)
    run(pytester, test).assert_outcomes(passed=1)


@pytest.mark.parametrize("test", [VERDICT, GATE])
def test_a_failure_shows_verdict_interval_lost_cases_and_report(
    pytester: pytest.Pytester, test: str, tmp_path: Path
) -> None:
    write_job(pytester.path, gate=True, lost=50)
    result = run(pytester, test)
    result.assert_outcomes(failed=1)
    shown = result.stdout.str()
    assert "worse: new minus old is -33.3 points, 95 % interval [-" in shown
    assert "gate improve: The candidate is worse than the best baseline." in shown
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith("lost: case")] == [
        "case-1",
        "case-3",
        "case-5",
    ]
    assert "  question: Is case-1 odd?" in shown
    assert "  expected: yes" in shown
    (report,) = tmp_path.glob(".unitune/evaluations/odd*/report.html")
    assert f"report: {report}" in shown


def test_what_a_failure_shows_controls_no_terminal() -> None:
    told = describe(infested(sample_comparison(), "\x1b[2J\u202e\r"), Path("o"))

    assert "\ufffd[2J\ufffd\ufffd" in told
    assert not {"\x1b", "\u202e", "\r"} & set(told)


def test_the_gate_helper_says_why(pytester: pytest.Pytester) -> None:
    write_job(pytester.path, gate=True, lost=50)
    run(pytester, GATE).stdout.fnmatch_lines(
        ["*the gate improve was not passed (exit code 1): The candidate is worse*"]
    )


def test_a_job_without_a_gate_asserts_nothing_and_says_so(pytester: pytest.Pytester) -> None:
    write_job(pytester.path, gate=False)
    result = run(pytester, GATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*job 'odd' has no gate*gate: {mode: improve}*"])


@pytest.mark.parametrize("missing", [2, 60], ids=["too many errors", "no answer at all"])
def test_what_infrastructure_failed_at_is_an_error_and_no_failure(
    pytester: pytest.Pytester, missing: int
) -> None:
    write_job(pytester.path, gate=True, missing=missing)
    run(pytester, VERDICT).assert_outcomes(errors=1)
    suite = ET.parse(pytester.path / "junit.xml").getroot()[0]  # noqa: S314 - our own
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")


@pytest.mark.parametrize(("choice", "outcome"), [("skip", "skipped"), ("fail", "failed")])
def test_infrastructure_skips_or_fails_where_that_is_chosen(
    pytester: pytest.Pytester, choice: str, outcome: str
) -> None:
    write_job(pytester.path, gate=True, missing=60)
    run(pytester, VERDICT, f"--unitune-infrastructure={choice}").assert_outcomes(**{outcome: 1})


def test_the_choice_can_stand_in_the_configuration(pytester: pytest.Pytester) -> None:
    write_job(pytester.path, gate=True, missing=60)
    pytester.makeini("[pytest]\nunitune_infrastructure = skip\n")
    run(pytester, VERDICT).assert_outcomes(skipped=1)


def test_a_failure_of_another_test_shows_no_comparison(pytester: pytest.Pytester) -> None:
    write_job(pytester.path, gate=True)
    result = run(pytester, VERDICT + "\ndef test_z_other():\n    assert False\n")
    result.assert_outcomes(passed=1, failed=1)
    assert "minus old" not in result.stdout.str()


def test_a_mistake_in_the_job_is_a_failure(pytester: pytest.Pytester) -> None:
    run(pytester, VERDICT).assert_outcomes(failed=1)


def installed(folder: Path) -> dict[str, str]:
    """Environment in which the plugin is installed as pyproject.toml says."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    info = folder / "unitune_plugin-0.dist-info"
    info.mkdir()
    lines = [f"{name} = {place}" for name, place in entries["pytest11"].items()]
    (info / "entry_points.txt").write_text("[pytest11]\n" + "\n".join(lines) + "\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unitune-plugin\nVersion: 0\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_it_is_found_when_installed_loads_nothing_heavy_and_can_be_switched_off(
    tmp_path: Path,
) -> None:
    heavy = "[n for n in ('scipy', 'numpy', 'sqlalchemy', 'openai', 'torch') if n in sys.modules]"
    (tmp_path / "test_x.py").write_text(
        "import sys\n"
        "def test_x(request):\n"
        f"    assert [] == {heavy}\n"
        "    assert request.config.pluginmanager.has_plugin('unitune')\n"
    )
    environment = installed(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_x.py"]

    def outcome(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    on, off = outcome(), outcome("-p", "no:unitune")
    assert on.returncode == 0, on.stdout + on.stderr
    assert off.returncode == 1
    assert "has_plugin" in off.stdout
    assert "unrecognized" not in off.stderr
