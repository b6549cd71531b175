"""A `.unitune` folder that somebody else brought is not used: no ledger, no answer, no deployment.

What is expected follows git, which since CVE-2022-24765 reads no repository of another user,
https://git-scm.com/docs/git-config, safe.directory (2026-11-26).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome

from unitune.cli import main as cli
from unitune.ledger import DeploymentRecord, Ledger, RunRecord
from unitune.models import TunedModel
from unitune.workspace.home import make_home

RUN = "r261101-000000000000"
NOBODY = 65534
JOB = {
    "name": "demo",
    "model": "tiny",
    "backend": "fake",
    "data": {"train": "train.jsonl", "validation": "train.jsonl", "test": "test.jsonl"},
    "evaluate": {"leaks": "allow"},
}
In = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> In:
    """Run a command in a folder, with variables of its own, through the real entry point."""

    def run(*arguments: str, cwd: Path, **variables: str) -> Outcome:
        with monkeypatch.context() as here:
            here.chdir(cwd)
            here.setattr(sys, "argv", ["unitune", *arguments])
            for name, value in variables.items():
                here.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return run


def says(done: Outcome, words: str) -> bool:
    """Return whether a complaint holds words, however it was wrapped."""
    return "".join(words.split()) in "".join((done.out + done.err).split())


def forged(folder: Path) -> None:
    """Make a folder with a run and a deployment that is overdue, by the Python interface."""
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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a job and its rows."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("train", "test"):
        rows = [{"prompt": f"{name} {at}?", "completion": f"{at}"} for at in range(4)]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "unitune.yaml").write_text(json.dumps(JOB), encoding="utf-8")
    return folder


@pytest.fixture
def unpacked(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as it came in an archive, in which another person has put a forged ledger."""
    with monkeypatch.context() as their:
        their.setenv("XDG_CONFIG_HOME", str(tmp_path / "their-config"))
        forged(project / ".unitune")
    return project.rename(tmp_path / "unpacked")


def git(folder: Path, *arguments: str) -> None:
    person = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", *person, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--force", ".")
    git(folder, "commit", "--quiet", "-m", "all")


COMMANDS = (
    "runs",
    f"show {RUN}",
    f"watch {RUN}",
    "watch --all",
    f"pause {RUN}",
    f"cancel {RUN}",
    f"resume {RUN}",
    f"delete {RUN} --yes",
    f"chat {RUN} -m hello",
    f"checkpoints {RUN}",
    f"deploy {RUN}",
    f"undeploy {RUN}-d1",
    "deployments",
    "plan unitune.yaml",
    "cost unitune.yaml",
    "run unitune.yaml",
    "compare unitune.yaml",
)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_no_command_opens_a_ledger_that_somebody_else_brought(
    command: In, unpacked: Path, arguments: str
) -> None:
    before = (unpacked / ".unitune" / "ledger.db").read_bytes()
    done = command(*arguments.split(), cwd=unpacked)
    assert (2, "") == (done.code, done.out), done.err
    assert says(done, f"{unpacked / '.unitune'} was not made by unitune in this place for you")
    assert says(done, f"unitune trust {unpacked / '.unitune'}")
    assert before == (unpacked / ".unitune" / "ledger.db").read_bytes()


def test_nor_from_a_folder_below(command: In, unpacked: Path) -> None:
    (unpacked / "a" / "b").mkdir(parents=True)
    assert 2 == command("runs", cwd=unpacked / "a" / "b").code


def test_the_user_may_say_so(command: In, unpacked: Path) -> None:
    named = command("runs", cwd=unpacked, UNITUNE_DIR=".unitune")
    assert 0 == named.code
    assert RUN in named.out
    assert 2 == command("runs", cwd=unpacked).code, "naming it once trusts nothing for good"
    assert 0 == command("trust", ".unitune", cwd=unpacked).code
    assert RUN in command("runs", cwd=unpacked).out


@pytest.mark.parametrize("name", ["..", ".", "src", "absent/.unitune"])
def test_no_other_folder_can_be_trusted(command: In, project: Path, name: str) -> None:
    (project / "src").mkdir()
    done = command("trust", name, cwd=project)
    assert 2 == done.code
    assert f"{name} is no .unitune folder" in done.err
    assert not list(project.parent.rglob("owner"))


def test_doctor_reports_it(command: In, unpacked: Path) -> None:
    done = command("doctor", "--json", cwd=unpacked)
    found = json.loads(done.out)
    assert (0, None) == (done.code, found["ledger"])
    assert "unitune trust" in found["ledger_problem"]
    assert "unitune trust" in command("doctor", cwd=unpacked).out


def test_one_s_own_folder_is_used_from_folders_below_too(command: In, project: Path) -> None:
    assert 0 == command("run", "unitune.yaml", "--quiet", cwd=project).code
    (project / "below").mkdir()
    for folder in (project, project / "below"):
        done = command("runs", "--json", cwd=folder)
        assert 1 == json.loads(done.out)["total"], done.err
    assert not (project / "below" / ".unitune").exists()


def test_an_archive_of_a_folder_is_not_the_folder(
    command: In, project: Path, tmp_path: Path
) -> None:
    """Its mark is genuine, but of another place: whoever had the archive may have changed it."""
    forged(project / ".unitune")
    assert 0 == command("runs", cwd=project).code
    with tarfile.open(tmp_path / "home.tar", "w") as archive:
        archive.add(project / ".unitune", ".unitune")
    (tmp_path / "elsewhere").mkdir()
    with tarfile.open(tmp_path / "home.tar") as archive:
        archive.extractall(tmp_path / "elsewhere", filter="data")
    done = command("runs", cwd=tmp_path / "elsewhere")
    assert 2 == done.code
    assert says(done, "it was moved or copied here")
    assert 0 == command("trust", cwd=tmp_path / "elsewhere").code
    assert RUN in command("runs", cwd=tmp_path / "elsewhere").out


def test_a_folder_of_another_home_is_not_known(command: In, project: Path, tmp_path: Path) -> None:
    first, second = (
        {"HOME": str(tmp_path / name), "XDG_CONFIG_HOME": ""} for name in ("first", "second")
    )
    for place in (first, second):
        Path(place["HOME"]).mkdir()
    assert 0 == command("run", "unitune.yaml", "--quiet", cwd=project, **first).code
    assert 0 == command("runs", cwd=project, **first).code
    secret = tmp_path / "first" / ".config" / "unitune" / "secret"
    assert (0o600, 0o700) == (secret.stat().st_mode & 0o777, secret.parent.stat().st_mode & 0o777)
    done = command("runs", cwd=project, **second)
    assert 2 == done.code
    assert says(done, "another HOME")
    assert 0 == command("runs", cwd=project, UNITUNE_DIR=".unitune", **second).code


def test_a_mark_of_another_folder_is_none(command: In, unpacked: Path, tmp_path: Path) -> None:
    """Who has seen one folder of the user's, as in an archive, cannot make another like it."""
    make_home(tmp_path / "mine" / ".unitune")
    mark = tmp_path / "mine" / ".unitune" / "owner"
    shutil.copy(mark, unpacked / ".unitune" / "owner")
    assert 2 == command("runs", cwd=unpacked).code


@pytest.mark.parametrize("content", ["", "0" * 64, "0" * 9000, "é" * 64, "\0"])
def test_an_odd_mark_is_none(command: In, unpacked: Path, content: str) -> None:
    make_home(unpacked.parent / "mine" / ".unitune")  # there is a secret
    (unpacked / ".unitune" / "owner").write_text(content, encoding="utf-8")
    assert 2 == command("runs", cwd=unpacked).code


def test_a_pipe_is_no_mark_and_nobody_waits_for_it(command: In, unpacked: Path) -> None:
    (unpacked / ".unitune" / "owner").unlink()
    os.mkfifo(unpacked / ".unitune" / "owner")
    assert 2 == command("runs", cwd=unpacked).code


@pytest.mark.parametrize("target", ["theirs", "nothing-there"])
def test_a_symbolic_link_is_not_followed(
    command: In, project: Path, tmp_path: Path, target: str
) -> None:
    forged(tmp_path / "theirs")
    (project / ".unitune").symlink_to(tmp_path / target)
    for arguments in (["runs"], ["run", "unitune.yaml"]):
        done = command(*arguments, cwd=project)
        assert 2 == done.code
        assert says(done, "is a symbolic link")
    assert not (tmp_path / "nothing-there").exists()
    assert 2 == command("trust", cwd=project).code


@pytest.mark.parametrize("name", ["ledger.db", "runs", "runs/x"])
def test_a_folder_with_links_in_it_is_not_trusted(
    command: In, unpacked: Path, tmp_path: Path, name: str
) -> None:
    shutil.rmtree(unpacked / ".unitune")
    (unpacked / ".unitune" / name).parent.mkdir(parents=True)
    (unpacked / ".unitune" / name).symlink_to(tmp_path)
    done = command("trust", cwd=unpacked)
    assert 2 == done.code
    assert says(done, f"{name} is a symbolic link")


def given_to_nobody(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("what", ["", "ledger.db"])
def test_another_user_s_folder_is_refused_where_one_stands(
    command: In, project: Path, what: str
) -> None:
    """Even root's commands do not use it."""
    forged(project / ".unitune")
    given_to_nobody(project / ".unitune" / what)
    for arguments in (["runs"], ["trust"], ["run", "unitune.yaml"]):
        done = command(*arguments, cwd=project)
        assert 2 == done.code
        assert says(done, "belongs to another user")
    assert 0 == command("runs", cwd=project, UNITUNE_DIR=".unitune").code


def test_another_user_s_folder_above_stops_nobody(
    command: In, project: Path, tmp_path: Path
) -> None:
    """In a shared folder such as /tmp anybody can make one above all others."""
    forged(tmp_path / ".unitune")
    given_to_nobody(tmp_path / ".unitune")
    listed = subprocess.run(  # a process of its own: pytest takes what is logged
        [sys.executable, "-m", "unitune", "runs", "--json"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 == json.loads(listed.stdout)["total"]
    noted = f"'{tmp_path / '.unitune'}' belongs to another user and is not used.\n"
    assert noted == listed.stderr, "told once"
    assert 0 == command("run", "unitune.yaml", "--quiet", cwd=project).code
    assert (project / ".unitune" / "ledger.db").exists()
    assert "" == command("runs", cwd=project).err


def test_an_empty_folder_of_one_s_own_is_used(command: In, project: Path) -> None:
    """A clone never brings one."""
    (project / ".unitune").mkdir()
    assert 0 == command("runs", cwd=project).code
    assert 0 == command("run", "unitune.yaml", "--quiet", cwd=project).code
    assert 0 == command("runs", cwd=project).code


def test_without_a_place_for_the_secret_a_folder_must_be_named(
    command: In, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    nowhere = {"XDG_CONFIG_HOME": str(tmp_path / "file")}
    done = command("run", "unitune.yaml", "--quiet", cwd=project, **nowhere)
    assert 2 == done.code
    assert says(done, "UNITUNE_DIR")
    assert [] == list(project.glob(".unitune*"))
    named = command("run", "unitune.yaml", "--quiet", cwd=project, UNITUNE_DIR="mine", **nowhere)
    assert 0 == named.code, named.err


@pytest.mark.parametrize("more", [[], ["-c", "index.version=4"], ["-c", "core.splitIndex=true"]])
def test_a_clone_s_ledger_is_not_used_even_if_it_is_trusted(
    command: In, unpacked: Path, tmp_path: Path, more: list[str]
) -> None:
    """The next pull could change it."""
    git(unpacked, "init", "--quiet")
    commit(unpacked)
    git(tmp_path, *more, "clone", "--quiet", str(unpacked), "clone")
    clone = tmp_path / "clone"
    git(clone, *more, "update-index", "--force-write-index")
    for arguments in (["runs"], ["compare", "unitune.yaml"], ["trust"]):
        done = command(*arguments, cwd=clone)
        assert 2 == done.code
        assert says(done, "git tracks a file of it")
    named = command("runs", cwd=clone, UNITUNE_DIR=".unitune")
    assert RUN in named.out
    git(clone, "rm", "-r", "--cached", ".unitune")
    git(clone, "update-index", "--no-split-index")
    assert 0 == command("trust", cwd=clone).code
    assert RUN in command("runs", cwd=clone).out


@pytest.mark.parametrize("how", ["folder", "worktree", "below"])
def test_a_pull_that_overwrites_one_s_own_ledger_is_noticed(
    command: In, unpacked: Path, tmp_path: Path, how: str
) -> None:
    """Git overwrites ignored files without a word, and would leave the mark as it is."""
    if how == "below":
        (tmp_path / "repository").mkdir()
        unpacked = unpacked.rename(tmp_path / "repository" / "project")
    top = tmp_path / "repository" if how == "below" else unpacked
    git(top, "init", "--quiet", "--initial-branch=main")
    forgery = (unpacked / ".unitune").rename(tmp_path / "forgery")
    commit(top)
    git(tmp_path, "clone", "--quiet", str(top), "mine")
    mine = tmp_path / "mine"
    if how == "worktree":
        git(mine, "worktree", "add", "--quiet", str(tmp_path / "tree"))
        mine = tmp_path / "tree"
    here = mine / "project" if how == "below" else mine
    assert 0 == command("run", "unitune.yaml", "--quiet", cwd=here).code
    assert 0 == command("runs", cwd=here).code
    (unpacked / ".unitune").mkdir()
    shutil.copy(forgery / "ledger.db", unpacked / ".unitune" / "ledger.db")
    commit(top)
    git(mine, "pull", "--quiet", str(top), "main")
    forged_ledger = (forgery / "ledger.db").read_bytes()
    assert forged_ledger == (here / ".unitune" / "ledger.db").read_bytes(), "git has overwritten it"
    done = command("runs", cwd=here)
    assert 2 == done.code
    assert says(done, ".unitune/ledger.db")


AT_ONCE = """
import multiprocessing, os
from pathlib import Path
from unitune.workspace.home import home, make_home

def made_and_found(start):
    start.wait()
    make_home(home())
    assert home() == Path.cwd() / ".unitune"  # raises where it is not known for one's own

fork = multiprocessing.get_context("fork")
for number in range(20):
    Path(str(number), "project").mkdir(parents=True)
    os.environ["XDG_CONFIG_HOME"] = str(Path(str(number), "config").absolute())
    os.chdir(Path(str(number), "project"))
    start = fork.Barrier(8)
    children = [fork.Process(target=made_and_found, args=(start,)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [0] * 8 == [child.exitcode for child in children]
    assert [".unitune"] == os.listdir()
    assert ["secret"] == os.listdir("../config/unitune")
    os.chdir("../..")
"""


def test_processes_that_make_folder_and_secret_at_once_agree(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
