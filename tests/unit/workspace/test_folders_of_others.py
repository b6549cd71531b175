"""Check that a `.unitune` folder that somebody else wrote has no effect.

Git has refused the repositories of other users since CVE-2022-24765,
https://git-scm.com/docs/git-config, safe.directory (2026-11-26).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Outcome
from support.rows import write_rows

from unitune import main as cli
from unitune.evaluate.compare import compare
from unitune.job.job import Job
from unitune.ledger import DeploymentRecord, Ledger, RunRecord
from unitune.models import TunedModel
from unitune.run.run import launch

RUN = "r261101-000000000000"
NOBODY = 65534
DATA = {"train": "train.jsonl", "validation": "train.jsonl", "test": "test.jsonl"}
JOB = {
    "name": "demo",
    "model": "tiny",
    "backend": "fake",
    "data": DATA,
    "evaluate": {"leaks": "allow"},
}
BASE = {"type": "model", "name": "base", "model": "echo", "backend": "fake", "role": "baseline"}
CONTENDERS = {
    "compared.yaml": [BASE, {"type": "tuned"}],
    "models.yaml": [{**BASE, "name": each, "role": each} for each in ("baseline", "candidate")],
}
In = Callable[..., Outcome]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> In:
    """Run a command in a folder, with variables of its own, through the real entry point."""

    def run(*arguments: str, cwd: Path, **variables: str) -> Outcome:
        with monkeypatch.context() as here:
            here.chdir(cwd)
            here.setattr(sys, "argv", ["unitune", *arguments])
            here.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
            for name, value in variables.items():
                here.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return run


def says(done: Outcome, words: str) -> bool:
    """Return whether a complaint contains words, however it was wrapped."""
    return "".join(words.split()) in "".join((done.out + done.err).split())


def listed(done: Outcome) -> list[str]:
    """Return the ids that `unitune runs --json` prints."""
    assert done.code == 0, done.err
    return [run["id"] for run in json.loads(done.out)["runs"]]


def forged(folder: Path) -> None:
    """Write a ledger with a run and an overdue deployment."""
    now, model = time.time(), TunedModel(backend="fake", name="m", base="tiny")
    ledger = Ledger(folder)
    ledger.add(
        RunRecord(RUN, "demo", "fake", "tiny", "sft", "0" * 64, created=now, updated=now),
        job=json.dumps(JOB),
    )
    ledger.add_deployment(
        DeploymentRecord(
            id=f"{RUN}-d1",
            run_id=None,
            backend="fake",
            name=f"{RUN}-d1",
            model=model,
            state="ready",
            ref="endpoint-PRODUCTION",
            usd_per_hour=None,
            created=now - 9e5,
            until=now - 8e5,
            ended=None,
        ),
        lambda _: None,
    )


@pytest.fixture(autouse=True)
def no_folder_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    monkeypatch.delenv("UNITUNE_LEDGER", raising=False)


def new_project(folder: Path) -> Path:
    """Write a job, its rows and jobs that compare into a new folder."""
    folder.mkdir()
    for name in ("train", "test"):
        rows = [{"prompt": f"{name} {at}?", "completion": f"{at}"} for at in range(4)]
        write_rows(folder / f"{name}.jsonl", rows)
    (folder / "unitune.yaml").write_text(json.dumps(JOB), encoding="utf-8")
    for name, contenders in CONTENDERS.items():
        job = {**JOB, "evaluate": {"leaks": "allow", "contenders": contenders}}
        (folder / name).write_text(json.dumps(job), encoding="utf-8")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a job and its rows."""
    return new_project(tmp_path / "project")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of another person, who trained and compared in it and forged a deployment.

    All their state is in the folder `.unitune`.
    """
    place = tmp_path_factory.mktemp("theirs")
    project = new_project(place / "project")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(project)
        here.setenv("XDG_STATE_HOME", str(place / "state"))
        here.setenv("UNITUNE_FAKE_DIR", str(place / "vendor"))
        launch(Job.load("unitune.yaml")).wait(0.001)
        compare(Job.load("compared.yaml"))
        forged(place / "state" / "unitune")
    shutil.copytree(place / "state" / "unitune", project / ".unitune", dirs_exist_ok=True)
    return project


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    """A project as it came in an archive, in whose `.unitune` is a forged ledger."""
    return shutil.copytree(archive, tmp_path / "unpacked")


def git(folder: Path, *arguments: str) -> None:
    person = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", *person, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--force", ".")
    git(folder, "commit", "--quiet", "-m", "all")


COMMANDS = (
    f"show {RUN}",
    f"watch {RUN}",
    f"pause {RUN}",
    f"cancel {RUN}",
    f"resume {RUN}",
    f"delete {RUN} --yes",
    f"chat {RUN} -m hello",
    f"checkpoints {RUN}",
    f"deploy {RUN}",
    f"undeploy {RUN}-d1",
    "show",
    "watch",
    "compare compared.yaml",
)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_no_command_acts_on_a_ledger_that_came_along(
    command: In, unpacked: Path, tmp_path: Path, arguments: str
) -> None:
    before = (unpacked / ".unitune" / "ledger.db").read_bytes()
    vendor = sorted((tmp_path / "vendor").rglob("*"))
    done = command(*arguments.split(), cwd=unpacked)
    assert (done.code, done.out) == (2, ""), done.err
    assert (unpacked / ".unitune" / "ledger.db").read_bytes() == before
    assert sorted((tmp_path / "vendor").rglob("*")) == vendor


def test_no_list_shows_what_came_along(command: In, unpacked: Path) -> None:
    for arguments in (["runs", "--json"], ["runs", "--all", "--json"]):
        assert listed(command(*arguments, cwd=unpacked)) == []
    assert "No comparisons" in command("comparisons", cwd=unpacked).out
    assert RUN not in command("deployments", cwd=unpacked).out
    assert command("runs", "watch", "--all", cwd=unpacked).out == ""


def test_the_job_in_it_can_be_launched(command: In, unpacked: Path) -> None:
    assert command("run", "unitune.yaml", "--quiet", cwd=unpacked).code == 0
    (run,) = listed(command("runs", "--json", cwd=unpacked))
    assert run != RUN
    assert command("compare", "compared.yaml", cwd=unpacked).code == 0
    assert len(json.loads(command("comparisons", "--json", cwd=unpacked).out)["comparisons"]) == 1


def test_the_user_can_name_it(command: In, unpacked: Path) -> None:
    assert RUN in command("runs", cwd=unpacked, UNITUNE_DIR=".unitune").out
    assert listed(command("runs", "--json", cwd=unpacked)) == []


def test_doctor_shows_both_folders(command: In, project: Path, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    found = json.loads(command("doctor", "--json", cwd=project, **state).out)
    assert found["ledger"] == str(tmp_path / "state" / "unitune")
    assert found["project"] == str(project / ".unitune")


def test_a_project_is_used_from_folders_below_too(command: In, project: Path) -> None:
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    (project / "below").mkdir()
    for folder in (project, project / "below"):
        assert len(listed(command("runs", "--json", cwd=folder))) == 1
    assert not (project / "below" / ".unitune").exists()


def test_runs_of_other_projects_are_listed_with_all(
    command: In, project: Path, tmp_path: Path
) -> None:
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    (run,) = listed(command("runs", "--json", cwd=project))
    (tmp_path / "other").mkdir()
    assert says(
        command("runs", cwd=tmp_path / "other"), "Of other projects: 1 (unitune runs --all)"
    )
    assert listed(command("runs", "--all", "--json", cwd=tmp_path / "other")) == [run]
    assert says(command("runs", "--all", cwd=tmp_path / "other"), str(project))
    assert says(command("runs", "show", cwd=tmp_path / "other"), "this project has no run yet")
    shown = json.loads(command("runs", "show", run, "--json", cwd=tmp_path / "other").out)
    assert shown["folder"] == str(project / ".unitune" / "runs" / run)


def test_a_moved_project_finds_its_runs_comparisons_and_answers_again(
    command: In, project: Path, tmp_path: Path
) -> None:
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    assert command("compare", "compared.yaml", cwd=project).code == 0
    (run,) = listed(command("runs", "--json", cwd=project))
    moved = project.rename(tmp_path / "moved")
    assert command("runs", "show", run, cwd=moved).code == 0
    assert listed(command("runs", "--json", cwd=moved)) == [run]
    shown = json.loads(command("runs", "show", "--json", cwd=moved).out)
    assert shown["folder"] == str(moved / ".unitune" / "runs" / run)
    (kept,) = json.loads(command("comparisons", "--json", cwd=moved).out)["comparisons"]
    assert kept["folder"] == str(moved / ".unitune" / "comparisons" / kept["id"])
    again = command("compare", "compared.yaml", cwd=moved)
    assert again.code == 0
    assert says(again, "8 of 8 answers were recorded before this call")


def test_a_copy_is_another_project(command: In, project: Path, tmp_path: Path) -> None:
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    (run,) = listed(command("runs", "--json", cwd=project))
    copy = shutil.copytree(project, tmp_path / "copy")
    assert listed(command("runs", "--json", cwd=copy)) == []
    again = ("run", "unitune.yaml", "--quiet", "--allow-duplicate")
    assert command(*again, cwd=copy).code == 0
    (other,) = listed(command("runs", "--json", cwd=copy))
    assert listed(command("runs", "--json", cwd=project)) == [run]
    assert (copy / ".unitune" / "runs" / other).is_dir()


def test_a_comparison_in_a_copy_leaves_the_answers_of_the_original_alone(
    command: In, project: Path, tmp_path: Path
) -> None:
    assert command("compare", "models.yaml", cwd=project).code == 0
    copy = shutil.copytree(project, tmp_path / "copy")
    assert command("compare", "models.yaml", cwd=copy).code == 5
    assert command("compare", "models.yaml", "--replay", cwd=copy).code == 0
    again = command("compare", "models.yaml", cwd=project)
    assert again.code == 0
    assert says(again, "8 of 8 answers were recorded before this call")


def test_another_home_has_another_ledger_and_needs_no_ceremony(
    command: In, project: Path, tmp_path: Path
) -> None:
    first, second = (
        {"HOME": str(tmp_path / name), "XDG_STATE_HOME": ""} for name in ("first", "second")
    )
    assert command("run", "unitune.yaml", "--quiet", cwd=project, **first).code == 0
    assert len(listed(command("runs", "--json", cwd=project, **first))) == 1
    if sys.platform.startswith("linux"):
        state = tmp_path / "first" / ".local" / "state" / "unitune"
        assert (state / "ledger.db").exists()
        assert state.stat().st_mode & 0o077 == 0
    assert listed(command("runs", "--json", cwd=project, **second)) == []
    assert command("run", "unitune.yaml", "--quiet", cwd=project, **second).code == 0


def test_a_relative_state_folder_is_passed_over(command: In, project: Path, tmp_path: Path) -> None:
    """XDG Base Directory Specification 0.8: it would be a folder of the current one."""
    named = {"HOME": str(tmp_path / "me"), "XDG_STATE_HOME": "state"}
    done = command("run", "unitune.yaml", "--quiet", cwd=project, **named)
    assert done.code in (0, 2)
    assert not (project / "state").exists()


@pytest.mark.parametrize("name", ["", "runs", "comparisons", "evaluations", "evaluations/demo"])
def test_nothing_is_written_through_a_link(
    command: In, project: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "outside").mkdir()
    link = project / ".unitune" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if name:
        link.symlink_to(tmp_path / "outside")
    else:
        link.parent.joinpath(".unitune").symlink_to(tmp_path / "outside")
    done = [
        command("run", "unitune.yaml", "--quiet", cwd=project),
        command("compare", "models.yaml", cwd=project),
    ]
    assert 2 in {each.code for each in done}
    assert any(says(each, "is a symbolic link") for each in done)
    assert list((tmp_path / "outside").rglob("*")) == []


def test_a_folder_that_others_may_enter_becomes_private(command: In, project: Path) -> None:
    (project / ".unitune").mkdir()
    (project / ".unitune").chmod(0o777)
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    assert (project / ".unitune").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", ["", "0" * 32, "0" * 9000, "é" * 32, "\0", "../../x"])
def test_an_odd_project_id_has_no_effect(command: In, project: Path, content: str) -> None:
    (project / ".unitune").mkdir()
    (project / ".unitune" / "project").write_text(content, encoding="utf-8")
    assert listed(command("runs", "--json", cwd=project)) == []
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    assert len(listed(command("runs", "--json", cwd=project))) == 1


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(command: In, unpacked: Path) -> None:
    names = [
        ".unitune/project",
        *(str(path) for path in unpacked.rglob("*.jsonl") if ".unitune" in str(path)),
    ]
    for name in names:
        (unpacked / name).unlink()
        os.mkfifo(unpacked / name)
    assert listed(command("runs", "--json", cwd=unpacked)) == []
    assert command("run", "unitune.yaml", "--quiet", cwd=unpacked).code == 0


def given_to_nobody(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def test_a_folder_of_another_user_is_refused(command: In, project: Path) -> None:
    """Even root's commands do not use it."""
    (project / ".unitune").mkdir()
    given_to_nobody(project / ".unitune")
    done = command("run", "unitune.yaml", cwd=project)
    assert done.code == 2
    assert says(done, "belongs to another user")
    assert command("run", "unitune.yaml", "--quiet", cwd=project, UNITUNE_DIR="mine").code == 0


@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_of_another_user_above_stops_nobody(
    command: In, project: Path, tmp_path: Path, *, linked: bool
) -> None:
    """In a shared folder such as /tmp anyone can make one above all others."""
    if linked:
        (tmp_path / "theirs").mkdir()
        (tmp_path / ".unitune").symlink_to(tmp_path / "theirs")
    else:
        (tmp_path / ".unitune").mkdir()
    given_to_nobody(tmp_path / ".unitune")
    done = subprocess.run(  # a process of its own: pytest takes what is logged
        [sys.executable, "-m", "unitune", "runs", "--json"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["total"] == 0
    noted = f"'{tmp_path / '.unitune'}' belongs to another user and is not used.\n"
    assert done.stderr == noted, "reported once"
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    assert (project / ".unitune" / "runs").exists()


@pytest.mark.parametrize("name", ["", "ledger.db"])
def test_a_state_folder_of_another_user_is_refused(
    command: In, project: Path, tmp_path: Path, name: str
) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert command("run", "unitune.yaml", "--quiet", cwd=project, **state).code == 0
    given_to_nobody(tmp_path / "state" / "unitune" / name)
    done = command("runs", cwd=project, **state)
    assert done.code == 2
    assert says(done, "it belongs to another user")


@pytest.mark.parametrize("pulled", [False, True])
def test_a_home_that_is_a_repository_brings_no_ledger(
    command: In, project: Path, tmp_path: Path, *, pulled: bool
) -> None:
    """Some notebooks and build services clone a repository into the home folder."""
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "theirs")
    (theirs / "README").touch()
    commit(theirs)
    if pulled:
        git(tmp_path, "clone", "--quiet", str(theirs), "mine")
        state = {"XDG_STATE_HOME": str(mine / "state")}
        assert command("run", "unitune.yaml", "--quiet", cwd=project, **state).code == 0
        assert len(listed(command("runs", "--json", cwd=project, **state))) == 1
        (theirs / ".gitignore").write_text("unitune\n", encoding="utf-8")
        (mine / ".git" / "info" / "exclude").write_text("state\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(project)
        forged(theirs / "state" / "unitune")
    (theirs / "state" / "unitune" / ".gitignore").unlink()
    commit(theirs)
    if pulled:
        git(mine, "pull", "--quiet", str(theirs), "main")
    else:
        git(tmp_path, "clone", "--quiet", str(theirs), "mine")
    forgery = (theirs / "state" / "unitune" / "ledger.db").read_bytes()
    assert (mine / "state" / "unitune" / "ledger.db").read_bytes() == forgery
    done = command("runs", cwd=project, XDG_STATE_HOME=str(mine / "state"))
    assert done.code == 2
    assert says(done, "it is in a git repository, so a clone or a pull may have written it")
    assert command("runs", cwd=project, UNITUNE_DIR=str(mine / "state" / "unitune")).code == 0


def test_without_a_place_for_the_ledger_a_folder_must_be_named(
    command: In, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    nowhere = {"XDG_STATE_HOME": str(tmp_path / "file")}
    done = command("run", "unitune.yaml", "--quiet", cwd=project, **nowhere)
    assert done.code != 0
    assert says(done, "UNITUNE_DIR")
    assert not list(project.rglob("train.jsonl/*"))
    named = command("run", "unitune.yaml", "--quiet", cwd=project, UNITUNE_DIR="mine", **nowhere)
    assert named.code == 0, named.err


def evaluation(project: Path) -> Path:
    (rows,) = project.glob(".unitune/runs/*/evaluation/rows.jsonl")
    return rows.parent


@pytest.mark.parametrize("how", ["replaced", "extended"])
def test_answers_that_a_pull_or_an_archive_wrote_are_not_used(
    command: In, project: Path, how: str
) -> None:
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    assert command("compare", "compared.yaml", cwd=project).code == 0
    file = evaluation(project) / "rows.jsonl"
    honest = file.read_bytes()
    line = json.dumps({"contender": "tuned", "case": "x"}).encode() + b"\n"
    file.write_bytes(line if how == "replaced" else honest + line)
    done = command("compare", "compared.yaml", cwd=project)
    if how == "extended":
        assert done.code == 0, done.err
        assert file.read_bytes() == honest, "what unitune did not write is cut off"
    else:
        assert done.code == 5
        assert says(done, "unitune did not write here for you")
        assert says(done, "--replay")
        assert file.read_bytes() == line


def test_answers_in_a_folder_that_came_along_need_replay(command: In, unpacked: Path) -> None:
    shutil.copytree(evaluation(unpacked), unpacked / "answers")
    assert command("run", "unitune.yaml", "--quiet", cwd=unpacked).code == 0
    done = command("compare", "compared.yaml", "--output", "answers", cwd=unpacked)
    assert done.code == 5
    assert says(done, "answers/rows.jsonl has content that unitune did not write here for you")


def test_a_cache_that_came_along_gives_no_answer(command: In, unpacked: Path) -> None:
    assert (unpacked / ".unitune" / "answers.sqlite").exists()
    assert command("run", "unitune.yaml", "--quiet", cwd=unpacked).code == 0
    done = command("compare", "compared.yaml", "--use-cache", cwd=unpacked)
    assert done.code == 0
    assert not says(done, "from the cache")


def test_a_comparison_that_was_changed_is_not_shown(command: In, project: Path) -> None:
    assert command("run", "unitune.yaml", "--quiet", cwd=project).code == 0
    assert command("compare", "compared.yaml", cwd=project).code == 0
    (verdict,) = project.glob(".unitune/comparisons/*/verdict.json")
    verdict.write_text(verdict.read_text("utf-8").replace("inconclusive", "better"), "utf-8")
    done = command("comparisons", cwd=project)
    assert says(done, "it was changed")
    assert command("comparisons", "newest", cwd=project).code != 0


AT_ONCE = """
import multiprocessing, os
from pathlib import Path
from unitune.workspace.home import artifact_folder, artifacts, home, make_home, project_id

def made(start):
    start.wait()
    make_home(home())
    artifact_folder("runs")

fork = multiprocessing.get_context("fork")
for number in range(20):
    Path(str(number), "project").mkdir(parents=True)
    os.environ["XDG_STATE_HOME"] = str(Path(str(number), "state").absolute())
    os.chdir(Path(str(number), "project"))
    start = fork.Barrier(8)
    children = [fork.Process(target=made, args=(start,)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [0] * 8 == [child.exitcode for child in children]
    assert [".unitune"] == os.listdir()
    assert project_id(artifacts())
    os.chdir("../..")
"""


def test_processes_that_make_the_folders_at_once_agree(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
